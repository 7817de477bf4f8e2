// What every verb of the typed face has in common: the call is counted, handed to the backend, and given its context
// where it fails; and the checks of arguments. A rank that finds its own arguments bad fails the communicator before
// it throws, so that no peer waits for it.
#pragma once

#include <shardkit/comm/complete.hpp>
#include <shardkit/comm/describe.hpp>
#include <shardkit/comm/detail/membership.hpp>
#include <shardkit/core/at.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

template <class Backend>
class calling {
 public:
  using space = typename Backend::space;
  using where = at<space>;

  /// -1 after the communicator was moved from, ...
  int rank() const noexcept { return self_.rank(); }
  /// ... and 0.
  int size() const noexcept { return self_.size(); }

  /// Tells an error, where nobody has, what this rank was doing, and its last calls where they are traced. For
  /// functions over communicators, whose errors then read like those of verbs.
  [[gnu::cold, gnu::noinline]] void explain(error& failure, const char* operation, const call_site& site) {
    self_.explain(failure, operation, site, history_of(backend_.base()));
  }

 protected:
  calling(Backend backend, shared<shared_name> name)
      : backend_(std::move(backend)), self_(backend_.rank(), backend_.size(), std::move(name)) {}

  std::size_t ranks() const noexcept { return self_.ranks(); }
  std::size_t index() const noexcept { return self_.index(); }

  // Inlined, together with what a backend does plainly, a call costs a handful of instructions: its descriptor never
  // lies in memory. Therefore whatever takes the address of a call gets a copy.
  template <class Call>
  [[gnu::always_inline]] inline void run(const Call& call) {
    self_.count(Call::name, call.site);
    if constexpr (performs_plainly<Backend, Call>::value) {
      if (backend_.base().perform_plainly(call)) return;
      const Call copy = call;
      perform_otherwise(copy);
    } else {
      perform(call);
    }
  }
  template <class Call>
  [[gnu::cold, gnu::noinline]] void perform_otherwise(const Call& call) {
    perform(call);
  }
  template <class Call>
  void perform(const Call& call) {
    try {
      backend_.perform(call);
    } catch (error& failure) {
      explain_call(failure, call);
      throw;
    }
  }
  [[gnu::cold, gnu::noinline]] void explain_call(error& failure, const described_call& call) {
    self_.explain(failure, call, history_of(backend_.base()));
  }
  template <class Call>
  request begin(const Call& call) {
    static_assert(require_outside_group<Backend>::value);
    self_.count(Call::name, call.site);
    try {
      return backend_.start(call);
    } catch (error& failure) {
      explain_call(failure, call);
      throw;
    }
  }
  template <class Body>
  auto guarded(const char* operation, const where& w, Body body) {
    self_.count(operation, w.site);
    return explaining(operation, w.site, body);
  }
  // The same without a call.
  template <class Body>
  auto explaining(const char* operation, const call_site& site, Body body) {
    try {
      return body();
    } catch (error& failure) {
      explain(failure, operation, site);
      throw;
    }
  }

  // ---- Checks. Like the call itself, the site is copied where it is needed, so that no check keeps it in memory. ----

