// Any one call, as groups list them and started calls are kept: its number and its plain bytes. What std::variant does
// with tables of functions, one for each copy and each visit of seventeen types, took compilers longer than the verbs.
#pragma once

#include <shardkit/comm/calls.hpp>

#include <cstddef>
#include <new>
#include <type_traits>

namespace shardkit {
namespace detail {

template <class List>
class one_of;
template <class... Calls>
class one_of<call_list<Calls...>> {
  static_assert((std::is_trivially_copyable<Calls>::value && ...), "shardkit: calls are plain data");

 public:
  /// The first kind, all zero.
  one_of() noexcept : bytes_{}, number_(0) {}
  template <class Call, std::enable_if_t<(std::is_same<Call, Calls>::value || ...), int> = 0>
  one_of(const Call& call) noexcept : number_(number<Call>()) {
    ::new (static_cast<void*>(bytes_)) Call(call);
  }

  /// The call where it is known to be of this kind.
  template <class Call>
  Call& get() noexcept {
    return *std::launder(reinterpret_cast<Call*>(bytes_));
  }
  template <class Call>
  const Call& get() const noexcept {
    return *std::launder(reinterpret_cast<const Call*>(bytes_));
  }

  /// Whether both are of one kind.
  bool is_like(const one_of& other) const noexcept { return number_ == other.number_; }

  /// What `action` returns for the call as what it is; the same type for every kind of call.
  template <class Action>
  friend auto visit(Action&& action, one_of& any) {
    return any_kind(action, any);
  }
  template <class Action>
  friend auto visit(Action&& action, const one_of& any) {
    return any_kind(action, any);
  }

 private:
  template <class Call>
  static constexpr unsigned char number() noexcept {
    unsigned char at = 0;
    bool found = false;
    ((found = found || std::is_same<Call, Calls>::value, at = static_cast<unsigned char>(at + !found)), ...);
    return at;
  }

  template <class Action, class Any>
  static auto any_kind(Action& action, Any& any) {
    using result = std::common_type_t<decltype(action(any.template get<Calls>()))...>;
    if constexpr (std::is_void<result>::value) {
      (void)((any.number_ == number<Calls>() && (action(any.template get<Calls>()), true)) || ...);
    } else {
      result answer{};
      (void)((any.number_ == number<Calls>() && (answer = action(any.template get<Calls>()), true)) || ...);
      return answer;
    }
  }

  static constexpr std::size_t largest() noexcept {
    std::size_t most = 0;
    ((most = sizeof(Calls) > most ? sizeof(Calls) : most), ...);
    return most;
  }

  alignas(void*) unsigned char bytes_[largest()];
  unsigned char number_;
};

}  // namespace detail

/// Any one call of all_calls:  visit([&](const auto& call) { backend.perform(call); }, any);
using any_call = detail::one_of<all_calls>;

}  // namespace shardkit
