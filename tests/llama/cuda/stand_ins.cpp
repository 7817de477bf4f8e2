// What the double of CUDA runs for the kernels of llama_cuda: their own code (examples/llama/cuda/blocks.hpp), block by
// block, each by a few threads of the host that meet at a barrier.
#include "../../../examples/llama/cuda/blocks.hpp"

#include "../../cuda/kernels.hpp"

#include <double/control.hpp>

#include <barrier>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

namespace blocks = llama::blocks;
using shardkit_double::access;
using shardkit_double::access_mode;
using shardkit_double::operation;

constexpr unsigned team_size = 3;  // divides nothing here

struct team {
  unsigned number;
  float* shared;
  std::barrier<>* gate;

  unsigned thread() const { return number; }
  unsigned threads() const { return team_size; }
  void meet() const { gate->arrive_and_wait(); }
};

template <class Body>
void run_blocks(const Body& body, std::size_t count) {
  std::vector<float> shared(Body::shared_floats, std::numeric_limits<float>::quiet_NaN());
  std::barrier<> gate(team_size);
  std::vector<std::jthread> threads;
  for (unsigned number = 0; number < team_size; ++number)
    threads.emplace_back([&, number] {
      for (std::size_t block = 0; block < count; ++block) {
        body(block, team{number, shared.data(), &gate});
        gate.arrive_and_wait();  // the next block has its own shared memory
      }
    });
}

template <class T>
T* stored(T* device) {
  return static_cast<T*>(shardkit_double::storage(device));
}
template <class T>
blocks::rows_of<T> stored(const blocks::rows_of<T>& device) {
  return {stored(device.data), device.stride};
}

/// `rows` rows of `columns`, each `stride` elements after the one before it.
template <class T>
access part(access_mode mode, const T* data, std::size_t rows, std::size_t columns, std::size_t stride) {
  return {mode, data, columns * sizeof(T), rows, stride * sizeof(T)};
}
template <class T>
access part(access_mode mode, const blocks::rows_of<T>& of, std::size_t rows, std::size_t columns) {
  return part(mode, of.data, rows, columns, of.stride);
}
constexpr access_mode reading = access_mode::read, writing = access_mode::write;

// What so many blocks touch, and the same body on the host's storage.
std::vector<access> touched(const blocks::rms_norm& of, std::size_t rows) {
  return {part(reading, of.x, rows, of.columns), part(reading, of.weight, 1, of.columns, of.columns),
          part(writing, of.out, rows, of.columns)};
}
blocks::rms_norm on_storage(blocks::rms_norm of) {
  return {stored(of.x), stored(of.weight), of.epsilon, stored(of.out), of.columns};
}

std::vector<access> touched(const blocks::rotate& of, std::size_t rows) {
  const auto angles = [&](const blocks::rows_of<const float>& table) {
    return part(reading, table.data + of.first_position * table.stride, rows, of.head_dim / 2, table.stride);
  };
  return {part(writing, of.x, rows, of.head_count * of.head_dim), angles(of.cosine), angles(of.sine)};
}
blocks::rotate on_storage(blocks::rotate of) {
  of.x = stored(of.x);
  of.cosine = stored(of.cosine);
  of.sine = stored(of.sine);
  return of;
}

std::vector<access> touched(const blocks::store& of, std::size_t rows) {
  const std::size_t first = of.first_position * of.head_dim, head = of.positions * of.head_dim;
  return {part(reading, of.k, rows, of.kv_heads * of.head_dim), part(reading, of.v, rows, of.kv_heads * of.head_dim),
          part(writing, of.keys + first, of.kv_heads, rows * of.head_dim, head),
          part(writing, of.values + first, of.kv_heads, rows * of.head_dim, head)};
}
blocks::store on_storage(blocks::store of) {
  of.k = stored(of.k);
  of.v = stored(of.v);
  of.keys = stored(of.keys);
  of.values = stored(of.values);
  return of;
}

std::vector<access> touched(const blocks::attend& of, std::size_t count) {
  const std::size_t rows = count / of.head_count, head = of.positions * of.head_dim;
  const std::size_t visible = (of.first_position + rows) * of.head_dim;
  std::vector<access> all = {part(reading, of.heads, 1, of.head_count, of.head_count),
                             part(reading, of.q, rows, of.head_count * of.head_dim),
                             part(writing, of.out, rows, of.head_count * of.head_dim)};
  const llama::head_pair* const heads = stored(of.heads);  // written before anything was computed
  for (std::size_t i = 0; i < of.head_count; ++i)
    for (const float* cache : {of.keys, of.values})
      all.push_back(part(reading, cache + heads[i].kv * head, 1, visible, visible));
  return all;
}
blocks::attend on_storage(blocks::attend of) {
  of.q = stored(of.q);
  of.keys = stored(of.keys);
  of.values = stored(of.values);
  of.heads = stored(of.heads);
  of.out = stored(of.out);
  return of;
}

template <class Body>
operation on_host(const shardkit_double::kernel_launch& launch) {
  const Body body = launch.argument<Body>(0);
  const std::size_t count = launch.grid[0];
  if (launch.block[0] > blocks::most_threads) throw std::invalid_argument("a block of too many threads");
  operation op;
  op.accesses = touched(body, count);
  op.run = [=] {
    run_blocks(on_storage(body), count);
    return shardkit_double::progress::done;
  };
  return op;
}

const bool are_set = [] {
  cuda_tests::set_kernel_stand_ins();
  shardkit_double::set_stand_in("llama::blocks::run", [](const shardkit_double::kernel_launch& launch) {
    const auto runs = [&](const char* body) {
      return launch.kernel.find("llama::blocks::" + std::string(body) + ">") != std::string::npos;
    };
    if (runs("rms_norm")) return on_host<blocks::rms_norm>(launch);
    if (runs("rotate")) return on_host<blocks::rotate>(launch);
    if (runs("store")) return on_host<blocks::store>(launch);
    if (runs("attend")) return on_host<blocks::attend>(launch);
    throw std::invalid_argument("no stand-in for this kernel");
  });
  return true;
}();

}  // namespace
