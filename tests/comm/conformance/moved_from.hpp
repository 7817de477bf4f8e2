// What is left of a communicator after a move: nothing that can be used, and it says so.
#pragma once

#include "groups.hpp"

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace conformance {

/// Every use of `gone` is refused by its name; no rank needs a peer for that.
template <class Comm>
void refused_everywhere(Comm& gone, report& out) {
  using shardkit::partition;
  using shardkit::sum;
  std::vector<word> x(6), y(6), none;
  const partition one_part = partition::balanced(6, 1);
  const auto refuses = [&](const char* operation, auto use) {
    out.at(text(operation, " after a move"));
    try {
      use();
      out.expect(false, "it was not refused");
    } catch (const shardkit::usage_error& wrong) {
      const std::string what = wrong.what();
      out.expect(what.find(operation) != std::string::npos, wrong.what());
      out.expect(what.find("the communicator was moved from") != std::string::npos, wrong.what());
    }
  };
  refuses("barrier", [&] { gone.barrier(); });
  refuses("barrier", [&] { auto pending = gone.barrier_async(); });
  refuses("broadcast", [&] { gone.broadcast(x, 0); });
  refuses("reduce", [&] { gone.reduce(x, y, sum, 0); });
  refuses("all_reduce", [&] { gone.all_reduce(x, y, sum); });
  refuses("all_reduce", [&] { gone.all_reduce(in_place(x), sum); });
  refuses("all_reduce", [&] { (void)gone.all_reduce(1, sum); });
  refuses("all_reduce", [&] { auto pending = gone.all_reduce_async(in_place(x), sum); });
  refuses("all_gather", [&] { gone.all_gather(x, y); });
  refuses("all_gather", [&] { gone.all_gather(x, none); });
  refuses("all_gather", [&] { gone.all_gather(in_place(x)); });
  refuses("all_gather", [&] { gone.all_gather(x, y, one_part); });
  refuses("reduce_scatter", [&] { gone.reduce_scatter(none, y, sum); });
  refuses("reduce_scatter", [&] { gone.reduce_scatter(x, y, sum, one_part); });
  refuses("gather", [&] { gone.gather(x, y, 0); });
  refuses("scatter", [&] { gone.scatter(x, y, 0); });
  refuses("all_to_all", [&] { gone.all_to_all(x, y); });
  refuses("all_to_all", [&] { gone.all_to_all(x, one_part, y, one_part); });
  refuses("send", [&] { gone.send(x, 0); });
  refuses("recv", [&] { auto pending = gone.recv_async(x, 0); });
  refuses("send_recv", [&] { gone.send_recv(x, 0, y, 0); });
  refuses("group", [&] { gone.group([](auto& g) { g.barrier(); }); });
  refuses("group", [&] { auto pending = gone.group_async([](auto&) {}); });
  refuses("split", [&] { (void)gone.split(0); });
  refuses("split", [&] { (void)gone.split(-1); });
  refuses("exchange", [&] { (void)gone.exchange(1); });
  refuses("control", [&] { (void)gone.control(); });
  refuses("backend", [&] { (void)gone.backend(); });
  out.at("after a move");
  out.expect(gone.rank() == -1 && gone.size() == 0 && !gone.is_root() && gone.name().empty(), "rank, size or name");
  gone.fail("nobody hears this");
}

/// The ranks go on with what was moved; what is moved back, or assigned anew, can be used again.
template <class Comm>
void moved_from(Comm& comm, report& out, const sweep&) {
  Comm first = comm.split(0), moved = std::move(first);
  refused_everywhere(first, out);
  out.at("what was moved");
  out.expect(moved.all_reduce(1, shardkit::sum) == comm.size(), "sum over it");
  first = std::move(moved);
  out.expect(first.all_reduce(1, shardkit::sum) == comm.size() && moved.size() == 0, "sum over what was moved back");
  moved = comm.split(0);
  out.expect(moved.all_reduce(1, shardkit::sum) == comm.size(), "sum over what was assigned");
}

}  // namespace conformance
