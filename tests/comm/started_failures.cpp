// What becomes of started collectives when something goes wrong; see failure.cpp for calls that are waited for.
#include "on_threads.hpp"

#include "failing_launch.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>
#include <vector>

using shardkit::in_place;
using shardkit::request;

namespace {

constexpr std::size_t small_count = 3, large_count = 20000;

void pause_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

}  // namespace

TEST_CASE("a failure ends started collectives, whether they are waited for or tested") {
  for (const bool tests : {false, true})
    for (std::size_t count : {small_count, large_count}) {
      const auto result = launch(3, [&](auto& comm, auto& clock) {
        auto child = comm.split(0);
        std::vector<float> x(count, 1.0f), y(count, 1.0f);
        request first, second;
        if (comm.rank() != 2) {
          first = child.all_reduce_async(in_place(x), shardkit::sum);
          second = child.all_reduce_async(in_place(y), shardkit::sum);
        }
        comm.barrier();
        if (comm.rank() == 2) {
          clock.strike();
          throw std::runtime_error("no reply");
        }
        if (tests)
          while (!second.test()) {
          }
        else second.wait();
      });
      check_peers(result, 2, "no reply");
      for (int rank : {0, 1}) {
        CHECK(result[rank].context.operation.find("all_reduce") == 0);
        CHECK(result[rank].context.site.known());
      }
      CHECK(result.caller.what == "no reply");
    }
}

TEST_CASE("a started collective that is dropped fails the launch, and its buffer is the owner's at once") {
  for (std::size_t count : {small_count, large_count})
    for (const bool joined : {false, true}) {
      std::atomic<bool> is_dropped{false};
      const auto result = launch(3, [&](auto& comm, auto& clock) {
        std::vector<float> x(count, 1.0f);
        if (comm.rank() == 1) {
          auto own = std::make_unique<std::vector<float>>(count, 1.0f);
          {
            const at<host_space> here({}, call_site{"drop.cpp", "", 9});
            request kept = comm.all_reduce_async(in_place(*own), shardkit::sum, here);
            if (joined) pause_for(0.01);
            clock.strike();
          }
          own.reset();
          is_dropped = true;
          comm.barrier();
        }
        // Rank 2 comes late, lest the call completes; rank 0 may be in it.
        while ((comm.rank() == 2 || !joined) && !is_dropped) std::this_thread::yield();
        comm.all_reduce(in_place(x), shardkit::sum);
        comm.barrier();
      });
      check_peers(result, 1, "was dropped before it completed");
      CHECK(result[1].how == ending::peer_failed);
      CHECK(result[1].culprit == 1);
    }
}

TEST_CASE("a rank may leave its started collective alone for long: a failing peer does not wait for it") {
  std::atomic<bool> left_alone{false};
  const auto result = launch(2, [&](auto& comm, auto& clock) {
    std::vector<float> x(large_count, 1.0f);
    while (comm.rank() == 0 && !left_alone) pause_for(1e-3);  // where both start at once, both may complete at once
    request pending = comm.all_reduce_async(in_place(x), shardkit::sum);
    if (comm.rank() == 0) {
      clock.strike();
      throw std::runtime_error("enough");  // dropping the request must not need rank 1
    }
    left_alone = true;
    pause_for(2);
    pending.wait();
  });
  CHECK(result.delay(0) < 1.5);
  CHECK(result[1].how == ending::peer_failed);
  CHECK(result[1].culprit == 0);
  CHECK(result[1].says("enough"));
}

TEST_CASE("ranks that start different calls all throw, and the error names both call sites") {
  for (const bool started_by_both : {false, true})
    for (std::size_t count : {small_count, large_count}) {
      const auto result = launch(3, [&](auto& comm, auto& clock) {
        std::vector<float> x(count, 1.0f);
        comm.barrier();
        clock.strike();
        if (comm.rank() == 1) {
          comm.broadcast_async(x, 0, at<host_space>({}, call_site{"broadcast.cpp", "", 7})).wait();
        } else if (started_by_both) {
          comm.all_reduce_async(in_place(x), shardkit::sum, at<host_space>({}, call_site{"reduce.cpp", "", 8})).wait();
        } else {
          comm.all_reduce(in_place(x), shardkit::sum, at<host_space>({}, call_site{"reduce.cpp", "", 8}));
        }
        comm.barrier();
      });
      for (int rank = 0; rank < 3; ++rank) {
        INFO(result[rank].what);
        CHECK((result[rank].how == ending::mismatch || result[rank].how == ending::peer_failed));
        CHECK(result[rank].says("broadcast.cpp:7"));
        CHECK(result[rank].says("reduce.cpp:8"));
      }
      CHECK(result.caller.how == ending::mismatch);
    }
}

TEST_CASE("a started collective that nobody joins ends at the deadline, naming who did not come") {
  for (const bool joined : {false, true}) {
    const auto result = launch(
        3,
        [&](auto& comm, auto& clock) {
          std::vector<float> x(large_count);
          auto other = comm.split(0);
          comm.barrier();
          if (comm.rank() == 2) {
            pause_for(0.6);
            return;
          }
          clock.strike();
          request pending[] = {comm.all_reduce_async(in_place(x), shardkit::sum), other.barrier_async()};
          if (joined) shardkit::wait_all(pending, 2);
          else pending[0].wait();
        },
        0.1);
    for (int rank : {0, 1}) {
      INFO(result[rank].what);
      CHECK((result[rank].how == ending::timeout || result[rank].how == ending::peer_failed));
      CHECK(result[rank].says("rank 2 did not arrive in all_reduce"));
      CHECK(result.delay(rank) < promptly);
    }
  }
}

TEST_CASE("requests that fail leave their buffers to their owner, whatever the peers still do") {
  // Ranks 0 to 2 work; rank 3, with whom they share no call, ends the launch in the middle of it.
  for (int round = 0; round < 100; ++round) {
    std::atomic<int> out_of_it{0};
    const auto result = launch(4, [&](auto& comm, auto&) {
      auto workers = comm.split(comm.rank() / 3), others = comm.split(comm.rank() / 3);
      std::vector<float> a(100000, 1.0f), b(100000, 2.0f), c(300000, 1.0f);
      comm.barrier();
      if (comm.rank() == 3) {
        pause_for(2e-3 * (round % 20) / 20);
        throw std::runtime_error("in the middle");
      }
      try {
        for (;;) {
          request sum = workers.all_reduce_async(in_place(a), shardkit::maximum);
          request whole = others.all_gather_async(b, c);
          if (round % 2 == 0) workers.barrier();
          if (round % 3 == 0) others.barrier();
          whole.wait();
          sum.wait();
        }
      } catch (const shardkit::peer_failed&) {
        std::fill(a.begin(), a.end(), 3.0f);
        std::fill(c.begin(), c.end(), 4.0f);
        ++out_of_it;
        while (out_of_it.load() < 3) std::this_thread::yield();
        CHECK(std::count(a.begin(), a.end(), 3.0f) == 100000);
        CHECK(std::count(c.begin(), c.end(), 4.0f) == 300000);
        throw;
      }
    });
    CHECK(result.caller.what == "in the middle");
  }
}
