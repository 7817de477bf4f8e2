// Cases of messages between two ranks: blocking, both ways at once, and without waiting.
#pragma once

#include "moves.hpp"

#include <deque>
#include <vector>

namespace conformance {

using shardkit::request;

inline int around(int rank, int size) { return (rank % size + size) % size; }

/// Every rank sends to every other, one pair after the other.
template <class Comm>
void send_and_recv(Comm& comm, report& out, const sweep& how) {
  const int me = comm.rank();
  visit_grid(how.part(8), {type_count, sizes.size()}, [&](const auto& point) {
    const std::size_t count = sizes[point[1]];
    const std::uint64_t seed = seed_of(point);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      for (int from = 0; from < comm.size(); ++from)
        for (int to = 0; to < comm.size(); ++to) {
          if (from == to || (me != from && me != to)) continue;
          const auto says = [&] {
            return text("message of ", count, " x ", name_of(shardkit::dtype_of<T>), " from ", from, " to ", to);
          };
          const auto sent = [&](std::size_t i) { return any_bits<T>(seed + as_index(to), from, i); };
          if (me == from) {
            guarded<T> data(count, sent);
            comm.send(data.read(), to);
            out.same(data.get(), sent, says);
          } else {
            guarded<T> data(count);
            comm.recv(data.get(), from);
            out.same(data.get(), sent, says);
            out.expect(data.intact(), says);
          }
        }
    });
  });
}

/// Messages of one direction arrive in the order sent, whatever their sizes, also where many are under way.
template <class Comm>
void message_order(Comm& comm, report& out, const sweep& how) {
  if (comm.size() < 2) return;
  const auto count = [&](int k) { return k % 10 == 9 ? how.large / 10 : static_cast<std::size_t>(k * 7 % 50); };
  // A chain: everything goes from the first rank to the last.
  for (int k = 0; k < 60; ++k) {
    guarded<std::uint32_t> data(count(k), [&](std::size_t i) { return any_bits<std::uint32_t>(7, k, i); });
    if (comm.rank() > 0) {
      for (auto& value : data.get()) value = 0;
      comm.recv(data.get(), comm.rank() - 1);
      out.same(data.get(), [&](std::size_t i) { return any_bits<std::uint32_t>(7, k, i); },
               [&] { return text("message ", k, " of a chain"); });
    }
    if (!comm.is_last()) comm.send(data.read(), comm.rank() + 1);
  }
}

template <class Comm>
void send_recv(Comm& comm, report& out, const sweep& how) {
  const int me = comm.rank(), ranks = comm.size();
  // Around the circle by every distance, 0 included (to itself), and between pairs.
  visit_grid(how, {type_count, sizes.size(), as_index(ranks) + 1}, [&](const auto& point) {
    const int distance = static_cast<int>(point[2]);
    const int partner = (me ^ 1) < ranks ? me ^ 1 : me;
    const int to = distance == ranks ? partner : around(me + distance, ranks);
    const int from = distance == ranks ? partner : around(me - distance, ranks);
    const auto count = [&](int sender) { return sizes[point[1]] == 0 ? 0 : sizes[point[1]] + as_index(sender % 3); };
    const std::uint64_t seed = seed_of(point);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      const auto says = [&] {
        return text("send_recv of ", count(from), " x ", name_of(shardkit::dtype_of<T>), " from ", from, ", to ", to);
      };
      const auto own = [&](std::size_t i) { return any_bits<T>(seed, me, i); };
      guarded<T> in(count(me), own), got(count(from));
      comm.send_recv(in.read(), to, got.get(), from);
      out.same(got.get(), [&](std::size_t i) { return any_bits<T>(seed, from, i); }, says);
      out.same(in.get(), own, says);
      out.expect(in.intact() && got.intact(), says);
    });
  });
}

/// What a case of pending messages sends: sizes on both sides of every limit, none among them.
inline std::size_t mixed_count(int k, std::size_t large) {
  const std::size_t counts[] = {1, 0, 33, 4, 600, 32, large / 8};
  return counts[static_cast<std::size_t>(k) % 7];
}
using word = std::uint32_t;
inline word mixed_word(int k, int from, std::size_t i) { return any_bits<word>(static_cast<std::uint64_t>(k), from, i); }

/// `messages` requests each way around the circle.
template <class Comm>
class circle_of_requests {
 public:
  circle_of_requests(Comm& comm, int messages, const sweep& how) : comm_(&comm), messages_(messages) {
    for (int k = 0; k < messages; ++k) {
      incoming_.emplace_back(mixed_count(k, how.large));
      outgoing_.emplace_back(mixed_count(k, how.large), [&](std::size_t i) { return mixed_word(k, comm.rank(), i); });
    }
  }
  int previous() const { return around(comm_->rank() - 1, comm_->size()); }
  int next() const { return around(comm_->rank() + 1, comm_->size()); }

