// Runs a conformance case on thread ranks and asserts what they found.
#pragma once

#include <doctest/doctest.h>
#include <shardkit/launch/run_ranks.hpp>
#include "conformance/report.hpp"
#include "conformance/sweep.hpp"

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <vector>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SHARDKIT_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SHARDKIT_TEST_SANITIZED 1
#endif
#endif
#ifndef SHARDKIT_TEST_SANITIZED
#define SHARDKIT_TEST_SANITIZED 0
#endif

/// A sample where a sanitizer makes every step slow.
inline conformance::sweep thread_sweep(std::size_t points) {
  conformance::sweep how;
  how.always_ordered = true;
  how.points = SHARDKIT_TEST_SANITIZED ? std::min<std::size_t>(points, 120) : points;
  return how;
}

/// body(comm, report, sweep) on every rank, for each number of ranks; `points` as in sweep. No template, whose launch
/// would be compiled again for each case.
inline void on_threads(
    std::initializer_list<int> rank_counts,
    const std::function<void(shardkit::thread_communicator&, conformance::report&, const conformance::sweep&)>& body,
    std::size_t points) {
  shardkit::launch_options options;
  options.limits.operation = SHARDKIT_TEST_SANITIZED ? 60 : 20;  // a hang ends here, with the call's name
  for (int ranks : rank_counts) {
    CAPTURE(ranks);
    std::vector<conformance::report> reports(static_cast<std::size_t>(ranks));
    shardkit::run_ranks(ranks, options, [&](shardkit::thread_communicator& comm) {
      body(comm, reports[static_cast<std::size_t>(comm.rank())], thread_sweep(points));
    });
    for (const auto& report : reports) {
      const auto rank = &report - reports.data();
      CHECK_MESSAGE(report.failures() == 0, "rank ", rank, ": ", report.failures(), " of ", report.checks(),
                    " checks failed", report.what());
    }
  }
}
