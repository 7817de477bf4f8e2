// The conformance suite over MPI with buffers on a device: through staging memory that holds a small part of most
// calls, and handed to MPI as they are.
#include "../comm/conformance/run_all.hpp"
#include "../nccl/on_device.hpp"
#include "cuda_aware_mpi.hpp"

#include <doctest/doctest.h>
#include <double/control.hpp>
#include <shardkit/backends/mpi_cuda.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <support/expect_clean.hpp>
#include <support/mpi_world.hpp>

#include <string>
#include <utility>

namespace {

using namespace shardkit;
using erased = any_communicator<host_space>;

void run_suite(erased& world) {
  conformance::sweep how;
  how.points = world.size() > 2 ? 8 : 20;  // a collective takes milliseconds where ranks outnumber cores
  how.large = 5003;
  conformance::run_all(world, how);
}

using shardkit_test::expect_clean;

erased device_world(mpi_communicator& host, const mpi_cuda_options& options) {
  using backend = nccl_test::on_device<mpi_cuda_backend>;
  auto world = mpi_cuda_world(host, options);
  return erase(communicator<backend>(backend(std::move(world.backend()))));
}

}  // namespace

TEST_CASE("the conformance suite holds through staging memory, whatever the schedule of the device") {
  const shardkit_double::schedule schedules[] = {{shardkit_double::order::eager, 0},
                                                 {shardkit_double::order::late, 0},
                                                 {shardkit_double::order::jitter, 1},
                                                 {shardkit_double::order::jitter, 2}};
  auto host = shardkit_test::mpi().world();
  // The device of each rank has a schedule of its own.
  shardkit_double::set_schedule(schedules[(host.rank() + host.size()) % 4]);
  const long before = mpi_cuda_test::device_buffers();
  {
    erased world = device_world(host, {.staging_bytes = 4096});
    run_suite(world);
  }
  CHECK(mpi_cuda_test::device_buffers() == before);
  expect_clean();
}

TEST_CASE("the conformance suite holds where MPI gets device memory itself") {
  if (!shardkit_double::active()) return;  // the MPI at hand may not take that of a GPU
  auto host = shardkit_test::mpi().world();
  shardkit_double::set_schedule({shardkit_double::order::late, 0});
  const long before = mpi_cuda_test::device_buffers();
  {
    erased world = device_world(host, {.aware = mpi_cuda_aware::yes});
    run_suite(world);
  }
  CHECK(mpi_cuda_test::device_buffers() > before);
  expect_clean();
}
