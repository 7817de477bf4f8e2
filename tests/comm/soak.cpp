// Random programs on thread ranks, many of them: with a random fault each, with random delays only, and failing and
// starting anew. The ordinary suite runs a few; the nightly program runs the numbers that SOAK_NIGHTLY stands for.
//
// A program of its own, because it counts what every thread takes from the heap.
#include "on_threads.hpp"

#include "failing_launch.hpp"
#include "random_program.hpp"

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
constexpr int late_runs = SOAK_NIGHTLY ? 400 : SHARDKIT_TEST_SANITIZED ? 3 : 8;
constexpr int cycles = SOAK_NIGHTLY ? 1000 : SHARDKIT_TEST_SANITIZED ? 20 : 100;

using counted_heap::allocations;
using random_program::comm_type;
using random_program::decorated;
using random_program::step;
using random_program::values;
using shardkit::fault_kind;
using shardkit::fault_plan;
using shardkit::in_place;
using shardkit::sum;
using shardkit::detail::scrambled;

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

int ranks_of(std::uint64_t seed) { return 2 + static_cast<int>(scrambled(seed, 10) % 4); }
std::uint64_t steps_of(std::uint64_t seed) { return 2 + scrambled(seed, 11) % 8; }

/// One launch with one random fault. What is wrong with how it ended; empty where nothing is.
std::string run_with_fault(std::uint64_t seed, int& struck) {
  const int ranks = ranks_of(seed);
  const std::uint64_t steps = steps_of(seed);
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
        right += random_program::run(comm, seed, steps, drops_out ? step::collectives : step::kinds);
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

/// One launch without a fault; every result has to be right.
void check_clean(std::uint64_t seed, const fault_plan& plan, double limit) {
  const int ranks = ranks_of(seed);
  std::atomic<int> right{0};
  const auto result = launch(
      ranks,
      [&](auto& world, auto&) {
        auto comm = decorated(std::move(world), plan, seed);
        right += random_program::run(comm, seed, steps_of(seed), step::kinds);
      },
      limit);
  CHECK_MESSAGE(result.thrown == nullptr, "seed ", seed, ": ", result.caller.what);
  CHECK_MESSAGE(right.load() == ranks, "seed ", seed, ": wrong results");
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
    fault_plan plan;
    plan.seed = seed;
    plan.longest_jitter = 5e-4;
    check_clean(seed, plan, SHARDKIT_TEST_SANITIZED ? 60 : 10);
  }
}

TEST_CASE("a rank that is late by half of the operation deadline raises no alarm") {
  constexpr double limit = SHARDKIT_TEST_SANITIZED ? 2 : 0.6;
  for (std::uint64_t seed = 1; seed <= late_runs; ++seed) {
    fault_plan plan = shardkit::random_fault(seed, ranks_of(seed), steps_of(seed) + 1);
    plan.kind = fault_kind::delay;
    plan.seconds = limit / 2;
    plan.longest_jitter = 5e-4;
    check_clean(seed, plan, limit);
  }
}

TEST_CASE("failing and starting anew leaves no thread, descriptor or byte behind") {
  const auto cycle = [](std::uint64_t seed) {
    fault_plan plan = shardkit::random_fault(seed, 3, 3);
    plan.kind = fault_kind::error;
    const auto failed = launch(3, [&](auto& world, auto&) {
      auto comm = decorated(std::move(world), plan, seed);
      (void)random_program::run(comm, seed, 4, step::kinds);
    });
    CHECK(failed.caller.says("injected"));
    std::atomic<int> right{0};
    const auto fine = launch(3, [&](auto& world, auto&) {
      auto comm = decorated(std::move(world), {}, seed);
      right += random_program::run(comm, seed, 2, step::kinds);
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