  request receive(int k) { return comm_->recv_async(incoming_[as_index(k)].get(), previous()); }
  request send(int k) { return comm_->send_async(outgoing_[as_index(k)].read(), next()); }
  auto& incoming(int k) { return incoming_[as_index(k)]; }

  void check(report& out, const char* what) {
    for (int k = 0; k < messages_; ++k) {
      const auto says = [&] { return text(what, ", message ", k); };
      out.same(incoming_[as_index(k)].get(), [&](std::size_t i) { return mixed_word(k, previous(), i); }, says);
      out.expect(incoming_[as_index(k)].intact() && outgoing_[as_index(k)].intact(), says);
    }
  }

 private:
  Comm* comm_;
  int messages_;
  std::deque<guarded<word>> incoming_, outgoing_;
};

inline constexpr int many_messages = 45;  // more than a transport keeps under way at once

/// Waited for in any order.
template <class Comm>
void requests_in_any_order(Comm& comm, report& out, const sweep& how) {
  for (int order = 0; order < 4; ++order) {
    circle_of_requests circle(comm, many_messages, how);
    std::vector<request> receives, sends;
    for (int k = 0; k < many_messages; ++k) {
      if (order % 2 == 0) receives.push_back(circle.receive(k));
      sends.push_back(circle.send(k));
      if (order % 2 == 1) receives.push_back(circle.receive(k));
    }
    const auto wait_backwards = [](std::vector<request>& all) {
      for (auto one = all.rbegin(); one != all.rend(); ++one) one->wait();
    };
    const auto wait_scattered = [](std::vector<request>& all) {
      for (int k = 0; k < many_messages; ++k) all[as_index(k * 19 % many_messages)].wait();
    };
    if (order < 2) {
      wait_backwards(sends);
      wait_backwards(receives);
    } else {
      wait_scattered(receives);
      wait_scattered(sends);
    }
    circle.check(out, "requests waited for out of order");
  }
}

/// Asked whether they are complete instead of waited for.
template <class Comm>
void requests_tested(Comm& comm, report& out, const sweep& how) {
  circle_of_requests circle(comm, many_messages, how);
  std::vector<request> pending;
  for (int k = 0; k < many_messages; ++k) {
    pending.push_back(circle.send(k));
    pending.push_back(circle.receive(k));
  }
  while (!pending.empty())
    for (std::size_t i = pending.size(); i-- > 0;)
      if (pending[i].test()) {
        out.expect(!pending[i].active(), [] { return "a complete request is still active"; });
        pending[i].wait();  // an empty request is complete
        out.expect(pending[i].test(), [] { return "an empty request is not complete"; });
        pending.erase(pending.begin() + static_cast<std::ptrdiff_t>(i));
      }
  circle.check(out, "requests tested");
}

/// Pending messages go on while the rank is in other calls, and a rank may wait in a collective for one that still
/// receives.
template <class Comm>
void requests_and_collectives(Comm& comm, report& out, const sweep& how) {
  if (comm.size() < 2) return;
  circle_of_requests circle(comm, many_messages, how);
  const bool sends_first = comm.rank() % 2 == 0;
  std::vector<request> pending;
  for (int k = 0; k < many_messages; ++k) pending.push_back(circle.send(k));
  if (!sends_first)
    for (int k = 0; k < many_messages; ++k) comm.recv(circle.incoming(k).get(), circle.previous());
  else
    for (int k = 0; k < many_messages; ++k) pending.push_back(circle.receive(k));
  comm.barrier();
  std::vector<double> ones(how.large / 8, 1.0);
  comm.all_reduce(in_place(ones), shardkit::sum);
  out.expect(ones.front() == comm.size() && ones.back() == comm.size(), [] { return "a sum beside pending messages"; });
  for (auto& one : pending) one.wait();
  circle.check(out, "requests around collectives");
}

/// A request is its owner's: it can be moved, and outlives the communicator that it was started on.
template <class Comm>
void requests_outlive(Comm& comm, report& out, const sweep&) {
  const int size = comm.size();
  std::vector<word> in(300, static_cast<word>(comm.rank())), got(300);
  request kept, moved;
  {
    auto child = comm.split(0, comm.rank(), "short-lived");
    kept = child.recv_async(got, around(comm.rank() - 1, size));
    moved = std::move(kept);
    out.expect(!kept.active() && moved.active(), [] { return "a request moved from stays active"; });
    kept = child.send_async(in, around(comm.rank() + 1, size));
  }
  moved.wait();
  kept.wait();
  out.expect(got == std::vector<word>(300, static_cast<word>(around(comm.rank() - 1, size))),
             [] { return "a message of a communicator that is gone"; });
}

}  // namespace conformance
