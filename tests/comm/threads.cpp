// The conformance suite on thread ranks.
#include "conformance.hpp"
#include "on_threads.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <unistd.h>

#define ON_THREADS(function, name)                                                                          \
  TEST_CASE("threads: " name) {                                                                             \
    on_threads(                                                                                             \
        {1, 2, 3, 4, 5, 8},                                                                                 \
        [](auto& comm, auto& report, const auto& how) { conformance::function(comm, report, how); }, 1000); \
  }
SHARDKIT_CONFORMANCE_CASES(ON_THREADS)

TEST_CASE("threads: a large message arrives whole, whichever side comes first and whether it waits or goes on") {
  for (const std::size_t bytes : {(std::size_t{256} << 10) + 1, (std::size_t{1} << 20) - 3, std::size_t{17} << 20})
    for (const int late : {0, 1})
      for (const bool started : {false, true})
        shardkit::run_ranks(2, [&](shardkit::thread_communicator& comm) {
          std::vector<std::uint8_t> sent(bytes), got(bytes);
          for (std::size_t i = 0; i < bytes; ++i) sent[i] = static_cast<std::uint8_t>(i * 131 + (i >> 12) + bytes);
          if (comm.rank() == late) ::usleep(2000);
          if (comm.rank() == 0) {
            if (started) comm.send_async(sent, 1).wait();
            else comm.send(sent, 1);
            return;
          }
          if (started) {
            shardkit::request pending = comm.recv_async(got, 0);
            ::usleep(4000);  // the sender copies alone meanwhile
            pending.wait();
          } else {
            comm.recv(got, 0);
          }
          CHECK(std::equal(got.rbegin(), got.rend(), sent.rbegin()));  // what is copied last, first
        });
}

TEST_CASE("peers count as far where what their caches hold comes slowly, twice in a row") {
  constexpr std::size_t mib = 1 << 20;
  struct reads {
    std::size_t bytes;
    double first, second;  // bytes per second
    bool far;
  };
  for (const reads& one : {reads{mib, 2e9, 2e9, true}, reads{mib, 12e9, 12e9, false}, reads{mib, 2e9, 12e9, false},
                           // From memory, on near cores.
                           reads{8 * mib, 5.5e9, 5.5e9, false}, reads{8 * mib, 2e9, 2e9, true}}) {
    CAPTURE(one.bytes);
    CAPTURE(one.second);
    shardkit::detail::thread_distance distance, peer;
    distance.learn(one.bytes, static_cast<double>(one.bytes) / one.first);
    CHECK(distance.staged_calls() == 0);
    distance.learn(one.bytes, static_cast<double>(one.bytes) / one.second);
    CHECK(distance.stages_next() == one.far);
    peer.hear(distance.staged_calls());
    CHECK(peer.stages_next() == one.far);
  }
}
