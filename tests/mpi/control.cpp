// The control lane over MPI. Here every communicator is on one node, or as many as mpiexec was told.
#include <doctest/doctest.h>
#include <shardkit/launch/communicator_bootstrap.hpp>
#include <support/mpi_world.hpp>
#include "../comm/control_cases.hpp"

TEST_CASE("control lanes carry notes, exchanges and wishes to stop between MPI ranks") {
  auto world = shardkit_test::mpi().world();
  conformance::report report;
  control_cases::all(world, report);
  CHECK_MESSAGE(report.failures() == 0, report.failures(), " of ", report.checks(), " checks failed", report.what());
}

TEST_CASE("what a child's lane has posted arrives though the sender's end is gone") {
  auto world = shardkit_test::mpi().world();
  for (const std::size_t bytes : {std::size_t{10}, std::size_t{1} << 20}) {
    auto child = world.split(0);
    auto& lane = child.control();
    const int last = child.size() - 1;
    if (child.rank() == 0) {
      lane.post(last, shardkit::control_topic::user, shardkit::control_lane::blob(bytes, 'x'));
      // This end goes now: it waits for the message to be on its way.
    }
    if (child.rank() == last) CHECK(lane.take(0, shardkit::control_topic::user).size() == bytes);
  }
}

TEST_CASE("MPI hands out the blob of a bootstrap") {
  auto world = shardkit_test::mpi().world();
  shardkit::communicator_bootstrap start(world);
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{128}, shardkit::bootstrap::largest_blob}) {
    shardkit::bootstrap::blob id(bytes);
    for (std::size_t i = 0; i < bytes; ++i) id[i] = static_cast<char>(i * 5 % 127);
    CHECK(start.broadcast(start.rank() == 0 ? id : shardkit::bootstrap::blob(7)) == id);
    start.barrier();
  }
}
