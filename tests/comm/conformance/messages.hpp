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
    const dtype type = dtype_at(point[0]);
    const std::size_t count = sizes[point[1]];
    for (int from = 0; from < comm.size(); ++from)
      for (int to = 0; to < comm.size(); ++to) {
        if (from == to || (me != from && me != to)) continue;
        out.at(text("message of ", count, " x ", name_of(type), " from ", from, " to ", to));
        const std::uint64_t seed = seed_of(point) + as_index(to);  // another message for everybody
        guarded data(type, count, seed, me);
        with_type(point[0], [&](auto element) {
          using T = decltype(element);
          if (me == from) comm.send(data.read<T>(), to);
          else comm.recv(data.as<T>(), from);
        });
        out.holds(data.data(), type, seed, from, 0, count);
        out.expect(data.intact(), "margin");
      }
  });
}

using word = std::uint32_t;

/// Messages of one direction arrive in the order sent, whatever their sizes, also where many are under way.
template <class Comm>
void message_order(Comm& comm, report& out, const sweep& how) {
  if (comm.size() < 2) return;
  // A chain: everything goes from the first rank to the last.
  for (int k = 0; k < 60; ++k) {
    const std::size_t count = k % 10 == 9 ? how.large / 10 : static_cast<std::size_t>(k * 7 % 50);
    out.at(text("message ", k, " of a chain"));
    guarded data(dtype::u32, count, 7, comm.is_root() ? k : -5);
    if (!comm.is_root()) comm.recv(data.as<word>(), comm.rank() - 1);
    out.holds(data.data(), dtype::u32, 7, k, 0, count);
    if (!comm.is_last()) comm.send(data.read<word>(), comm.rank() + 1);
  }
}

template <class Comm>
void send_recv(Comm& comm, report& out, const sweep& how) {
  const int me = comm.rank(), ranks = comm.size();
  // Around the circle by every distance, 0 included (to itself), and between pairs.
  visit_grid(how, {type_count, sizes.size(), as_index(ranks) + 1}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const int distance = static_cast<int>(point[2]);
    const int partner = (me ^ 1) < ranks ? me ^ 1 : me;
    const int to = distance == ranks ? partner : around(me + distance, ranks);
    const int from = distance == ranks ? partner : around(me - distance, ranks);
    const auto count = [&](int sender) { return sizes[point[1]] == 0 ? 0 : sizes[point[1]] + as_index(sender % 3); };
    out.at(text("send_recv of ", count(from), " x ", name_of(type), " from ", from, ", to ", to));
    guarded in(type, count(me), seed_of(point), me), got(type, count(from));
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      comm.send_recv(in.read<T>(), to, got.as<T>(), from);
    });
    out.holds(got.data(), type, seed_of(point), from, 0, count(from));
    out.holds(in.data(), type, seed_of(point), me, 0, count(me));
    out.expect(in.intact() && got.intact(), "margins");
  });
}

/// What a case of pending messages sends: sizes on both sides of every limit, none among them.
inline std::size_t mixed_count(int k, std::size_t large) {
  const std::size_t counts[] = {1, 0, 33, 4, 600, 32, large / 8};
  return counts[static_cast<std::size_t>(k) % 7];
}

/// `messages` requests each way around the circle.
template <class Comm>
class circle_of_requests {
 public:
  circle_of_requests(Comm& comm, int messages, const sweep& how) : comm_(&comm), messages_(messages) {
    for (int k = 0; k < messages; ++k) {
      incoming_.emplace_back(dtype::u32, mixed_count(k, how.large));
      outgoing_.emplace_back(dtype::u32, mixed_count(k, how.large), as_index(k), comm.rank());
    }
  }
  int previous() const { return around(comm_->rank() - 1, comm_->size()); }
  int next() const { return around(comm_->rank() + 1, comm_->size()); }

  request receive(int k) { return comm_->recv_async(incoming_[as_index(k)].template as<word>(), previous()); }
  request send(int k) { return comm_->send_async(outgoing_[as_index(k)].template read<word>(), next()); }
  void receive_now(int k) { comm_->recv(incoming_[as_index(k)].template as<word>(), previous()); }

  void check(report& out, const char* what) {
    for (int k = 0; k < messages_; ++k) {
      out.at(text(what, ", message ", k));
      guarded& got = incoming_[as_index(k)];
      out.holds(got.data(), dtype::u32, as_index(k), previous(), 0, got.size());
      out.expect(got.intact() && outgoing_[as_index(k)].intact(), "margins");
    }
  }

 private:
  Comm* comm_;
  int messages_;
  std::deque<guarded> incoming_, outgoing_;
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
  out.at("a request that is tested");
  while (!pending.empty())
    for (std::size_t i = pending.size(); i-- > 0;)
      if (pending[i].test()) {
        out.expect(!pending[i].active(), "complete and still active");
        pending[i].wait();  // an empty request is complete
        out.expect(pending[i].test(), "empty and not complete");
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
  std::vector<request> pending;
  for (int k = 0; k < many_messages; ++k) pending.push_back(circle.send(k));
  for (int k = 0; k < many_messages; ++k) {
    if (comm.rank() % 2 == 0) pending.push_back(circle.receive(k));
    else circle.receive_now(k);
  }
  comm.barrier();
  std::vector<double> ones(how.large / 8, 1.0);
  comm.all_reduce(in_place(ones), shardkit::sum);
  out.at("a sum beside pending messages");
  out.expect(ones.front() == comm.size() && ones.back() == comm.size());
  for (auto& one : pending) one.wait();
  circle.check(out, "requests around collectives");
}

/// A request is its owner's: it can be moved, and outlives the communicator that it was started on.
template <class Comm>
void requests_outlive(Comm& comm, report& out, const sweep&) {
  const int size = comm.size(), previous = around(comm.rank() - 1, size);
  std::vector<word> in(300, static_cast<word>(comm.rank())), got(300);
  request kept, moved;
  out.at("a request whose communicator is gone");
  {
    auto child = comm.split(0, comm.rank(), "short-lived");
    kept = child.recv_async(got, previous);
    moved = std::move(kept);
    out.expect(!kept.active() && moved.active(), "active after a move");
    kept = child.send_async(in, around(comm.rank() + 1, size));
  }
  moved.wait();
  kept.wait();
  out.expect(got == std::vector<word>(300, static_cast<word>(previous)), "message");
}

}  // namespace conformance
