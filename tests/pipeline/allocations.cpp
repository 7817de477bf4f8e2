// A program of its own, because it counts allocations: a pipeline that has run once allocates nothing more.
#include "support.hpp"

#include <shardkit/pipeline/decode_ring.hpp>
#include <support/counted_heap.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

using shardkit::dtype;
using shardkit::hop;
using shardkit::microbatch;
using shardkit::partition;

// Counts what the second and third time allocate, on all ranks.
template <class Run>
long allocations_when_warm(shardkit::thread_communicator& comm, Run run) {
  static std::atomic<long> before{0};
  run();
  comm.barrier();
  if (comm.is_root()) before = counted_heap::allocations.load();
  comm.barrier();
  run();
  run();
  comm.barrier();
  const long during = counted_heap::allocations - before;
  comm.barrier();
  return during;
}

TEST_CASE("A pipeline that has run once allocates nothing in forward and in the ring") {
  for (int stages = 1; stages <= 3; ++stages)
    shardkit::run_ranks(stages, pipeline_test::within(60), [](shardkit::thread_communicator& comm) {
      shardkit::stage pipeline(comm, {{"hidden", dtype::f32, 64, 8}, {"ids", dtype::i32, 1, 8}});
      const partition microbatches = partition::balanced(37, 6);
      float sum = 0;
      CHECK(allocations_when_warm(comm, [&] {
              pipeline.forward(microbatches, [&](const microbatch&, const hop<>& in, hop<>& out) {
                for (float& x : out.matrix<float>("hidden").flat()) x = 1;
                for (const float x : in.matrix<float>("hidden").flat()) sum += x;
              });
            }) == 0);

      shardkit::decode_ring ring(comm, {{"hidden", dtype::f32, 64, 8}}, {"token", dtype::i32, 1, 1}, 5);
      CHECK(allocations_when_warm(comm, [&] {
              ring.run(
                  [](int, int step) { return step == 0 ? 8 : 1; },
                  [](int, int step, const hop<>&, hop<>&, hop<>& feedback) {
                    if (feedback.rows() != 0) feedback.matrix<std::int32_t>("token")(0, 0) = step;
                  },
                  [](int group, int, const hop<>& feedback) { return feedback.matrix<std::int32_t>(0)(0, 0) < group; });
            }) == 0);
    });
}
