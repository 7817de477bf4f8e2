// How the GPU benchmarks measure: what is compared takes turns on one stream, on every rank at once, so that the ratios
// hold on a machine whose clocks change; medians over the rounds, the slowest rank counting. A sample enqueues a call
// often enough to last a few milliseconds and waits for the stream once.
#pragma once

#include "../measuring.hpp"

#include <shardkit/backends/threads.hpp>
#include <shardkit/cuda/error.hpp>
#include <shardkit/cuda/stream.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

namespace gpu_benchmark {

struct options {
  int rounds = 15;
  int ranks = 1;
  bool dry_run = false;  ///< small and once, where only the double of CUDA is at hand: shows that it runs

  options(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i];
      if (text == "--dry-run") dry_run = true;
      else if (text.rfind("--rounds=", 0) == 0) rounds = std::atoi(text.c_str() + 9);
      else if (text.rfind("--ranks=", 0) == 0) ranks = std::atoi(text.c_str() + 8);
      else {
        std::fprintf(stderr, "unknown option %s; there are --dry-run, --rounds=N and --ranks=N\n", argv[i]);
        std::exit(2);
      }
    }
    if (dry_run) rounds = 1;
  }
};

/// Something to enqueue on the stream that is measured.
struct contender {
  std::string name;
  std::function<void()> enqueue;
};

using benchmark::median;
using benchmark::seconds;

/// Microseconds of each contender. Collective over `ranks`, all of which bring contenders of the same kinds.
inline std::vector<double> measure(shardkit::thread_communicator& ranks, cudaStream_t stream, const options& how,
                                   const std::vector<contender>& all) {
  const auto sample = [&](const contender& one, int repeats) {
    ranks.barrier();
    const double start = seconds();
    for (int i = 0; i < repeats; ++i) one.enqueue();
    shardkit::cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
    return ranks.all_reduce((seconds() - start) / repeats, shardkit::maximum);
  };
  std::vector<int> repeats;
  for (const contender& one : all) {
    constexpr double long_enough = 4e-3, most = 500;
    sample(one, 1);  // the first call chooses algorithms and connects
    const double once = sample(one, how.dry_run ? 1 : 3);
    repeats.push_back(how.dry_run ? 1 : static_cast<int>(std::clamp(long_enough / std::max(once, 1e-9), 1.0, most)));
  }
  std::vector<std::vector<double>> samples(all.size());
  for (int round = 0; round < how.rounds; ++round)
    for (std::size_t i = 0; i < all.size(); ++i) samples[i].push_back(1e6 * sample(all[i], repeats[i]));
  std::vector<double> result;
  for (const std::vector<double>& of_one : samples) result.push_back(median(of_one));
  return result;
}

inline std::string bytes_text(std::size_t bytes) {
  if (bytes >= std::size_t{1} << 20) return std::to_string(bytes >> 20) + " MiB";
  if (bytes >= std::size_t{1} << 10) return std::to_string(bytes >> 10) + " KiB";
  return std::to_string(bytes) + " B";
}

}  // namespace gpu_benchmark
