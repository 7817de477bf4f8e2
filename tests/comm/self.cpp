// The conformance suite on a rank alone.
#include "conformance.hpp"

#include <doctest/doctest.h>
#include <shardkit/backends/self.hpp>

#include <cstddef>
#include <vector>

#define ON_SELF(function, name)                                                                         \
  TEST_CASE("self: " name) {                                                                            \
    shardkit::self_communicator comm{shardkit::self_backend()};                                         \
    conformance::report report;                                                                         \
    conformance::sweep how;                                                                             \
    how.points = 4000;                                                                                  \
    how.always_ordered = true;                                                                          \
    conformance::function(comm, report, how);                                                           \
    CHECK_MESSAGE(report.failures() == 0, report.failures(), " of ", report.checks(), " checks failed", \
                  report.what());                                                                       \
  }
SHARDKIT_CONFORMANCE_CASES(ON_SELF)

TEST_CASE("self: messages have the count and the type that they were sent with") {
  const std::vector<float> four(4, 1);
  std::vector<double> two(2);
  std::vector<float> three(3);
  for (const bool sent_first : {true, false})
    for (const bool other_type : {true, false}) {
      CAPTURE(sent_first);
      CAPTURE(other_type);
      shardkit::self_communicator comm{shardkit::self_backend()};
      const auto start = [&] { return other_type ? comm.recv_async(two, 0) : comm.recv_async(three, 0); };
      if (sent_first) {
        comm.send(four, 0);
        CHECK_THROWS_WITH_AS((void)start(), doctest::Contains("rank 0 sends 4 x f32 to itself, and receives "),
                             shardkit::mismatch_error);
      } else {
        const auto waiting = start();
        CHECK_THROWS_WITH_AS(comm.send(four, 0), doctest::Contains("rank 0 sends 4 x f32 to itself, and receives "),
                             shardkit::mismatch_error);
      }
    }
  shardkit::self_communicator comm{shardkit::self_backend()};
  std::vector<std::byte> bytes(3, std::byte{7});
  std::vector<unsigned char> numbers(3);
  comm.send(bytes, 0);
  comm.recv(numbers, 0);  // one type: u8
  CHECK(numbers.back() == 7);
}

TEST_CASE("self: a failure without a word is a failure, and the first one is told") {
  shardkit::self_communicator comm{shardkit::self_backend()};
  auto child = comm.split(0);
  comm.fail("");
  comm.fail("later");
  try {
    child.barrier();
    FAIL("the communicator goes on");
  } catch (const shardkit::peer_failed& failure) {
    CHECK(failure.message().find("later") == std::string::npos);
  }
}
