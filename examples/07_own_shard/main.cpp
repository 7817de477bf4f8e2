// Each rank reads its own part of a safetensors checkpoint, and nothing else, into memory that belongs to the engine.
#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/checkpoint/safetensors_writer.hpp>
#include <shardkit/shardkit.hpp>

#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <vector>

using namespace shardkit;

constexpr std::size_t hidden = 8, inner = 10;

// Stands for a checkpoint that somebody has published: element i of each matrix is i.
void write_checkpoint(const char* path) {
  std::vector<float> numbers(inner * hidden);
  std::iota(numbers.begin(), numbers.end(), 0.0f);
  safetensors_writer out(path,
                         {{"up.weight", dtype::f32, {inner, hidden}}, {"down.weight", dtype::f32, {hidden, inner}}});
  out.write(numbers);
  out.write(numbers);
  out.commit();
}

int main() {
  const char* path = "example.safetensors";
  write_checkpoint(path);

  run_ranks(3, [&](thread_communicator& comm) {
    // [load]
    const auto cut = partition::balanced(inner, comm.size());  // 4, 3 and 3 of the inner features
    load_plan plan(archive::open(path), comm.rank(), comm.size());
    const auto up = plan.add("up.weight", {inner, hidden}, rows(cut), dtype::f32);
    const auto down = plan.add("down.weight", {hidden, inner}, columns(cut), dtype::f32);

    // The engine's arena: any memory that is aligned. The staging buffer can be dropped afterwards.
    constexpr std::size_t unit = host_space::alignment;
    void* memory = std::aligned_alloc(unit, (plan.bytes() + unit - 1) / unit * unit);
    const view arena(static_cast<std::byte*>(memory), plan.bytes());
    std::vector<std::byte> staging(load_plan::least_staging);
    plan.load(comm, arena, staging);

    const matrix_view<float> w_up = up.matrix_in<float>(arena), w_down = down.matrix_in<float>(arena);
    // [load]
    const std::size_t first = cut.offset(comm.rank());
    const bool right =
        w_up(0, 0) == static_cast<float>(first * hidden) && w_down(1, 0) == static_cast<float>(inner + first);
    const auto bytes = comm.exchange(plan.bytes());
    const int agreeing = comm.all_reduce(right ? 1 : 0, sum);
    if (comm.is_root())
      std::printf("bytes per rank: %zu %zu %zu of %zu\nright weights on %d of %d ranks\n", bytes[0], bytes[1], bytes[2],
                  2 * inner * hidden * sizeof(float), agreeing, comm.size());
    std::free(memory);
  });
  std::remove(path);
}
