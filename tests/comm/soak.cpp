// Random programs on thread ranks, many of them: with a random fault each, with random delays only, and failing and
// starting anew. The ordinary suite runs a few; the nightly program runs the numbers that SOAK_NIGHTLY stands for.
//
// A program of its own, because it counts what every thread takes from the heap.
#include "on_threads.hpp"

#include "failing_launch.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/checked.hpp>
#include <shardkit/comm/faulty.hpp>
#include <shardkit/comm/traced.hpp>
#include <support/counted_heap.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifndef SOAK_NIGHTLY
#define SOAK_NIGHTLY 0
#endif

namespace {

constexpr int faulty_runs = SOAK_NIGHTLY ? 10000 : SHARDKIT_TEST_SANITIZED ? 100 : 500;
constexpr int clean_runs = SOAK_NIGHTLY ? 10000 : SHARDKIT_TEST_SANITIZED ? 60 : 300;
constexpr int cycles = SOAK_NIGHTLY ? 1000 : SHARDKIT_TEST_SANITIZED ? 20 : 100;

using counted_heap::allocations;
using shardkit::fault_kind;
using shardkit::fault_plan;
using shardkit::in_place;
using shardkit::partition;
using shardkit::sum;
using shardkit::detail::scrambled;

using comm_type = shardkit::any_communicator<shardkit::host_space>;
using values = std::vector<std::int64_t>;

/// What rank r has at place i in a step.
std::int64_t value(int rank, std::size_t i, std::size_t step) {
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
bool run_program(comm_type& comm, std::uint64_t seed, std::uint64_t steps, std::uint64_t kinds) {
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
comm_type decorated(thread_communicator&& world, const fault_plan& plan, std::uint64_t seed) {
  switch (scrambled(seed, 50) % 3) {
    case 0: return erase(with_faults(std::move(world), plan));
    case 1: return erase(with_faults(erase(with_checks(std::move(world))), plan));
    default: return erase(with_faults(erase(with_trace(std::move(world))), plan));
  }
}

long entries(const char* folder) {
  long count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) count += entry.exists() || true;
  return count;
}
struct resources {
  long long bytes = counted_heap::live_bytes.load();
  long blocks = allocations.load() - counted_heap::releases.load();
  long threads = entries("/proc/self/task"), files = entries("/proc/self/fd");
};
void check_same(const resources& before, const resources& after) {
  CHECK(after.bytes == before.bytes);
  CHECK(after.blocks == before.blocks);
  CHECK(after.threads == before.threads);
  CHECK(after.files == before.files);
}

/// One launch with one random fault. What is wrong with how it ended; empty where nothing is.
std::string run_with_fault(std::uint64_t seed, int& struck) {
  const int ranks = 2 + static_cast<int>(scrambled(seed, 10) % 4);
  const std::uint64_t steps = 2 + scrambled(seed, 11) % 8;
  fault_plan plan = shardkit::random_fault(seed, ranks, steps + 1);
  // Each of these takes as long as a deadline, so they are few; and only collectives leave no doubt who is missing.
  const bool drops_out = scrambled(seed, 12) % 64 == 0;
  if (drops_out) plan.kind = fault_kind::drop_out;
  else if (plan.kind == fault_kind::drop_out) plan.kind = fault_kind::error;
  plan.seconds = 2e-3;
  plan.longest_jitter = 2e-4;
  const double limit = !drops_out ? 20 : SHARDKIT_TEST_SANITIZED ? 2 : 0.25;
  std::atomic<int> right{0};
  const auto result = launch(
      ranks,
      [&](auto& world, auto&) {
        auto comm = decorated(std::move(world), plan, seed);
        right += run_program(comm, seed, steps, drops_out ? step::collectives : step::kinds);
      },
      limit);

  const std::string culprit = "rank " + std::to_string(plan.rank) + " ";
  if (plan.kind == fault_kind::delay)
    return result.thrown == nullptr && right == ranks ? "" : "a delay has consequences: " + result.caller.what;
  ++struck;
  if (plan.kind == fault_kind::error) {
    if (!result.caller.says("injected at call")) return "run_ranks throws something else: " + result.caller.what;
    if (result.reported_rank != plan.rank) return "the wrong rank is reported";
  } else {
    if (result.caller.how != ending::timeout) return "nobody has run into the deadline: " + result.caller.what;
    if (!result.caller.says(culprit)) return "the timeout names another rank: " + result.caller.what;
  }
  for (int rank = 0; rank < ranks; ++rank) {
    const ending& got = result[rank];
    if (got.how == ending::returned) {
      if (rank == plan.rank) return "the culprit has returned";
      continue;  // it had done its part
    }
    if (rank == plan.rank && plan.kind == fault_kind::error) continue;
    const bool named = got.how == ending::peer_failed || got.how == ending::timeout;
    if (!named || (plan.kind == fault_kind::error && got.culprit != plan.rank))
      return "rank " + std::to_string(rank) + " got: " + got.what;
    if (plan.kind == fault_kind::drop_out && !got.says(culprit)) return "not named: " + got.what;
  }
  return "";
}

}  // namespace

TEST_CASE("random faults: nobody hangs, every error names the culprit, nothing is left behind") {
  int struck = 0;
  const auto run = [&](std::uint64_t seed) {
    const std::string wrong = run_with_fault(seed, struck);
    CHECK_MESSAGE(wrong.empty(), "seed ", seed, ": ", wrong);
  };
  for (std::uint64_t seed = 0; seed < 50; ++seed) run(1000000 + seed);  // what the first use of anything keeps
  struck = 0;
  const resources before;
  for (std::uint64_t seed = 1; seed <= faulty_runs; ++seed) run(seed);
  check_same(before, resources());
  CHECK(struck > faulty_runs / 3);
  MESSAGE(faulty_runs, " runs, ", struck, " failures injected");
}

TEST_CASE("random delays without a fault raise no alarm, and every result is right") {
  for (std::uint64_t seed = 1; seed <= clean_runs; ++seed) {
    const int ranks = 2 + static_cast<int>(scrambled(seed, 10) % 4);
    fault_plan plan;
    plan.seed = seed;
    plan.longest_jitter = 5e-4;
    std::atomic<int> right{0};
    const auto result = launch(
        ranks,
        [&](auto& world, auto&) {
          auto comm = decorated(std::move(world), plan, seed);
          right += run_program(comm, seed, 2 + scrambled(seed, 11) % 8, step::kinds);
        },
        SHARDKIT_TEST_SANITIZED ? 60 : 10);
    CHECK_MESSAGE(result.thrown == nullptr, "seed ", seed, ": ", result.caller.what);
    CHECK_MESSAGE(right.load() == ranks, "seed ", seed, ": wrong results");
  }
}

TEST_CASE("failing and starting anew leaves no thread, descriptor or byte behind") {
  const auto cycle = [](std::uint64_t seed) {
    fault_plan plan = shardkit::random_fault(seed, 3, 3);
    plan.kind = fault_kind::error;
    const auto failed = launch(3, [&](auto& world, auto&) {
      auto comm = decorated(std::move(world), plan, seed);
      (void)run_program(comm, seed, 4, step::kinds);
    });
    CHECK(failed.caller.says("injected"));
    std::atomic<int> right{0};
    const auto fine = launch(3, [&](auto& world, auto&) {
      auto comm = decorated(std::move(world), {}, seed);
      right += run_program(comm, seed, 2, step::kinds);
    });
    CHECK(fine.thrown == nullptr);
    CHECK(right.load() == 3);
  };
  for (std::uint64_t seed = 0; seed < 50; ++seed) cycle(seed);
  const resources before;
  for (std::uint64_t seed = 0; seed < cycles; ++seed) cycle(seed);
  check_same(before, resources());
}

TEST_CASE("tracing and planned faults take nothing from the heap in a steady state") {
  long long before = -1, after = -2;
  shardkit::run_ranks(2, [&](thread_communicator& world) {
    comm_type comm = erase(with_faults(erase(with_trace(std::move(world))), {}));
    values x(5, 1), y(5), z(5);
    const int peer = 1 - comm.rank();
    const auto round = [&] {
      comm.barrier();
      comm.all_reduce(in_place(x), shardkit::maximum);
      auto pending = comm.all_reduce_async(x, z, sum);
      auto receive = comm.recv_async(y, peer);
      comm.send(x, peer);
      pending.wait();
      receive.wait();
      comm.send_recv(x, peer, y, peer);
    };
    for (int i = 0; i < 100; ++i) round();
    comm.barrier();
    if (comm.rank() == 0) before = allocations.load();
    comm.barrier();
    for (int i = 0; i < 100; ++i) round();
    comm.barrier();
    if (comm.rank() == 0) after = allocations.load();
    comm.barrier();
  });
  CHECK(after == before);
}
