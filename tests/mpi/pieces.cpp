// The conformance suite over MPI in the ways that comm/mpi.cpp leaves out: with no more than a kilobyte in one call of
// MPI's, so that counts far below MPI's limit take the same ways as counts beyond it, and with every call started.
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include "comm/conformance/run_all.hpp"
#include "comm/started_calls.hpp"
#include "support/mpi_world.hpp"

#include <string>
#include <utility>

namespace {

// Erased, so that the suite is compiled only once.
using erased = shardkit::any_communicator<shardkit::host_space>;

void run_suite(erased& world) {
  conformance::sweep how;
  how.points = world.size() > 2 ? 8 : 60;  // a collective takes milliseconds where ranks outnumber cores
  how.large = 20011;
  conformance::run_all(world, how);
}

shardkit::mpi_options options_with(std::size_t piece_bytes) {
  shardkit::mpi_options options;
  options.limits.operation = 60;
  options.piece_bytes = piece_bytes;
  return options;
}
constexpr std::size_t whole = std::size_t{1} << 30;
constexpr std::size_t cut = 1000;  // holds no whole number of some of the groups of elements that the suite moves

erased started_world(shardkit::mpi_environment& mpi) {
  return shardkit::erase(shardkit::communicator(started_calls(std::move(mpi.world().backend()))));
}

}  // namespace

TEST_CASE("the conformance suite holds where MPI gets large counts in pieces") {
  shardkit::mpi_environment mpi(options_with(cut));
  erased world = shardkit::erase(mpi.world());
  run_suite(world);
}

TEST_CASE("the conformance suite holds where every call is started") {
  shardkit::mpi_environment mpi(options_with(whole));
  erased world = started_world(mpi);
  run_suite(world);
}

TEST_CASE("the conformance suite holds where every call is started and MPI gets large counts in pieces") {
  shardkit::mpi_environment mpi(options_with(cut));
  erased world = started_world(mpi);
  run_suite(world);
}
