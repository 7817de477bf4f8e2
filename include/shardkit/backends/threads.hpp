// Ranks as threads of one process: they read each other's buffers directly, each element once, and combine in rank
// order, so that results are the same bits on every rank and run. Created by run_ranks (launch/run_ranks.hpp).
#pragma once

#include <shardkit/backends/detail/thread_control.hpp>
#include <shardkit/backends/detail/thread_rank.hpp>
#include <shardkit/comm/communicator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {
namespace detail {

/// How the ranks of a split meet.
struct split_call {
  static constexpr const char* name = "split";
  call_site site;
};

}  // namespace detail

/// A rank's end of a communicator of threads. One thread uses it at a time; a rank may use several communicators from
/// as many threads.
///
/// Ranks always compare verb, counts, dtype, reduction and root, and throw mismatch_error naming both ranks where they
/// differ. A rank that throws out of a call has made sure that no peer still touches its buffers. Started calls take
/// effect in program order; they go on in every later call and wait of this rank, on whichever communicator of the
/// launch, and from whichever of its threads.
class thread_backend {
 public:
  using space = host_space;

  thread_backend(std::shared_ptr<detail::thread_room> room, int rank)
      : state_(std::make_shared<detail::thread_rank>(std::move(room), rank)),
        control_(std::make_unique<detail::thread_control>(state_->meeting())) {}

  int rank() const noexcept { return meeting().rank(); }
  int size() const noexcept { return meeting().room().size; }

  /// Any verb; see comm/calls.hpp.
  template <class Call>
  auto perform(const Call& call) -> decltype(std::declval<detail::thread_rank&>().perform(call)) {
    state_->perform(call);
  }
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<detail::thread_rank&>().start(call)) {
    return state_->start(call);
  }

  thread_backend split(int colour, int key, const call_site& site) {
    return state_->apart([&] { return split_now(colour, key, site); });
  }

  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    perform(all_gather_call{in, out, bytes, dtype::u8, nullptr, site});
  }

  control_lane& control() noexcept { return *control_; }
  void fail(const std::string& reason) noexcept { meeting().raise(rank(), reason); }

 private:
  thread_backend split_now(int colour, int key, const call_site& site);
  detail::thread_meeting& meeting() const noexcept { return state_->meeting(); }

  std::shared_ptr<detail::thread_rank> state_;
  std::unique_ptr<detail::thread_control> control_;
};

/// The leader of each colour, its lowest rank, makes the room; the others take it while the leader waits.
inline thread_backend thread_backend::split_now(int colour, int key, const call_site& site) {
  struct choice {
    int colour, key, rank;
  };
  const choice mine{colour, key, rank()};
  const detail::split_call call{site};
  meeting().publish_inline(call, &mine, sizeof mine);
  std::vector<choice> members;
  for (int peer = 0; peer < size(); ++peer) {
    choice theirs = mine;
    if (peer != rank()) std::memcpy(&theirs, meeting().await(call, peer).bytes, sizeof theirs);
    if (theirs.colour == colour) members.push_back(theirs);
  }
  const int leader = members.front().rank;
  std::sort(members.begin(), members.end(),
            [](const choice& a, const choice& b) { return a.key != b.key ? a.key < b.key : a.rank < b.rank; });

  int child_rank = 0;
  std::vector<int> launch_ranks;
  for (const choice& one : members) {
    if (one.rank == rank()) child_rank = static_cast<int>(launch_ranks.size());
    launch_ranks.push_back(meeting().room().launch_rank(one.rank));
  }
  std::shared_ptr<detail::thread_room> child;
  if (leader == rank()) child = std::make_shared<detail::thread_room>(meeting().room().launch, std::move(launch_ranks));

  // Shown like a buffer: a leader that has to give up stays until nobody copies its pointer.
  const void* const offered = &child;
  meeting().publish_buffers(call, {offered, nullptr, nullptr});
  if (leader != rank()) {
    const void* const theirs = meeting().await(call, leader).direct.in;
    child = *static_cast<const std::shared_ptr<detail::thread_room>*>(theirs);
  }
  meeting().await_all(call);
  meeting().finish(call);
  return thread_backend(std::move(child), child_rank);
}

/// Made by run_ranks, one for each thread.
using thread_communicator = communicator<thread_backend>;

}  // namespace shardkit
