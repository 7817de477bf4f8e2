// The conformance suite with every call started and then waited for, or tested until it is complete.
#include "conformance.hpp"
#include "on_threads.hpp"
#include "started_calls.hpp"

#include <shardkit/comm/any_communicator.hpp>

#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#define STARTED(function, name)                                                                                \
  TEST_CASE("started: " name) {                                                                                \
    on_threads(                                                                                                \
        {1, 2, 3, 8},                                                                                          \
        [](auto& comm, auto& report, const auto& how) {                                                        \
          using backend = started_calls<shardkit::thread_backend>;                                             \
          auto started = shardkit::erase(shardkit::communicator<backend>(backend(std::move(comm.backend())))); \
          conformance::function(started, report, how);                                                         \
        },                                                                                                     \
        400);                                                                                                  \
  }
SHARDKIT_CONFORMANCE_CASES(STARTED)

TEST_CASE("two threads of a rank use a communicator each, and may hand a request over") {
  using shardkit::in_place;
  for (int ranks : {1, 2, 3})
    shardkit::run_ranks(ranks, [&](shardkit::thread_communicator& world) {
      auto first = world.split(0), second = world.split(0), third = world.split(0);
      const int next = (world.rank() + 1) % ranks, previous = (world.rank() + ranks - 1) % ranks;
      std::vector<double> large(20000, 1.0);
      shardkit::request handed_over = first.all_reduce_async(in_place(large), shardkit::sum);
      int wrong = 0;
      std::thread other([&] {
        for (int i = 0; i < 100; ++i) {
          const std::size_t count = i % 2 == 0 ? 3000 : 3;
          std::vector<float> x(count, 1.0f), y(count, 2.0f), z(count);
          shardkit::request sum = second.all_reduce_async(in_place(x), shardkit::sum);
          shardkit::request sent = second.send_async(y, next);
          second.recv(z, previous);
          sent.wait();
          sum.wait();
          wrong += x.back() != static_cast<float>(ranks) || z.back() != 2.0f;
          second.barrier();
        }
        handed_over.wait();
        first.barrier();
      });
      for (int i = 0; i < 100; ++i) {
        std::vector<int> x(i % 2 == 0 ? 3000 : 3, 1);
        third.all_reduce(in_place(x), shardkit::sum);
        shardkit::request pending = third.barrier_async();
        third.barrier();
        pending.wait();
        if (x.back() != ranks) throw std::runtime_error("a wrong sum");
      }
      other.join();
      CHECK(wrong == 0);
      CHECK(large.back() == ranks);
    });
}
