// The n-th allocation of one thread rank fails, for every n that there is.
#include "counted_memory.hpp"

#include <doctest/doctest.h>
#include <shardkit/launch/run_ranks.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
#include <new>
#include <vector>

namespace {

using shardkit::in_place;
using shardkit::partition;
using shardkit::thread_communicator;
using shardkit::view;

shardkit::launch_options quiet(double operation) {
  shardkit::launch_options options;
  options.limits.operation = operation;
  options.on_failure = nullptr;
  return options;
}

/// Buffers that exist before any allocation is made to fail.
struct buffers {
  std::vector<float> in = std::vector<float>(9000, 1.0f), out = std::vector<float>(9000);
};

/// A bit of everything that may allocate: new communicators, groups, requests, layouts.
void use_everything(thread_communicator& comm, buffers& data, const partition& layout) {
  const int next = (comm.rank() + 1) % comm.size(), before = (comm.rank() + comm.size() - 1) % comm.size();
  auto child = comm.split(0, -comm.rank(), "child");
  child.all_reduce(data.in, data.out, shardkit::sum);
  comm.all_reduce(in_place(view(data.out.data(), 3)), shardkit::maximum);
  comm.all_gather(view(data.in.data(), layout.count(comm.rank())), data.out, layout);
  auto arriving = comm.recv_async(view(data.out.data(), 5000), before);
  comm.send(view(data.in.data(), 5000), next);
  arriving.wait();
  comm.group([&](auto& g) {
    g.send(data.in, next);
    g.recv(data.out, before);
    g.all_reduce(in_place(view(data.in.data(), 100)), shardkit::sum);
  });
  comm.exchange(std::array<int, 30>{});
  comm.barrier();
}

/// What each rank saw of a launch in which rank 1 is short of memory.
struct short_launch {
  bool struck = false;  ///< an allocation of rank 1 has failed
  bool culprit_told = false;
  int peers_told = 0;
  long left_behind = 0;  ///< allocations
};

short_launch launch_short_of_memory(long allowed, bool for_good) {
  short_launch result;
  const long before = counted_memory::live.load();
  std::atomic<int> told{0};
  const auto layout = partition::balanced(9000, 3);
  const long layout_allocations = counted_memory::live.load() - before;
  try {
    shardkit::run_ranks(3, quiet(20), [&](thread_communicator& comm) {
      buffers data;
      try {
        if (comm.rank() == 1) {
          counted_memory::has_failed = false;
          counted_memory::failing_for_good = for_good;
          counted_memory::until_failure = allowed;
        }
        use_everything(comm, data, layout);
        counted_memory::until_failure = -1;
      } catch (const std::bad_alloc&) {
        if (!for_good) counted_memory::until_failure = -1;  // else what passes it on is short of memory, too
        result.culprit_told = comm.rank() == 1;
        result.struck = result.struck || counted_memory::has_failed;
        throw;
      } catch (const shardkit::error& failure) {
        counted_memory::until_failure = -1;
        const auto* peer = dynamic_cast<const shardkit::peer_failed*>(&failure);
        if (comm.rank() == 1) result.culprit_told = true;
        else if (peer != nullptr && peer->culprit() == 1) ++told;
        throw;
      }
      if (comm.rank() == 1) result.struck = counted_memory::has_failed;
    });
  } catch (const std::exception&) {
  }
  result.peers_told = told.load();
  result.left_behind = counted_memory::live.load() - before - layout_allocations;
  return result;
}

}  // namespace

TEST_CASE("an allocation that fails on one rank, whichever it is, fails that rank and is told to the others") {
  launch_short_of_memory(-1, false);  // what is allocated once and kept
  for (const bool for_good : {false, true}) {
    int failures = 0;
    for (long n = 0;; ++n) {
      REQUIRE(n < 2000);
      CAPTURE(n);
      CAPTURE(for_good);
      const short_launch result = launch_short_of_memory(n, for_good);
      CHECK(result.left_behind == 0);
      if (!result.culprit_told) {
        CHECK(!result.struck);  // else a failure was swallowed
        break;
      }
      ++failures;
      CHECK(result.peers_told == 2);
    }
    CHECK(failures > 5);
  }
}

TEST_CASE("an allocation that fails while ranks are started, whichever it is, fails the launch and leaves nothing") {
  const auto options = quiet(20);
  const auto meet = [](thread_communicator& comm) { comm.barrier(); };
  shardkit::run_ranks(3, options, meet);  // what is allocated once and kept
  int failures = 0;
  for (bool failed = true; failed; ++failures) {
    REQUIRE(failures < 1000);
    const long before = counted_memory::live.load();
    counted_memory::until_failure = failures;
    counted_memory::failing_for_good = counted_memory::has_failed = false;
    try {
      shardkit::run_ranks(3, options, meet);
      failed = false;
    } catch (const std::bad_alloc&) {
      CHECK(counted_memory::has_failed);
    }
    counted_memory::until_failure = -1;
    if (!failed) CHECK(!counted_memory::has_failed);
    CHECK(counted_memory::live.load() == before);
  }
  CHECK(failures > 5);
}
