// What a seed stands for in soak_program, which runs it, and in soak.cpp, which judges what came of it.
#pragma once

#include <shardkit/comm/faulty.hpp>

#include <cstdint>

struct soak_plan {
  int ranks;
  std::uint64_t steps;
  shardkit::fault_plan fault;
  double operation_deadline;  ///< in seconds

  bool drops_out() const { return fault.kind == shardkit::fault_kind::drop_out; }

  /// A short program with one random fault.
  static soak_plan faulty(std::uint64_t seed) {
    const int ranks = 2 + static_cast<int>(shardkit::detail::scrambled(seed, 10) % 2);
    const std::uint64_t steps = 2 + shardkit::detail::scrambled(seed, 11) % 8;
    soak_plan plan{ranks, steps, shardkit::random_fault(seed, ranks, steps + 1), 0};
    plan.fault.seconds = 0.1;
    plan.fault.longest_jitter = 1e-3;
    plan.operation_deadline = plan.drops_out() ? 2 : 30;  // nobody but who waits for a lost rank is to see its end
    return plan;
  }
  /// A program without a fault, with delays of all ranks, and once one that takes half of the operation deadline.
  static soak_plan clean(std::uint64_t seed, std::uint64_t steps) {
    soak_plan plan{3, steps, {}, 4};
    plan.fault.kind = shardkit::fault_kind::delay;
    plan.fault.rank = static_cast<int>(seed % 3);
    plan.fault.call = 1 + shardkit::detail::scrambled(seed, 2) % steps;
    plan.fault.seconds = plan.operation_deadline / 2;
    plan.fault.longest_jitter = 2e-3;
    plan.fault.seed = seed;
    return plan;
  }
};
