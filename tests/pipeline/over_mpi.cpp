#include "ring_cases.hpp"
#include "stage_cases.hpp"

#include "../support/mpi_world.hpp"

#include <shardkit/comm/any_communicator.hpp>

using namespace pipeline_test;

TEST_CASE("forward over MPI equals a serial run for batch sizes and microbatch counts that do not divide") {
  auto world = shardkit_test::mpi().world();
  forward_over_all_sizes(world, 9, 5);
  forward_over_uneven_microbatches(world);
}

TEST_CASE("The blocks and the deliveries work over MPI, erased") {
  auto world = shardkit::erase(shardkit_test::mpi().world());
  blocks_in_a_loop_of_ones_own(world);
  deliveries_reach_whom_they_name(world);
}

TEST_CASE("The ring over MPI equals a serial run") {
  auto world = shardkit_test::mpi().world();
  ring_over_all_group_counts(world, 3);
  ring_decodes_again_and_again(world, 40, 2);
}

TEST_CASE("Hops that MPI sends only to a receiver that waits pass round without a deadlock") {
  auto world = shardkit_test::mpi().world();
  const std::size_t wide = std::size_t{1} << 18;  // 1 MiB of floats: beyond every eager limit
  decode_ring ring(world, {{"hidden", dtype::f32, wide, 2}}, {"hidden", dtype::f32, wide, 1}, 7);
  int total = 0;
  ring.run([](int, int step) { return step == 0 ? 2 : 1; },
           [&](int group, int step, const hop<>& in, hop<>& out, hop<>& feedback) {
             const auto y = out.matrix<float>(0);
             const auto start = static_cast<float>(group * 100 + step);
             y(0, wide - 1) = (ring.is_first() ? start : in.matrix<float>(0)(0, wide - 1)) + 1;
             if (ring.is_last()) feedback.matrix<float>(0)(0, wide - 1) = y(0, wide - 1);
           },
           [&](int group, int step, const hop<>& feedback) {
             CHECK(feedback.matrix<float>(0)(0, wide - 1) == static_cast<float>(group * 100 + step + world.size()));
             ++total;
             return step < group % 3;
           });
  if (ring.is_first()) CHECK(total == 7 + 0 + 1 + 2 + 0 + 1 + 2 + 0);
}

TEST_CASE("Ports that differ are found on every rank over MPI, which stays usable") {
  auto world = shardkit_test::mpi().world();
  const std::size_t rows = world.rank() == 1 ? 5 : 4;
  CHECK_THROWS_AS(stage(world, {{"hidden", dtype::f32, 8, rows}}), shardkit::usage_error);
  CHECK(world.all_reduce(1, shardkit::sum) == world.size());
}
