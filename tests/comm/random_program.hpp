// Random programs over any communicator, the same on all ranks for the same seed: what the soaks of thread ranks and of
// MPI run with faults and delays.
#pragma once

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/checked.hpp>
#include <shardkit/comm/faulty.hpp>
#include <shardkit/comm/traced.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace random_program {

using shardkit::fault_plan;
using shardkit::in_place;
using shardkit::partition;
using shardkit::sum;
using shardkit::detail::scrambled;

using comm_type = shardkit::any_communicator<shardkit::host_space>;
using values = std::vector<std::int64_t>;

/// What rank r has at place i in a step.
inline std::int64_t value(int rank, std::size_t i, std::size_t step) {
  return rank * 1000 + static_cast<std::int64_t>(i % 97) + static_cast<std::int64_t>(step) * 7;
}

/// One random step of a program, the same on all ranks; false where a result is wrong.
class step {
 public:
  step(comm_type& comm, std::size_t number, std::size_t count)
      : comm_(comm),
        number_(number),
        count_(count),
        ranks_(static_cast<std::size_t>(comm.size())),
        mine_(count),
        other_(count),
        whole_(count * ranks_),
        all_(whole_.size()) {
    fill(mine_, comm.rank());
    fill(whole_, comm.rank());
  }

  static constexpr std::uint64_t collectives = 10;  // the first so many kinds involve every rank from the start
  static constexpr std::uint64_t kinds = 15;

  bool run(std::uint64_t kind) {
    const int me = comm_.rank(), size = comm_.size(), root = static_cast<int>(number_ % ranks_);
    const int next = (me + 1) % size, previous = (me + size - 1) % size;
    switch (kind) {
      case 0: comm_.barrier(); return true;
      case 1: comm_.broadcast(mine_, root); return is_of(mine_, root);
      case 2: comm_.all_reduce(in_place(mine_), sum); return is_sum(mine_, 0);
      case 3: comm_.reduce(mine_, other_, sum, root); return me != root || is_sum(other_, 0);
      case 4: comm_.all_gather(mine_, all_); return is_joined(all_);
      case 5: comm_.reduce_scatter(whole_, other_, sum); return is_sum(other_, static_cast<std::size_t>(me) * count_);
      case 6: comm_.gather(mine_, all_, root); return me != root || is_joined(all_);
      case 7: comm_.scatter(whole_, other_, root); return is_of(other_, root, static_cast<std::size_t>(me) * count_);
      case 8: return all_to_all();
      case 9: return uneven();
      case 10: comm_.send_recv(mine_, next, other_, previous); return is_of(other_, previous);
      case 11: {
        auto receive = comm_.recv_async(other_, previous);
        comm_.send(mine_, next);
        receive.wait();
        return is_of(other_, previous);
      }
      case 12: {
        values both = mine_;
        comm_.group([&](auto& g) {
          g.recv(other_, previous);
          g.all_reduce(in_place(both), sum);
          g.send(mine_, next);
        });
        return is_of(other_, previous) && is_sum(both, 0);
      }
      case 13: {
        auto child = comm_.split(me % 2);
        const int members = (size + 1 - me % 2) / 2;
        return child.all_reduce(1, sum) == members;
      }
      default: {
        auto pending = comm_.all_reduce_async(mine_, other_, sum);
        comm_.broadcast(whole_, root);
        pending.wait();
        return is_sum(other_, 0) && is_of(whole_, root);
      }
    }
  }

 private:
  void fill(values& x, int rank) const {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = value(rank, i, number_);
  }
  bool is_of(const values& x, int rank, std::size_t first = 0) const {
    for (std::size_t i = 0; i < x.size(); ++i)
      if (x[i] != value(rank, first + i, number_)) return false;
    return true;
  }
  bool is_sum(const values& x, std::size_t first) const {
    for (std::size_t i = 0; i < x.size(); ++i) {
      std::int64_t expected = 0;
      for (int rank = 0; rank < comm_.size(); ++rank) expected += value(rank, first + i, number_);
      if (x[i] != expected) return false;
    }
    return true;
  }
  bool is_joined(const values& x) const {
    for (std::size_t i = 0; i < x.size(); ++i)
      if (x[i] != value(static_cast<int>(i / count_), i % count_, number_)) return false;
    return true;
  }
  bool all_to_all() {
    comm_.all_to_all(whole_, all_);
    for (std::size_t i = 0; i < all_.size(); ++i)
      if (all_[i] !=
          value(static_cast<int>(i / count_), static_cast<std::size_t>(comm_.rank()) * count_ + i % count_, number_))
        return false;
    return true;
  }
  bool uneven() {
    const partition cut = partition::balanced(count_ + 1, comm_.size());
    values part(cut.count(comm_.rank())), joined(cut.total());
    for (std::size_t i = 0; i < part.size(); ++i) part[i] = value(0, cut.offset(comm_.rank()) + i, number_);
    comm_.all_gather(part, joined, cut);
    return is_of(joined, 0);
  }

  comm_type& comm_;
  std::size_t number_, count_, ranks_;
  values mine_, other_, whole_, all_;
};

/// A random program; true where every result is right.
inline bool run(comm_type& comm, std::uint64_t seed, std::uint64_t steps, std::uint64_t kinds) {
  bool right = true;
  for (std::uint64_t number = 0; number < steps; ++number) {
    const std::uint64_t draw = scrambled(seed, 100 + number);
    const std::size_t count = draw % 5 == 0 ? 0 : draw % 5 == 1 ? 3001 : draw % 11;
    right = step(comm, number, count).run(draw / 64 % kinds) && right;
  }
  comm.barrier();
  return right;
}

/// Bare, checked or traced, with the faults of the plan on top.
template <class Backend>
comm_type decorated(shardkit::communicator<Backend>&& world, const fault_plan& plan, std::uint64_t seed) {
  switch (scrambled(seed, 50) % 3) {
    case 0: return erase(with_faults(std::move(world), plan));
    case 1: return erase(with_faults(erase(with_checks(std::move(world))), plan));
    default: return erase(with_faults(erase(with_trace(std::move(world))), plan));
  }
}

}  // namespace random_program
