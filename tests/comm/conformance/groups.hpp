// Cases of several calls as one.
#pragma once

#include "messages.hpp"

#include <algorithm>
#include <deque>
#include <vector>

namespace conformance {

/// Both neighbours send at once what no transport keeps for itself.
template <class Comm>
void group_both_directions(Comm& comm, report& out, const sweep& how) {
  const int next = around(comm.rank() + 1, comm.size()), previous = around(comm.rank() - 1, comm.size());
  guarded to_next(dtype::u32, how.large, 1, comm.rank()), to_previous(dtype::u32, how.large, 2, comm.rank());
  guarded from_next(dtype::u32, how.large), from_previous(dtype::u32, how.large);
  comm.group([&](auto& g) {
    g.send(to_next.read<word>(), next);
    g.send(to_previous.read<word>(), previous);
    // Where both neighbours are one rank, messages match in the order listed.
    g.recv(from_previous.as<word>(), previous);
    g.recv(from_next.as<word>(), next);
  });
  out.at("both directions at once");
  out.holds(from_previous.data(), dtype::u32, 1, previous, 0, how.large);
  out.holds(from_next.data(), dtype::u32, 2, next, 0, how.large);
  out.expect(from_next.intact() && from_previous.intact(), "margins");
}

/// Every rank exchanges many messages of mixed sizes with every rank, itself included, receives listed first.
template <class Comm>
void group_of_many_messages(Comm& comm, report& out, const sweep& how) {
  const int ranks = comm.size(), each = 20;
  const auto count = [&](int k) { return k % 7 == 6 ? how.large / 32 : mixed_count(k, how.large); };
  std::deque<guarded> sent, got;
  for (int peer = 0; peer < ranks; ++peer)
    for (int k = 0; k < each; ++k) {
      sent.emplace_back(dtype::u32, count(k), as_index(k * 16 + peer), comm.rank());
      got.emplace_back(dtype::u32, count(k));
    }
  comm.group([&](auto& g) {
    for (std::size_t i = 0; i < got.size(); ++i) g.recv(got[i].as<word>(), static_cast<int>(i) / each);
    for (std::size_t i = 0; i < sent.size(); ++i) g.send(sent[i].read<word>(), static_cast<int>(i) / each);
  });
  for (int peer = 0; peer < ranks; ++peer)
    for (int k = 0; k < each; ++k) {
      guarded& message = got[as_index(peer * each + k)];
      out.at(text("message ", k, " from ", peer, " in a group"));
      out.holds(message.data(), dtype::u32, as_index(k * 16 + comm.rank()), peer, 0, message.size());
      out.expect(message.intact(), "margins");
    }
}

/// One rank sends to all others and receives from all others in one group; the others answer in single calls.
template <class Comm>
void group_against_single_calls(Comm& comm, report& out, const sweep& how) {
  const int ranks = comm.size();
  const std::size_t count = how.large / 8;
  for (int hub = 0; hub < ranks; hub += std::max(1, ranks - 1)) {
    if (comm.rank() != hub) {
      guarded data(dtype::u32, count);
      comm.recv(data.as<word>(), hub);
      out.at("from the hub");
      out.holds(data.data(), dtype::u32, as_index(comm.rank()), hub, 0, count);
      out.expect(data.intact(), "margins");
      comm.send(data.read<word>(), hub);
      continue;
    }
    std::deque<guarded> sent, back;
    comm.group([&](auto& g) {
      for (int peer = 0; peer < ranks; ++peer) {
        sent.emplace_back(dtype::u32, count, as_index(peer), hub);
        back.emplace_back(dtype::u32, count);
        if (peer == hub) continue;
        g.send(sent.back().read<word>(), peer);
        g.recv(back.back().as<word>(), peer);
      }
    });
    out.at("back at the hub");
    for (int peer = 0; peer < ranks; ++peer)
      if (peer != hub) {
        out.holds(back[as_index(peer)].data(), dtype::u32, as_index(peer), hub, 0, count);
        out.expect(back[as_index(peer)].intact(), "margins");
      }
  }
}

/// Doubles that are a function of their place, between margins.
class numbers : public guarded {
 public:
  template <class Value>
  numbers(std::size_t size, Value value) : numbers(size) {
    for (std::size_t i = 0; i < size; ++i) get()[i] = value(i);
  }
  explicit numbers(std::size_t size) : guarded(dtype::f64, size) {}

