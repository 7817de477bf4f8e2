// What every control lane does, whatever carries it: cases over any communicator.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include "conformance/report.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace control_cases {

using shardkit::control_lane;
using shardkit::control_topic;

inline control_lane::blob letters(const std::string& text) { return {text.begin(), text.end()}; }
inline control_lane::blob note(int from, int to, int number) {
  // Of all lengths, empty and large ones among them.
  control_lane::blob text = letters(std::to_string(from) + ">" + std::to_string(to) + "#" + std::to_string(number));
  text.resize(number % 5 == 4 ? 0 : number % 7 == 6 ? 100000 : text.size(), static_cast<char>(number));
  return text;
}

/// Notes between all pairs, oneself included, taken in another order than posted; topics do not wait for each other.
template <class Comm>
void notes(Comm& comm, conformance::report& out) {
  control_lane& lane = comm.control();
  out.at("control: notes");
  out.expect(lane.rank() == comm.rank() && lane.size() == comm.size(), "rank and size");
  constexpr int each = 15;
  for (int number = 0; number < each; ++number)
    for (int peer = 0; peer < comm.size(); ++peer) {
      lane.post(peer, control_topic::user, note(comm.rank(), peer, number));
      lane.post(peer, control_topic::fingerprint, note(comm.rank(), peer, number + 100));
    }
  for (int peer = comm.size(); peer-- > 0;) {
    for (int number = 0; number < each; ++number)
      out.expect(lane.take(peer, control_topic::fingerprint) == note(peer, comm.rank(), number + 100), "other topic");
    for (int number = 0; number < each; ++number)
      out.expect(lane.take(peer, control_topic::user) == note(peer, comm.rank(), number), "note");
  }
  control_lane::blob none;
  out.expect(!lane.poll(comm.rank(), control_topic::user, none), "poll of nothing");
}

/// poll does not wait, and what it has not seen yet is still to come.
template <class Comm>
void polled(Comm& comm, conformance::report& out) {
  control_lane& lane = comm.control();
  out.at("control: poll");
  const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
  control_lane::blob found;
  comm.barrier();
  out.expect(!lane.poll(previous, control_topic::user, found), "nothing was posted yet");
  comm.barrier();
  lane.post(next, control_topic::user, letters("polled"));
  while (!lane.poll(previous, control_topic::user, found)) {
  }
  out.expect(found == letters("polled"), "message");
}

/// Blobs of different lengths from everybody, also beside notes of the same topic that nobody has taken, and calls.
template <class Comm>
void exchanges(Comm& comm, conformance::report& out) {
  control_lane& lane = comm.control();
  out.at("control: exchange");
  const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
  lane.post(next, control_topic::user, letters("waits"));
  for (int round = 0; round < 12; ++round) {
    const auto all = lane.exchange(control_topic::user, note(comm.rank(), -1, round + comm.rank()));
    out.expect(all.size() == static_cast<std::size_t>(comm.size()), "size");
    for (int rank = 0; rank < comm.size(); ++rank)
      out.expect(all[static_cast<std::size_t>(rank)] == note(rank, -1, round + rank), "blob");
    out.expect(comm.all_reduce(1, shardkit::sum) == comm.size(), "a call beside the lane");
  }
  out.expect(lane.take(previous, control_topic::user) == letters("waits"), "the note from before");
}

/// Lanes of children are apart from their parent's, and end with them, whatever was left in them.
template <class Comm>
void children(Comm& comm, conformance::report& out) {
  out.at("control: children");
  for (int round = 0; round < 5; ++round) {
    auto child = comm.split(comm.rank() % 2, -comm.rank());
    control_lane& lane = child.control();
    lane.post(0, control_topic::user, letters("in the child"));
    comm.control().post(comm.rank(), control_topic::user, letters("in the parent"));
    out.expect(lane.exchange(control_topic::user, {}).size() == static_cast<std::size_t>(child.size()), "exchange");
    out.expect(comm.control().take(comm.rank(), control_topic::user) == letters("in the parent"), "parent");
    if (child.rank() == 0)
      for (int rank = 0; rank < child.size(); ++rank)
        out.expect(lane.take(rank, control_topic::user) == letters("in the child"), "child");
  }
}

/// A wish to stop reaches everybody and fails nothing. The last case on a launch: it cannot be taken back.
template <class Comm>
void stops(Comm& comm, conformance::report& out) {
  out.at("control: stop");
  out.expect(!comm.control().stop_requested(), "before anybody has asked");
  comm.barrier();
  if (comm.rank() == comm.size() - 1) comm.control().request_stop();
  while (!comm.control().stop_requested()) {
  }
  auto child = comm.split(0);
  out.expect(child.control().stop_requested(), "in a child");
  out.expect(comm.all_reduce(1, shardkit::sum) == comm.size(), "calls go on");
}

template <class Comm>
void all(Comm& comm, conformance::report& out) {
  notes(comm, out);
  polled(comm, out);
  exchanges(comm, out);
  children(comm, out);
  stops(comm, out);
}

}  // namespace control_cases
