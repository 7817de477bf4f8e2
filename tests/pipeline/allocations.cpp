// Replaces operator new to count: a pipeline that has run once allocates nothing more.
#include "support.hpp"

#include <shardkit/pipeline/decode_ring.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

namespace {

std::atomic<bool> counting{false};
std::atomic<int> allocations{0};

void* allocate(std::size_t size, std::size_t alignment) {
  if (counting) ++allocations;
  void* memory = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment + alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return allocate(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return allocate(size, static_cast<std::size_t>(alignment));
}
// Not inlined, or GCC takes free for the wrong partner of new.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

using shardkit::dtype;
using shardkit::hop;
using shardkit::microbatch;
using shardkit::partition;

// Counts what the second and third time allocate.
template <class Run>
int allocations_when_warm(shardkit::thread_communicator& comm, Run run) {
  run();
  comm.barrier();
  if (comm.is_root()) {
    allocations = 0;
    counting = true;
  }
  comm.barrier();
  run();
  run();
  comm.barrier();
  if (comm.is_root()) counting = false;
  comm.barrier();
  return allocations;
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
              ring.run([](int, int step) { return step == 0 ? 8 : 1; },
                       [](int, int step, const hop<>&, hop<>&, hop<>& feedback) {
                         if (feedback.rows() != 0) feedback.matrix<std::int32_t>("token")(0, 0) = step;
                       },
                       [](int group, int, const hop<>& feedback) {
                         return feedback.matrix<std::int32_t>(0)(0, 0) < group;
                       });
            }) == 0);
    });
}