  view<double> get() { return as<double>(); }
  view<const double> read() { return guarded::read<double>(); }
};

/// Every verb in one group, small and large.
template <class Comm>
void group_of_every_verb(Comm& comm, report& out, const sweep& how) {
  const int ranks = comm.size(), me = comm.rank(), last = ranks - 1;
  const int next = around(me + 1, ranks), previous = around(me - 1, ranks);
  const std::size_t n = as_index(ranks);
  for (std::size_t count : {std::size_t{1}, std::size_t{3}, how.large / 16}) {
    const auto cut = layout_of(6, count * n, ranks), other_cut = layout_of(5, count * n, ranks);
    const auto value = [&](int rank, std::size_t i) { return static_cast<double>(as_index(rank + 1) * (i % 1000)); };
    const auto filled = [&](std::size_t size) { return numbers(size, [&](std::size_t i) { return value(me, i); }); };
    const auto total = [&](std::size_t i) { return static_cast<double>(n * (n + 1) / 2 * (i % 1000)); };

    auto part = filled(count), whole = filled(count * n), cut_part = filled(cut.count(me)), broadcasted = filled(count);
    auto all_reduced = filled(count), own_block = filled(count * n), own_range = filled(count * n);
    numbers reduced(me == last ? count : 0), gathered(count * n), cut_gathered(count * n);
    numbers at_root(me == 0 ? count * n : 0), cut_at_root(me == last ? count * n : 0), from_root(count);
    numbers cut_from_root(other_cut.count(me)), transposed(count * n), ring(count), block(count);
    numbers range(cut.count(me)), message(count), uneven_in(me == 0 ? count * n : 0);
    const auto to_first = [&](bool sends) {
      std::vector<std::size_t> counts(n);
      if (sends) counts[0] = count;
      else if (me == 0) counts.assign(n, count);
      return partition::from_counts(counts);
    };
    const partition outgoing = to_first(true), incoming = to_first(false);

    comm.group([&](auto& g) {
      g.recv(message.get(), previous);
      g.barrier();
      g.gather(part.read(), at_root.get(), 0);
      g.broadcast(broadcasted.get(), last);
      g.all_gather(part.read(), gathered.get());
      g.all_reduce(in_place(all_reduced.get()), shardkit::sum);
      g.send_recv(part.read(), previous, ring.get(), next);
      g.all_gather(cut_part.read(), cut_gathered.get(), cut);
      g.reduce(part.read(), reduced.get(), shardkit::sum, last);
      g.scatter(whole.read(), from_root.get(), 0);
      g.all_to_all(whole.read(), transposed.get());
      g.reduce_scatter(own_block.read(), block.get(), shardkit::sum);
      g.gather(cut_part.read(), cut_at_root.get(), cut, last);
      g.all_to_all(part.read(), outgoing, uneven_in.get(), incoming);
      g.reduce_scatter(own_range.read(), range.get(), shardkit::sum, cut);
      g.scatter(whole.read(), cut_from_root.get(), other_cut, last);
      g.send(part.read(), next);
    });

    const auto check = [&](numbers& got, const char* verb, auto wanted) {
      numbers should(got.size(), wanted);
      out.at(text(verb, " in a group, ", count, " elements"));
      out.same(got.data(), should.data(), dtype::f64, got.size());
      out.expect(got.intact(), "margins");
    };
    const auto blocks = [&](std::size_t i) { return value(static_cast<int>(i / count), i % count); };
    const auto ranges = [&](std::size_t i) { return value(cut.owner(i), i - cut.offset(cut.owner(i))); };
    check(message, "recv", [&](std::size_t i) { return value(previous, i); });
    check(ring, "send_recv", [&](std::size_t i) { return value(next, i); });
    check(broadcasted, "broadcast", [&](std::size_t i) { return value(last, i); });
    check(at_root, "gather", blocks);
    check(gathered, "all_gather", blocks);
    check(all_reduced, "all_reduce", total);
    check(cut_gathered, "unequal all_gather", ranges);
    check(reduced, "reduce", total);
    check(from_root, "scatter", [&](std::size_t i) { return value(0, as_index(me) * count + i); });
    check(transposed, "all_to_all",
          [&](std::size_t i) { return value(static_cast<int>(i / count), as_index(me) * count + i % count); });
    check(block, "reduce_scatter", [&](std::size_t i) { return total(as_index(me) * count + i); });
    check(cut_at_root, "unequal gather", ranges);
    check(uneven_in, "unequal all_to_all", blocks);
    check(range, "unequal reduce_scatter", [&](std::size_t i) { return total(cut.offset(me) + i); });
    check(cut_from_root, "unequal scatter", [&](std::size_t i) { return value(last, other_cut.offset(me) + i); });
  }
}

/// A group may be empty, hold one call, and follow another at once.
template <class Comm>
void small_groups(Comm& comm, report& out, const sweep&) {
  out.at("small groups");
  for (int round = 0; round < 5; ++round) {
    comm.group([](auto&) {});
    int count = 1;
    comm.group([&](auto& g) { g.all_reduce(in_place(view(&count, 1)), shardkit::sum); });
    out.expect(count == comm.size(), "a group of one all_reduce");
    int mine = comm.rank(), got = -1;
    comm.group([&](auto& g) {
      g.recv(view(&got, 1), comm.rank());
      g.send(view(&mine, 1), comm.rank());
    });
    out.expect(got == mine, "a message to oneself in a group");
  }
}

}  // namespace conformance
