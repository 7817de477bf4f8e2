// Ranks as threads of one process: they read each other's buffers directly, each element once, and combine in rank
// order, so that results are the same bits on every rank and run. Created by run_ranks (launch/run_ranks.hpp).
#pragma once

#include <shardkit/backends/detail/thread_rank.hpp>
#include <shardkit/backends/detail/thread_split.hpp>
#include <shardkit/comm/communicator.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace shardkit {

/// A rank's end of a communicator of threads. One thread uses it at a time; a rank may use several communicators from
/// as many threads.
///
/// Ranks always compare verb, counts, dtype, reduction and root, and throw mismatch_error naming both ranks where they
/// differ. A rank that throws out of a call has made sure that no peer still touches its buffers. Started calls take
/// effect in program order; they go on in every later call and wait of this rank, on whichever communicator of the
/// launch, and from whichever of its threads.
///
/// A template only so that a program compiles what it uses of it.
template <class Rank = detail::thread_rank>
class basic_thread_backend {
 public:
  using space = host_space;

  basic_thread_backend(detail::shared<detail::thread_room> room, int rank)
      : state_(detail::shared<Rank>::make(std::move(room), rank)) {}

  int rank() const noexcept { return meeting().rank(); }
  int size() const noexcept { return meeting().room().size; }

  /// Any verb; see comm/calls.hpp.
  template <class Call>
  auto perform(const Call& call) -> decltype(std::declval<Rank&>().perform(call)) {
    state_->perform(call);
  }
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<Rank&>().start(call)) {
    return state_->start(call);
  }

  basic_thread_backend split(int colour, int key, const call_site& site) {
    detail::thread_seat seat = state_->apart([&, this] { return detail::split_threads(meeting(), colour, key, site); });
    return basic_thread_backend(std::move(seat.room), seat.rank);
  }

  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    perform(all_gather_call{in, out, bytes, dtype::u8, nullptr, site});
  }

  control_lane& control() noexcept { return state_->control(); }
  void fail(const std::string& reason) noexcept { meeting().raise(rank(), reason); }

  /// Where the ranks meet, for a backend that takes this one's place before anything has been called.
  detail::shared<detail::thread_room> hand_over() noexcept { return meeting().hand_over(); }

 private:
  detail::thread_meeting& meeting() const noexcept { return state_->meeting(); }

  detail::shared<Rank> state_;
};

/// Of ranks on host memory.
using thread_backend = basic_thread_backend<>;

/// Made by run_ranks, one for each thread.
using thread_communicator = communicator<thread_backend>;

}  // namespace shardkit
