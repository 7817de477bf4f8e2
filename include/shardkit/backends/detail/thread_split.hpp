// How thread ranks divide: the rooms of the children, and this rank's place in its own.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>

#include <cstddef>
#include <cstring>
#include <exception>
#include <utility>

namespace shardkit::detail {

/// How the ranks of a split meet.
struct split_call {
  static constexpr const char* name = "split";
  std::size_t count;  ///< which step this is: 0 colours and keys, 1 the rooms
  call_site site;
};

struct thread_seat {
  shared<thread_room> room;
  int rank;
};

/// Collective, with nothing else under way. The leader of each colour, its lowest rank, makes the room; the others take
/// it while the leader waits. A template, so that only programs that split compile it.
template <class Meeting>
thread_seat split_in_steps(Meeting& meeting, int colour, int key, const call_site& site) {
  struct choice {
    int colour, key, rank;
  };
  const int rank = meeting.rank();
  const choice mine{colour, key, rank};
  const split_call call{0, site};
  meeting.publish_inline(call, &mine, sizeof mine);
  list<choice> members;
  int leader = rank;
  for (int peer = 0; peer < meeting.room().size; ++peer) {
    choice theirs = mine;
    if (peer != rank) std::memcpy(&theirs, meeting.await(call, peer).bytes, sizeof theirs);
    if (theirs.colour != colour) continue;
    if (members.empty()) leader = peer;
    // By key; of equal keys the lower rank came first.
    members.push_back(theirs);
    for (choice* last = &members.back(); last != members.begin() && last[-1].key > theirs.key; --last)
      std::swap(last[-1], *last);
  }

  int child_rank = 0;
  list<int> launch_ranks;
  for (const choice& one : members) {
    if (one.rank == rank) child_rank = static_cast<int>(launch_ranks.size());
    launch_ranks.push_back(meeting.room().launch_rank(one.rank));
  }
  shared<thread_room> child;
  if (leader == rank) child = shared<thread_room>::make(meeting.room().launch, std::move(launch_ranks));

  // Shown like a buffer: a leader that has to give up stays until nobody copies its pointer.
  const void* const offered = &child;
  const split_call rooms{1, site};
  meeting.publish_buffers(rooms, {offered, nullptr, nullptr});
  if (leader != rank) {
    const void* const theirs = meeting.await(rooms, leader).direct.in;
    child = *static_cast<const shared<thread_room>*>(theirs);
  }
  meeting.finish(rooms);
  return {std::move(child), child_rank};
}

/// The same; a rank that runs out of memory between the steps tells the others, which wait for the next one.
template <class Meeting>
thread_seat split_threads(Meeting& meeting, int colour, int key, const call_site& site) {
  try {
    return split_in_steps(meeting, colour, key, site);
  } catch (const std::exception& failure) {
    meeting.raise(meeting.rank(), failure.what());
    throw;
  }
}

}  // namespace shardkit::detail
