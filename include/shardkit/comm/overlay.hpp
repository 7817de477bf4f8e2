// A decorator that lets an engine plug in reductions of its own (a one-shot all_reduce over peer memory, say) for the
// calls where they are faster. Everything else goes to the backend below.
//
// A plug-in is a movable class with `void perform(const X_call&)` for the reducing verbs it has (all_reduce, reduce,
// reduce_scatter). It may also have
//
//   request start(const X_call&);                        else calls without waiting go to the backend below
//   void* reduce_input(std::size_t bytes);               a buffer for inputs; null where it has none of that size
//   Plugin split(int colour, int key, const call_site&); else the children of split are without it
#pragma once

#include <shardkit/comm/decorator.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

namespace detail {

// Bytes of each rank's input: the same on every rank, unlike those of an output.
inline std::size_t input_bytes(const all_reduce_call& call, int) { return call.count * size_of(call.type); }
inline std::size_t input_bytes(const reduce_call& call, int) { return call.count * size_of(call.type); }
inline std::size_t input_bytes(const reduce_scatter_call& call, int size) {
  return call.count * static_cast<std::size_t>(size) * size_of(call.type);
}
inline std::size_t input_bytes(const reduce_scatter_uneven_call& call, int) {
  return call.layout->total() * size_of(call.type);
}

template <class Call, class = void>
struct reduces : std::false_type {};
template <class Call>
struct reduces<Call, std::void_t<decltype(std::declval<const Call&>().op)>> : std::true_type {};

template <class Plugin, class = void>
struct has_reduce_input : std::false_type {};
template <class Plugin>
struct has_reduce_input<Plugin, std::void_t<decltype(std::declval<Plugin&>().reduce_input(std::size_t{}))>>
    : std::true_type {};

template <class Plugin, class = void>
struct splits : std::false_type {};
template <class Plugin>
struct splits<Plugin, std::void_t<decltype(std::declval<Plugin&>().split(0, 0, call_site{}))>> : std::true_type {};

}  // namespace detail

/// `predicate(op, dtype, bytes)` says which reductions go to the plug-in, by the bytes of each rank's input. All ranks
/// have to decide alike, so it may not look at anything that differs between ranks. The calls of a group stay together
/// and go to the backend below.
template <class Fast, class Backend, class Predicate>
class overlay : public decorator<Backend> {
 public:
  overlay(Fast fast, Backend backend, Predicate predicate)
      : overlay(std::optional<Fast>(std::move(fast)), std::move(backend), std::move(predicate)) {}

  template <class Call>
  void perform(const Call& call) {
    if constexpr (detail::reduces<Call>::value && detail::performs<Fast, Call>::value)
      if (takes(call)) return fast_->perform(call);
    this->next_.perform(call);
  }
  template <class Call>
  request start(const Call& call) {
    if constexpr (detail::reduces<Call>::value && detail::starts<Fast, Call>::value)
      if (takes(call)) return fast_->start(call);
    return this->next_.start(call);
  }
  overlay split(int colour, int key, const call_site& site) {
    Backend child = this->next_.split(colour, key, site);
    std::optional<Fast> fast;
    if constexpr (detail::splits<Fast>::value)
      if (fast_) fast.emplace(fast_->split(colour, key, site));
    return overlay(std::move(fast), std::move(child), predicate_);
  }

  /// The plug-in's buffer for the input of an all_reduce of `count` elements, for a GEMM to write its partial sums to;
  /// empty where such a call goes to the backend below, or the plug-in has no buffer.
  template <class T>
  view<T, typename Backend::space> reduce_input(std::size_t count, reduction op = sum) {
    if constexpr (detail::has_reduce_input<Fast>::value) {
      if (fast_ && predicate_(op, dtype_of<T>, count * sizeof(T)))
        if (void* buffer = fast_->reduce_input(count * sizeof(T))) return {static_cast<T*>(buffer), count};
    }
    return {};
  }

  /// Collective: throws mismatch_error where the ranks' predicates differ in what they say of any type, reduction and
  /// power of two of bytes.
  void require_same_decisions(const call_site& site) {
    const std::uint64_t mine = decisions();
    std::vector<std::uint64_t> all(static_cast<std::size_t>(this->size()));
    this->next_.exchange(&mine, all.data(), sizeof mine, site);
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
      if (all[rank] == all[0]) continue;
      const std::string text = "overlay: the predicates of rank 0 and rank " + std::to_string(rank) +
                               " decide differently; they may not look at anything that differs between ranks";
      this->fail(text);
      throw mismatch_error(text);
    }
  }

 private:
  overlay(std::optional<Fast> fast, Backend backend, Predicate predicate)
      : decorator<Backend>(std::move(backend)), fast_(std::move(fast)), predicate_(std::move(predicate)) {}

  template <class Call>
  bool takes(const Call& call) const {
    return fast_ && predicate_(call.op, call.type, detail::input_bytes(call, this->size()));
  }

  std::uint64_t decisions() const {
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (int type = 0; type <= static_cast<int>(dtype::boolean); ++type)
      for (int kind = 0; kind <= static_cast<int>(reduction_kind::bit_xor); ++kind)
        for (const bool by_rank : {false, true})
          for (int power = 0; power < 48; ++power) {
            const reduction op{static_cast<reduction_kind>(kind), by_rank};
            const bool yes = predicate_(op, static_cast<dtype>(type), std::size_t{1} << power);
            hash = (hash ^ (yes ? 1u : 2u)) * 0x100000001b3u;
          }
    return hash;
  }

  std::optional<Fast> fast_;
  Predicate predicate_;
};

/// The same ranks, with `fast` for the reductions that the predicate chooses; the communicator is moved from.
/// Collective: compares what the predicates decide.
template <class Fast, class Backend, class Predicate>
communicator<overlay<Fast, Backend, Predicate>> with_overlay(communicator<Backend>&& comm, Fast fast,
                                                             Predicate predicate,
                                                             call_site site = call_site::current()) {
  auto result = std::move(comm).wrap("with_overlay", site, [&](Backend&& backend) {
    return overlay<Fast, Backend, Predicate>(std::move(fast), std::move(backend), std::move(predicate));
  });
  try {
    result.backend().require_same_decisions(site);
  } catch (error& failure) {
    result.explain(failure, "with_overlay", site);
    throw;
  }
  return result;
}

}  // namespace shardkit
