// Cases of calls that are started and completed later.
#pragma once

#include "groups.hpp"

#include <stdexcept>
#include <vector>

namespace conformance {

/// Some of every kind of collective, all under way at once.
template <class Comm>
class started_collectives {
 public:
  started_collectives(Comm& comm, std::size_t count, double salt)
      : comm_(&comm),
        count_(count),
        salt_(salt),
        cut_(layout_of(6, count * as_index(comm.size()), comm.size())),
        sum_(count, own()),
        broadcasted_(count, own()),
        part_(count, own()),
        cut_part_(cut_.count(comm.rank()), own()),
        gathered_(count * as_index(comm.size())),
        cut_gathered_(gathered_.size()),
        transposed_(gathered_.size()),
        whole_(gathered_.size(), own()),
        block_(count),
        smallest_(count) {}

  void start() {
    const int last = comm_->size() - 1;
    requests_.push_back(comm_->all_reduce_async(in_place(sum_.get()), shardkit::sum));
    requests_.push_back(comm_->broadcast_async(broadcasted_.get(), last));
    requests_.push_back(comm_->barrier_async());
    requests_.push_back(comm_->all_gather_async(part_.read(), gathered_.get()));
    requests_.push_back(comm_->all_gather_async(cut_part_.read(), cut_gathered_.get(), cut_));
    requests_.push_back(comm_->all_to_all_async(whole_.read(), transposed_.get()));
    requests_.push_back(comm_->reduce_scatter_async(whole_.read(), block_.get(), by_rank(shardkit::sum)));
    requests_.push_back(comm_->reduce_async(part_.read(), smallest_.get(), shardkit::minimum, last));
  }
  std::vector<request>& requests() { return requests_; }

  void check(report& out, const char* what) {
    const int ranks = comm_->size(), me = comm_->rank(), last = ranks - 1;
    const double all = ranks * (ranks + 1) / 2.0;
    const auto blocks = [&](std::size_t i) { return value(static_cast<int>(i / count_), i % count_); };
    check(out, what, "all_reduce", sum_, [&](std::size_t i) { return all * value(0, i); });
    check(out, what, "broadcast", broadcasted_, [&](std::size_t i) { return value(last, i); });
    check(out, what, "all_gather", gathered_, blocks);
    check(out, what, "unequal all_gather", cut_gathered_,
          [&](std::size_t i) { return value(cut_.owner(i), i - cut_.offset(cut_.owner(i))); });
    check(out, what, "all_to_all", transposed_,
          [&](std::size_t i) { return value(static_cast<int>(i / count_), as_index(me) * count_ + i % count_); });
    check(out, what, "reduce_scatter", block_,
          [&](std::size_t i) { return all * value(0, as_index(me) * count_ + i); });
    if (me == last) check(out, what, "reduce", smallest_, [&](std::size_t i) { return value(0, i); });
  }

 private:
  double value(int rank, std::size_t i) const { return (rank + 1) * (salt_ + static_cast<double>(i % 1000)); }
  auto own() const {
    return [this](std::size_t i) { return value(comm_->rank(), i); };
  }
  template <class Wanted>
  void check(report& out, const char* what, const char* verb, numbers& got, Wanted wanted) {
    numbers should(got.size(), wanted);
    out.at(text(what, ": ", verb, ", ", count_, " elements"));
    out.same(got.data(), should.data(), dtype::f64, got.size());
    out.expect(got.intact(), "margins");
  }

