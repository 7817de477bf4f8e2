// What a transport must offer to carry a communicator, and what it may.
//
// A backend is a small movable class:
//
//   using space = ...;                       where the buffers of its calls live
//   int rank(), size();
//   void perform(const X_call&);             natively, for each verb it has; required are barrier, broadcast, reduce,
//                                            all_reduce, reduce_scatter, all_gather, send, recv
//   void perform(const group_call&);         sends, receives and required collectives that progress together
//   request start(const X_call&);            the same for each of them without waiting: started calls take effect in
//                                            program order, and every wait of this rank moves them along. What a call
//                                            points to (buffers, layouts) stays until it is complete; the list of a
//                                            group_call is copied
//   bool perform_plainly(const X_call&) noexcept;      where a verb's ordinary case is one call that cannot throw:
//   makes
//                                            it; where more is to be done, or it went wrong, false, and perform(call)
//                                            then does the rest, or throws. It keeps such calls free of landing pads
//   B split(int colour, int key, const call_site&);    collective; ranks of one colour, ordered by key, then rank
//   void exchange(const void* in, void* out, std::size_t bytes, const call_site&);
//                                            collective over host memory whatever the space: out[r] = rank r's in
//   control_lane& control();                 where it has one (control.hpp); the first call is collective
//   void fail(const std::string& reason) noexcept;     this rank gives up: peers must not wait for it
//   void throw_if_failed(const call_site&);  where it can tell without waiting that the communicator or the launch has
//                                            failed: throws that
//
// On a device, perform and start only enqueue on the call's stream. A request is then complete when nothing is left to
// be enqueued: it may be empty. The typed face adds what orders the streams (detail/forked.hpp).
//
//   std::uint64_t group_order() const;       where a device works off what it is given one by one: the same number on
//                                            all ranks of this communicator and on none of another. A group over
//                                            several communicators is enqueued in this order, whichever way ranks list
//                                            them
//   const call_history* remembered();        where it keeps its last calls: every error of the communicator prints them
//   static constexpr bool is_capturable = false;       over a device, where calls cannot be part of a graph: those that
//                                            are started are then refused before their streams are ordered
//
// Verbs that a backend does not have are composed by complete<B> (complete.hpp).
#pragma once

#include <shardkit/comm/group.hpp>
#include <shardkit/comm/request.hpp>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace shardkit {

/// What remembers the calls of a communicator: `traced`.
class call_history {
 public:
  /// Adds them to an error that has none yet.
  virtual void attach_to(error& failure) const = 0;

 protected:
  ~call_history() = default;
};

namespace detail {

template <class Backend, class Call, class = void>
struct performs : std::false_type {};
template <class Backend, class Call>
struct performs<Backend, Call, std::void_t<decltype(std::declval<Backend&>().perform(std::declval<const Call&>()))>>
    : std::true_type {};

template <class Backend, class Call, class = void>
struct starts : std::false_type {};
template <class Backend, class Call>
struct starts<Backend, Call, std::void_t<decltype(std::declval<Backend&>().start(std::declval<const Call&>()))>>
    : std::true_type {};

template <class Backend, class Call, class = void>
struct performs_plainly : std::false_type {};
template <class Backend, class Call>
struct performs_plainly<Backend, Call,
                        std::void_t<decltype(std::declval<Backend&>().perform_plainly(std::declval<const Call&>()))>>
    : std::true_type {};

template <class Backend, class List>
struct has_every;
template <class Backend, class... Calls>
struct has_every<Backend, call_list<Calls...>>
    : std::bool_constant<((performs<Backend, Calls>::value && starts<Backend, Calls>::value) && ...)> {};

template <class Backend, class = void>
struct tells_failure : std::false_type {};
template <class Backend>
struct tells_failure<Backend,
                     std::void_t<decltype(std::declval<Backend&>().throw_if_failed(std::declval<const call_site&>()))>>
    : std::true_type {};

template <class Backend, class = void>
struct orders_groups : std::false_type {};
template <class Backend>
struct orders_groups<Backend, std::void_t<decltype(std::declval<Backend&>().group_order())>> : std::true_type {};
template <class Backend, class = void>
struct decorates : std::false_type {};
template <class Backend>
struct decorates<Backend, std::void_t<decltype(std::declval<Backend&>().decorated())>> : std::true_type {};

template <class Backend, class = void>
struct remembers_calls : std::false_type {};
template <class Backend>
struct remembers_calls<Backend, std::void_t<decltype(std::declval<Backend&>().remembered())>> : std::true_type {};

template <class Backend, class = void>
struct is_capturable : std::true_type {};
template <class Backend>
struct is_capturable<Backend, std::void_t<decltype(Backend::is_capturable)>>
    : std::bool_constant<Backend::is_capturable> {};
template <class Backend>
struct is_capturable<Backend, std::enable_if_t<decorates<Backend>::value>>
    : is_capturable<std::decay_t<decltype(std::declval<Backend&>().decorated())>> {};

/// The backend's place in a group over several communicators, through its decorators; 0 where it does not mind.
template <class Backend>
std::uint64_t group_order_of(Backend& backend) noexcept {
  if constexpr (orders_groups<Backend>::value) return backend.group_order();
  else if constexpr (decorates<Backend>::value) return group_order_of(backend.decorated());
  else return 0;
}

/// The history that the errors of a backend carry, through its decorators; null where nobody keeps one.
template <class Backend>
const call_history* history_of(Backend& backend) noexcept {
  if constexpr (remembers_calls<Backend>::value) return backend.remembered();
  else if constexpr (decorates<Backend>::value) return history_of(backend.decorated());
  else return nullptr;
}

template <class Backend, class = void>
struct defers_calls : std::false_type {};
template <class Backend>
struct defers_calls<Backend, std::void_t<decltype(Backend::defers)>> : std::bool_constant<Backend::defers> {};

/// Its own class, so that this is the first error.
template <class Backend>
struct require_outside_group {
  static_assert(!defers_calls<Backend>::value,
                "shardkit: this cannot be listed in a group; call it on the communicator, outside the group");
  static constexpr bool value = true;
};

}  // namespace detail

/// The verbs every backend performs by itself.
using required_calls = call_list<barrier_call, broadcast_call, reduce_call, all_reduce_call, reduce_scatter_call,
                                 all_gather_call, send_call, recv_call, group_call>;

/// Whether B has what every backend must have.
template <class Backend>
inline constexpr bool is_backend = detail::has_every<Backend, required_calls>::value;

}  // namespace shardkit
