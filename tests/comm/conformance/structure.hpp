// Cases of what stands around the verbs: barrier, split, exchange, mesh, and long programs of mixed calls.
#pragma once

#include <shardkit/comm/mesh.hpp>
#include <shardkit/comm/subset.hpp>
#include "groups.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <thread>
#include <vector>

namespace conformance {

/// Nobody leaves before the last has come. The clock is the machine's: its ranks may be processes.
template <class Comm>
void barrier(Comm& comm, report& out, const sweep&) {
  const auto now = [] { return std::chrono::steady_clock::now().time_since_epoch().count(); };
  for (int late = 0; late < comm.size(); ++late) {
    if (comm.rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const auto came = now();
    comm.barrier();
    const auto left = now();
    const auto all_came = comm.exchange(came), all_left = comm.exchange(left);
    out.at(text("barrier, rank ", late, " late"));
    out.expect(
        *std::max_element(all_came.begin(), all_came.end()) <= *std::min_element(all_left.begin(), all_left.end()),
        "a rank left before the last came");
  }
}

template <class Comm>
void exchange(Comm& comm, report& out, const sweep&) {
  struct note {
    int rank;
    double half;
    char letters[300];
  };
  note mine{comm.rank(), comm.rank() / 2.0, {}};
  mine.letters[299] = static_cast<char>('a' + comm.rank());
  const auto all = comm.exchange(mine);
  out.at("exchange");
  out.expect(all.size() == as_index(comm.size()), "number of values");
  for (int rank = 0; rank < comm.size(); ++rank) {
    const note& one = all[as_index(rank)];
    out.at(text("exchange, value of rank ", rank));
    out.expect(one.rank == rank && one.half == rank / 2.0 && one.letters[299] == 'a' + rank);
  }
  out.at("exchange");
  out.expect(comm.exchange(static_cast<char>(comm.rank())).back() == comm.size() - 1, "a char");
}

/// Splits, then checks members and order by asking who is there.
template <class Comm, class Colour, class Key>
void one_split(Comm& comm, report& out, const char* what, Colour colour, Key key) {
  const int me = comm.rank();
  Comm child = comm.split(colour(me), key(me));
  std::vector<int> members;
  for (int rank = 0; rank < comm.size(); ++rank)
    if (colour(rank) == colour(me)) members.push_back(rank);
  std::stable_sort(members.begin(), members.end(), [&](int a, int b) { return key(a) < key(b); });
  out.at(text("split by ", what, ", rank ", me, " of ", comm.size()));
  out.expect(child.size() == static_cast<int>(members.size()), "size");
  out.expect(child.exchange(me) == members, "members");
  out.expect(members[as_index(child.rank())] == me, "rank");
  out.expect(child.name() == comm.name() + "/" + std::to_string(colour(me)), "name");
  // The child works by itself, and the parent goes on beside it.
  std::vector<float> data(300, 1.0f);
  child.all_reduce(in_place(data), shardkit::sum);
  out.expect(data.back() == static_cast<float>(members.size()), "sum over the child");
  out.expect(comm.all_reduce(1, shardkit::sum) == comm.size(), "sum over the parent");
  int got = -1, mine = me;
  child.send_recv(view(&mine, 1), around(child.rank() + 1, child.size()), view(&got, 1),
                  around(child.rank() - 1, child.size()));
  out.expect(got == members[as_index(around(child.rank() - 1, child.size()))], "message within the child");
}

template <class Comm>
void split(Comm& comm, report& out, const sweep&) {
  const int ranks = comm.size();
  const auto none = [](int) { return 0; };
  const auto sparse = [](int rank) { return rank % 3 * 1000000 + 7; };
  one_split(comm, out, "one colour", none, none);
  one_split(comm, out, "one colour, reversed", none, [](int rank) { return -rank; });
  one_split(comm, out, "sparse colours", sparse, none);
  one_split(comm, out, "sparse colours, negative and duplicate keys", sparse, [](int rank) { return -(rank / 4) * 5; });
  one_split(
      comm, out, "halves, extreme keys", [&](int rank) { return rank * 2 / ranks; },
      [](int rank) { return rank % 2 == 0 ? std::numeric_limits<int>::max() : std::numeric_limits<int>::min(); });
  one_split(
      comm, out, "every rank alone", [](int rank) { return std::numeric_limits<int>::max() - rank; }, none);
}

/// Children of children, several alive at once.
template <class Comm>
void nested_split(Comm& comm, report& out, const sweep&) {
  out.at("children of children");
  auto half = comm.split(comm.rank() % 2, 0, "half");
  auto quarter = half.split(half.rank() % 2, -half.rank(), "quarter");
  out.expect(quarter.name() == "quarter", "name of a child");
  for (int round = 0; round < 20; ++round) {
    out.expect(quarter.all_reduce(1, shardkit::sum) == quarter.size(), "sum over the grandchild");
    out.expect(half.all_reduce(1, shardkit::sum) == half.size(), "sum over the child");
    out.expect(comm.all_reduce(1, shardkit::sum) == comm.size(), "sum over the parent");
  }
  const auto worlds = quarter.exchange(comm.rank());
  for (std::size_t i = 1; i < worlds.size(); ++i) out.expect(worlds[i] == worlds[i - 1] - 4, "order of the grandchild");
}

/// Some of the ranks, in any order.
template <class Comm>
void subset(Comm& comm, report& out, const sweep&) {
  const int ranks = comm.size();
  std::vector<std::vector<int>> lists{{ranks - 1}, {}, {}};
  for (int rank = ranks; rank-- > 0;) {
    lists[1].push_back(rank);  // all, reversed
    if (rank % 2 == 0) lists[2].push_back(rank);
  }
  for (const std::vector<int>& list : lists) {
    out.at(text("subset of ", list.size(), " of ", ranks, " ranks"));
    auto part = shardkit::subset(comm, list);
    const auto place = std::find(list.begin(), list.end(), comm.rank());
    out.expect(part.has_value() == (place != list.end()), "members only");
    if (part) {
      out.expect(part->size() == static_cast<int>(list.size()) && part->rank() == place - list.begin(), "place");
      out.expect(part->exchange(comm.rank()) == list, "members");
      out.expect(part->all_reduce(1, shardkit::sum) == part->size(), "sum over the subset");
    }
    out.expect(comm.all_reduce(1, shardkit::sum) == ranks, "sum over the parent");
  }
  out.at("subset of different ranks");
  if (ranks > 1) {
    bool refused = false;
    try {
      shardkit::subset(comm, {comm.rank() == 0 ? 0 : 1});
    } catch (const shardkit::mismatch_error&) {
      refused = true;
    }
    out.expect(refused, "lists that differ are refused on every rank");
  }
}

/// Every grid of two and three axes that has as many places as there are ranks.
template <class Comm>
void mesh_axes(Comm& comm, report& out, const sweep&) {
  const int ranks = comm.size();
  for (int a = 1; a <= ranks; ++a)
    for (int b = 1; a * b <= ranks; ++b) {
      if (ranks % (a * b) != 0) continue;
      const int c = ranks / (a * b);
      out.at(text("mesh of ", a, " x ", b, " x ", c));
      shardkit::mesh grid(comm, {{"data", a}, {"pipeline", b}, {"tensor", c}});
      const int mine[] = {grid.coordinate("data"), grid.coordinate("pipeline"), grid.coordinate("tensor")};
      out.expect((mine[0] * b + mine[1]) * c + mine[2] == comm.rank(), "coordinates");
      const int strides[] = {b * c, c, 1}, lengths[] = {a, b, c};
      const char* names[] = {"data", "pipeline", "tensor"};
      for (int axis = 0; axis < 3; ++axis) {
        Comm& line = grid[names[axis]];
        std::vector<int> members;
        for (int place = 0; place < lengths[axis]; ++place)
          members.push_back(comm.rank() + (place - mine[axis]) * strides[axis]);
        out.expect(line.exchange(comm.rank()) == members && line.rank() == mine[axis] && line.name() == names[axis],
                   "axis");
      }
      out.expect(&grid["data"] == &grid["data"] && grid.axes().size() == 3, "axes");
    }
}

/// Long programs of calls in random order, sizes and roots, while the ranks run at different speeds: nothing is
/// mistaken for another call, and no clean run is reported as a failure.
template <class Comm>
void random_programs(Comm& comm, report& out, const sweep& how) {
  const int ranks = comm.size(), me = comm.rank();
  const std::size_t steps = std::min<std::size_t>(600, how.points / 2);
  for (std::size_t step = 0; step < steps; ++step) {
    const std::uint64_t choice = draw(step, 77, 0);
    const std::size_t count = sizes[choice / 16 % sizes.size()];
    const int root = static_cast<int>(choice / 1024 % as_index(ranks));
    if (draw(step, me, 1) % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(draw(step, me, 2) % 300));
    out.at(text("step ", step, " of a random program"));
    const source from{values::exact, reduction_kind::sum, step};
    const auto sums = [&](guarded& at_hand, std::size_t first, std::size_t n) {
      guarded should(dtype::u32, n);
      reduce(should.data(), dtype::u32, from, reduction_kind::sum, ranks, first, n);
      out.same(at_hand.data(), should.data(), dtype::u32, n);
    };
    guarded data(dtype::u32, count, from, me), got(dtype::u32, count), whole(dtype::u32, count * as_index(ranks));
    switch (choice % 8) {
      case 0:
        comm.broadcast(data.as<word>(), root);
        out.holds(data.data(), dtype::u32, from, root, 0, count);
        break;
      case 1:
        comm.all_reduce(data.read<word>(), got.as<word>(), shardkit::sum);
        sums(got, 0, count);
        break;
      case 2:
        comm.reduce(data.read<word>(), got.as<word>(), shardkit::sum, root);
        if (comm.is_root(root)) sums(got, 0, count);
        break;
      case 3:
        comm.all_gather(data.read<word>(), whole.as<word>());
        for (int rank = 0; rank < ranks; ++rank)
          out.holds(whole.data(as_index(rank) * count), dtype::u32, from, rank, 0, count);
        break;
      case 4: {
        const auto cut = layout_of(choice / 65536 % layout_count, count, ranks);
        comm.reduce_scatter(data.read<word>(), got.as<word>().subview(0, cut.count(me)), shardkit::sum, cut);
        sums(got, cut.offset(me), cut.count(me));
        break;
      }
      case 5: {
        const int distance = root;
        comm.send_recv(data.read<word>(), around(me + distance, ranks), got.as<word>(), around(me - distance, ranks));
        out.holds(got.data(), dtype::u32, from, around(me - distance, ranks), 0, count);
        break;
      }
      case 6:
        comm.group([&](auto& g) {
          g.gather(data.read<word>(), whole.as<word>(), root);
          g.send(data.read<word>(), around(me + 1, ranks));
          g.recv(got.as<word>(), around(me - 1, ranks));
        });
        out.holds(got.data(), dtype::u32, from, around(me - 1, ranks), 0, count);
        for (int rank = 0; rank < (comm.is_root(root) ? ranks : 0); ++rank)
          out.holds(whole.data(as_index(rank) * count), dtype::u32, from, rank, 0, count);
        break;
      default: comm.barrier(); break;
    }
    out.expect(data.intact() && got.intact() && whole.intact(), "margins");
  }
}

}  // namespace conformance