  template <class View>
  [[gnu::always_inline]] inline View checked(const char* operation, View buffer, const where& w) {
    if (__builtin_expect(buffer.data() == nullptr, false)) {
      const where copy = w;
      require_empty(operation, buffer.size(), copy);
    }
    return buffer;
  }
  // Two buffers at once: addresses that have no bit in common, null being one, are looked at one by one.
  template <class A, class B>
  [[gnu::always_inline]] inline void require_buffers(const char* operation, const A& a, const B& b, const where& w) {
    if (__builtin_expect((address(a) & address(b)) != 0, true)) return;
    const where copy = w;
    if (a.data() == nullptr) require_empty(operation, a.size(), copy);
    if (b.data() == nullptr) require_empty(operation, b.size(), copy);
  }
  template <class View>
  [[gnu::always_inline]] static inline std::uintptr_t address(const View& buffer) noexcept {
    return reinterpret_cast<std::uintptr_t>(buffer.data());
  }
  [[gnu::always_inline]] inline void require_root(const char* operation, int root, const where& w) {
    if (static_cast<unsigned>(root) < static_cast<unsigned>(size())) return;
    const where copy = w;
    reject_rank(operation, "root", root, copy);
  }
  [[gnu::always_inline]] inline int checked_peer(const char* operation, int peer, const where& w) {
    if (static_cast<unsigned>(peer) < static_cast<unsigned>(size())) return peer;
    const where copy = w;
    reject_rank(operation, "peer", peer, copy);
  }
  [[gnu::always_inline]] inline void require_size(const char* operation, const char* what, std::size_t given,
                                                  std::size_t needed, const where& w) {
    if (given == needed) return;
    const where copy = w;
    reject_size(operation, what, given, needed, copy);
  }
  [[gnu::always_inline]] inline std::size_t whole_share(const char* operation, std::size_t total, const where& w) {
    if (total % ranks() == 0) return total / ranks();
    const where copy = w;
    reject_share(operation, total, copy);
  }
  [[gnu::noinline]] void require_layout(const char* operation, const partition& layout, const where& w) {
    if (layout.parts() != size())
      reject(operation,
             sentence() << "the partition is over " << layout.parts() << " ranks, the communicator has " << size(), w);
    if (layout.replica_count() != 1) reject(operation, "the partition has replicas: its ranges coincide", w);
  }
  [[gnu::always_inline]] inline void require_reduction(const char* operation, dtype element, reduction op,
                                                       const where& w) {
    if (is_reducible(element, op.kind)) return;
    // Devices may reduce 8-bit floats: the backend knows.
    if constexpr (!std::is_same<space, host_space>::value)
      if (size_of(element) == 1 && is_floating(element) && op.kind < reduction_kind::bit_and) return;
    const where copy = w;
    reject_reduction(operation, element, op, copy);
  }
  // `part` may be exactly element `place` of `whole`; any other common byte would be read after it is written.
  template <class Part, class Whole>
  [[gnu::always_inline]] inline void require_disjoint(const char* operation, const Part& part, const Whole& whole,
                                                      std::size_t place, const where& w) {
    if (lie_apart(part, whole)) return;
    const where copy = w;
    if (part.size() > whole.size() || part.data() != whole.data() + place)
      reject_overlap(operation, part.empty() || whole.empty(), copy);
  }
  template <class A, class B>
  [[gnu::always_inline]] inline void require_apart(const char* operation, const A& a, const B& b, const where& w) {
    if (lie_apart(a, b)) return;
    const where copy = w;
    reject_overlap(operation, a.empty() || b.empty(), copy);
  }
  // Whether b begins at least a.bytes() behind the beginning of a, or ends before it: one comparison, because unsigned
  // distances wrap. Also says no where both are empty at one place.
  template <class A, class B>
  [[gnu::always_inline]] static inline bool lie_apart(const A& a, const B& b) noexcept {
    return address(b) - address(a) - a.bytes() <= std::uintptr_t{0} - a.bytes() - b.bytes();
  }
  [[gnu::noinline]] void reject_overlap(const char* operation, bool empty, const where& w) {
    if (!empty) reject(operation, "input and output overlap", w);
  }

  // A rank that finds its own arguments bad fails the communicator first, so that no peer waits for it.
  [[noreturn, gnu::cold, gnu::noinline]] void reject(const char* operation, const std::string& message,
                                                     const where& w) {
    self_.count(operation, w.site);
    backend_.fail(sentence() << operation << ": " << message);
    usage_error wrong(message);
    explain(wrong, operation, w.site);
    throw wrong;
  }
  [[gnu::cold, gnu::noinline]] void require_empty(const char* operation, std::size_t count, const where& w) {
    if (count == 0) return;
    reject(operation, sentence() << "a buffer of " << count << " elements begins at a null pointer", w);
  }
  [[noreturn, gnu::cold, gnu::noinline]] void reject_rank(const char* operation, const char* what, int rank,
                                                          const where& w) {
    reject(operation, not_a_rank(what, rank, size()), w);
  }
  [[noreturn, gnu::cold, gnu::noinline]] void reject_size(const char* operation, const char* what, std::size_t given,
                                                          std::size_t needed, const where& w) {
    reject(operation, sentence() << what << " has " << given << " elements and needs " << needed, w);
  }
  [[noreturn, gnu::cold, gnu::noinline]] void reject_share(const char* operation, std::size_t total, const where& w) {
    reject(
        operation,
        sentence() << total << " elements do not divide by " << size() << " ranks; pass a partition for unequal parts",
        w);
  }
  [[noreturn, gnu::cold, gnu::noinline]] void reject_reduction(const char* operation, dtype element, reduction op,
                                                               const where& w) {
    self_.count(operation, w.site);
    unsupported_error wrong(irreducible(element, op.kind));
    backend_.fail(wrong.message());
    explain(wrong, operation, w.site);
    throw wrong;
  }

  complete<Backend> backend_;
  membership self_;
};

}  // namespace shardkit::detail