  Comm* comm_;
  std::size_t count_;
  double salt_;
  partition cut_;
  numbers sum_, broadcasted_, part_, cut_part_, gathered_, cut_gathered_, transposed_, whole_, block_, smallest_;
  std::vector<request> requests_;
};

/// Requests of collectives may be completed in any order, by waiting or testing, with other calls in between.
template <class Comm>
void started_in_any_order(Comm& comm, report& out, const sweep& how) {
  for (std::size_t count : {std::size_t{1}, std::size_t{5}, std::size_t{300}, how.large / 32})
    for (int way = 0; way < 4; ++way) {
      started_collectives<Comm> first(comm, count, 1), second(comm, count, 2);
      first.start();
      if (way == 3) {
        out.at("a blocking call after started ones");
        out.expect(comm.all_reduce(comm.rank(), shardkit::maximum) == comm.size() - 1);
      }
      second.start();
      std::vector<request> all;
      for (auto* of : {&first, &second})
        for (request& one : of->requests()) all.push_back(std::move(one));
      if (way == 0)
        for (request& one : all) one.wait();
      if (way == 1)
        for (std::size_t i = all.size(); i-- > 0;) all[i].wait();
      if (way == 2)
        for (bool more = true; more;) {
          more = false;
          for (std::size_t i = all.size(); i-- > 0;) more = !all[i].test() || more;
        }
      if (way == 3) shardkit::wait_all(all.data(), all.size());
      out.at("completed requests");
      for (request& one : all) out.expect(!one.active() || way < 2 || one.test(), "still active");
      first.check(out, "first");
      second.check(out, "second");
    }
}

/// What is started goes on while its rank waits for a message, which the peer sends only when it has completed.
template <class Comm>
void started_beside_messages(Comm& comm, report& out, const sweep& how) {
  const int last = comm.size() - 1;
  if (last == 0) return;
  for (std::size_t count : {std::size_t{2}, how.large / 16}) {
    numbers sum(count, [](std::size_t) { return 1.0; });
    std::vector<int> note(1, comm.rank());
    request pending = comm.all_reduce_async(in_place(sum.get()), shardkit::sum);
    if (comm.is_root()) {
      comm.recv(note, last);
      pending.wait();
    } else {
      pending.wait();
      if (comm.is_last()) comm.send(note, 0);
    }
    out.at("a started sum beside a message");
    out.expect(sum.get()[count - 1] == comm.size() && (!comm.is_root() || note[0] == last));
  }
}

/// What is started on one communicator goes on while its rank is in a call of another one, as where gradients travel
/// beside the calls of the next layer: the peer comes to that call only when the first is complete.
template <class Comm>
void started_beside_other_communicators(Comm& comm, report& out, const sweep& how) {
  auto other = comm.split(0, -comm.rank(), "other");
  for (std::size_t count : {std::size_t{2}, how.large / 16})
    for (int early = 0; early < comm.size(); ++early) {
      numbers sum(count, [](std::size_t) { return 1.0; });
      request pending = comm.all_reduce_async(in_place(sum.get()), shardkit::sum);
      if (comm.rank() == early) pending.wait();
      other.barrier();
      pending.wait();
      out.at("a started sum beside a barrier of another communicator");
      out.expect(sum.get()[count - 1] == comm.size());
    }
}

/// A request outlives the communicator that started it.
template <class Comm>
void started_outlives(Comm& comm, report& out, const sweep&) {
  std::vector<float> small(3, 1.0f), large(3000, 1.0f);
  request kept, other;
  {
    auto child = comm.split(0, comm.rank(), "short-lived");
    kept = child.all_reduce_async(in_place(small), shardkit::sum);
    auto moved = std::move(child);
    other = moved.all_reduce_async(in_place(large), shardkit::sum);
  }
  other.wait();
  kept.wait();
  out.at("requests whose communicator is gone");
  out.expect(small[2] == static_cast<float>(comm.size()) && large[2999] == static_cast<float>(comm.size()));
}

/// A started group, and groups of several communicators, which the ranks may name in any order.
template <class Comm>
void groups_of_communicators(Comm& comm, report& out, const sweep& how) {
  const int ranks = comm.size(), me = comm.rank(), next = around(me + 1, ranks), previous = around(me - 1, ranks);
  auto other = comm.split(0, -me, "reversed");
  for (std::size_t count : {std::size_t{3}, how.large / 8}) {
    numbers message(count, [&](std::size_t i) { return me + static_cast<double>(i); }), got(count), sum(message),
        most(message);
    const auto list = [&](auto& here, auto& there) {
      here.send(message.read(), next);
      here.all_reduce(in_place(sum.get()), shardkit::sum);
      there.all_reduce(in_place(most.get()), shardkit::maximum);
      here.recv(got.get(), previous);
      there.barrier();
    };
    const auto check = [&](const char* what) {
      out.at(what);
      out.expect(got.get()[count - 1] == previous + static_cast<double>(count - 1), "message");
      out.expect(sum.get()[0] == ranks * (ranks - 1) / 2.0, "sum");
      out.expect(most.get()[0] == ranks - 1, "maximum");
      sum = message;
      most = message;
    };
    if (me % 2 == 0) comm.group([&](auto& g) { list(g, g.with(other)); });
    else other.group([&](auto& g) { list(g.with(comm), g); });
    check("a group of two communicators");
    comm.group_async([&](auto& g) { list(g, g.with(other)); }).wait();
    check("a started group of two communicators");
    request pending = comm.group_async([&](auto& g) { list(g, g); });
    comm.barrier();
    pending.wait();
    check("a started group");
  }
  // A body that throws has started nothing.
  int value = 1;
  bool thrown = false;
  try {
    comm.group([&](auto& g) {
      g.all_reduce(in_place(view(&value, 1)), shardkit::sum);
      g.with(other).barrier();
      throw std::runtime_error("changed my mind");
    });
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  out.at("a group whose body throws");
  out.expect(thrown && value == 1);
  out.expect(comm.all_reduce(1, shardkit::sum) == ranks && other.all_reduce(1, shardkit::sum) == ranks,
             "calls afterwards");
}

}  // namespace conformance
