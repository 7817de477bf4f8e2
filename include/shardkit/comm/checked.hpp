// A decorator that compares what the ranks are about to do before they do it: verb, counts, dtype, reduction, root and
// order. Where they differ, every rank throws mismatch_error, which names two of the ranks and their call sites,
// instead of hanging or computing something else.
#pragma once

#include <shardkit/comm/decorator.hpp>
#include <shardkit/comm/detail/checker.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

/// Compares every call over the control lane of B, which has to offer one. Collectives wait until all ranks have told
/// what they do, so none of them returns before all ranks have come to it; a receive waits for its sender. What is
/// started without waiting is compared before its request is complete. The results are those of B.
///
/// A rank that can see that it waits for ever throws mismatch_error, too: in a collective while a peer is in a receive
/// from it that it has not sent for, or in a send to it that it has not made the receive for; in a receive from a rank
/// that waits to receive from it. A rank that is in a send when another finds the mismatch learns of it as of any
/// failure of a peer: over MPI a large one may be blocked, and the watchdog ends the job. Ranks are named as ranks of
/// this communicator.
///
/// A buffer that does not begin at a multiple of its elements' size is refused with usage_error, which fails the
/// communicator. Without checks nobody looks at that: it would cost instructions in every call.
///
/// What is captured into a graph is compared with nobody meanwhile, but kept: verify_replay (verify_replay.hpp)
/// compares it before the graph is launched.
template <class Backend>
class checked {
 public:
  using space = typename Backend::space;
  using decorated_type = Backend;

  explicit checked(Backend backend) : shared_(std::make_shared<detail::checker<Backend>>(std::move(backend))) {}

  int rank() const noexcept { return shared_->next.rank(); }
  int size() const noexcept { return shared_->next.size(); }
  /// The backend inside.
  Backend& decorated() noexcept { return shared_->next.base(); }

  template <class Call>
  void perform(const Call& call) {
    if (shared_->captures(call)) {
      shared_->next.perform(call);
      return shared_->captured.note(call);
    }
    shared_->guarded([&, this] {
      agreement until;
      if constexpr (std::is_same<Call, recv_call>::value) {
        shared_->announce(call, until, true);
        shared_->await_message(call, until);
      } else {
        // A message may wait for its peer, which may have to hear from this rank meanwhile.
        if (has_messages(call)) return wait_for_messages(call, until);
        shared_->announce(call, until, false);
        shared_->await_collective(call, until);
      }
      shared_->next.perform(call);
    });
  }

  template <class Call>
  request start(const Call& call) {
    if (shared_->captures(call)) {
      request captured = shared_->next.start(call);
      shared_->captured.note(call);
      return captured;
    }
    return shared_->guarded([&, this] {
      agreement until;
      shared_->announce(call, until, false);
      return shared_->follow(Call::name, until, call.site, shared_->next.start(call));
    });
  }

  checked split(int colour, int key, const call_site& site) {
    return together(detail::split_operation{site},
                    [&, this] { return checked(shared_->next.split(colour, key, site)); });
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    together(detail::exchange_operation{bytes, dtype::u8, site},
             [&, this] { shared_->next.exchange(in, out, bytes, site); });
  }
  control_lane& control() { return shared_->next.base().control(); }
  /// What has been captured since the last time.
  detail::captured_list take_captured() noexcept { return std::exchange(shared_->captured, {}); }
  void fail(const std::string& reason) noexcept { shared_->next.fail(reason); }
  template <class Inner = Backend>
  auto throw_if_failed(const call_site& site) -> decltype(std::declval<Inner&>().throw_if_failed(site)) {
    shared_->next.base().throw_if_failed(site);
  }

 private:
  using agreement = typename detail::checker<Backend>::agreement;

  template <class Call>
  static bool has_messages(const Call&) {
    return detail::is_message<Call>;
  }
  static bool has_messages(const group_call& group) {
    const auto is_message = [](const any_call& one) {
      return visit([](const auto& call) { return detail::is_message<std::decay_t<decltype(call)>>; }, one);
    };
    return std::any_of(group.calls, group.calls + group.count, is_message);
  }

  template <class Call>
  void wait_for_messages(const Call& call, agreement& until) {
    shared_->announce(call, until, std::is_same<Call, send_call>::value);
    if constexpr (std::is_same<Call, send_call>::value)
      if (call.peer == rank()) return shared_->next.perform(call);
    if constexpr (!std::is_same<space, host_space>::value) return shared_->next.perform(call);
    shared_->follow(nullptr, until, call.site, shared_->next.start(call)).wait();
  }

  template <class Call, class Action>
  auto together(const Call& call, Action action) {
    return shared_->guarded([&, this] {
      agreement until;
      shared_->announce(call, until, false);
      shared_->await_collective(call, until);
      return action();
    });
  }

  std::shared_ptr<detail::checker<Backend>> shared_;
};

/// The same ranks, checked; the communicator is moved from. Collective: the control lane may have to be made. Where a
/// rank checks what it has checked before, that fails the communicator (usage_error).
template <class Backend>
communicator<checked<Backend>> with_checks(communicator<Backend>&& comm, call_site site = call_site::current()) {
  return std::move(comm).wrap("with_checks", site,
                              [](Backend&& backend) { return checked<Backend>(std::move(backend)); });
}

}  // namespace shardkit
