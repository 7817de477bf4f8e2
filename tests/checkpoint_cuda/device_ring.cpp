// Own-shard loading into device memory: what arrives, through how little pinned memory, and in what order.
#include "../checkpoint/files.hpp"

#include <double/control.hpp>
#include <shardkit/checkpoint/device_ring.hpp>
#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/checkpoint/safetensors_writer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <support/captured_graph.hpp>
#include <support/expect_clean.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using files::contains;
using files::message_of;
using namespace shardkit;

namespace {

constexpr double deadline = 20;
constexpr std::size_t tiny = device_ring_options::least_bytes;  // blocks of 1 KiB behind 4 KiB of staging
using device_arena = buffer<std::byte, cuda_space>;

/// First in every case: at its end, nothing may be wrong and nothing left over.
struct clean_machine {
  clean_machine() { cuda_check(cudaSetDevice(0), "cudaSetDevice"); }
  ~clean_machine() { shardkit_test::expect_clean(); }
};

/// [rows, columns] elements with the numbers of their places, exact in bf16 where there are no more than 256.
template <class T>
std::vector<T> numbers(std::size_t count, std::size_t modulus) {
  std::vector<T> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = T(static_cast<float>(i % modulus));
  return all;
}

template <class T>
std::vector<T> fetched(view<T, cuda_space> from, cudaStream_t stream) {
  std::vector<T> host(from.size());
  copy(host, from, stream);
  synchronize(stream, deadline);
  return host;
}

enum class cut_by { rows, columns, nothing };

/// What a rank keeps of numbers(rows * columns), element by element.
std::vector<float> kept(std::size_t row_count, std::size_t column_count, cut_by how, int rank, int size) {
  const auto mine = [&](std::size_t i, std::size_t extent) {
    std::size_t end = 0;  // the first ranks have one more
    for (int r = 0; r < size; ++r) {
      const auto parts = static_cast<std::size_t>(size), at = static_cast<std::size_t>(r);
      end += extent / parts + (at < extent % parts ? 1 : 0);
      if (i < end) return r == rank;
    }
    return false;
  };
  std::vector<float> all;
  for (std::size_t row = 0; row < row_count; ++row)
    for (std::size_t column = 0; column < column_count; ++column)
      if (how == cut_by::nothing || (how == cut_by::rows ? mine(row, row_count) : mine(column, column_count)))
        all.push_back(static_cast<float>((row * column_count + column) % 256));
  return all;
}

}  // namespace

TEST_CASE("every shard arrives on the device, converted on the way, through a ring of any size") {
  const clean_machine machine;
  const files::directory folder;
  const std::pair<std::size_t, std::size_t> shapes[] = {{1, 1},    {7, 3}, {64, 129}, {3, 1500},
                                                        {1500, 3}, {0, 4}, {2, 9000}};
  const cuda_stream stream;
  device_ring small({.bytes = tiny}), odd({.bytes = 10007}), ample;
  std::size_t number = 0;
  for (const auto& [row_count, column_count] : shapes) {
    const std::string path = folder / ("t" + std::to_string(++number) + ".safetensors");
    safetensors_writer out(
        path, {{"wide", dtype::f32, {row_count, column_count}}, {"narrow", dtype::bf16, {row_count, column_count}}});
    out.write(numbers<float>(row_count * column_count, 256));
    out.write(numbers<bfloat16>(row_count * column_count, 256));
    out.commit();
    const archive opened = archive::open(path);
    for (const cut_by how : {cut_by::rows, cut_by::columns, cut_by::nothing})
      for (const int size : {1, 3})
        for (int rank = 0; rank < size; ++rank) {
          const slice part = how == cut_by::rows      ? rows(partition::balanced(row_count, size))
                             : how == cut_by::columns ? columns(partition::balanced(column_count, size))
                                                      : whole();
          load_plan plan(opened, rank, size);
          const std::vector<std::size_t> shape{row_count, column_count};
          const auto stored = plan.add("wide", shape, part);
          const auto widened = plan.add("narrow", shape, part, dtype::f32);
          const auto narrowed = plan.add("wide", shape, part, dtype::bf16);
          const std::vector<float> wanted = kept(row_count, column_count, how, rank, size);
          std::vector<bfloat16> halves;
          for (const float one : wanted) halves.push_back(bfloat16(one));
          for (device_ring* ring : {&small, &odd, &ample}) {
            CAPTURE(row_count);
            CAPTURE(column_count);
            CAPTURE(size);
            CAPTURE(rank);
            CAPTURE(ring->bytes());
            device_arena arena(plan.bytes());
            const load_report report = plan.load(arena, *ring, stream);
            CHECK(report.bytes_loaded == wanted.size() * (4 + 4 + 2));
            CHECK(fetched(stored.view_in<float>(arena), stream.handle()) == wanted);
            CHECK(fetched(widened.view_in<float>(arena), stream.handle()) == wanted);
            const auto got = fetched(narrowed.view_in<bfloat16>(arena), stream.handle());
            REQUIRE(got.size() == halves.size());
            std::size_t wrong = 0;
            for (std::size_t i = 0; i < got.size(); ++i) wrong += got[i].bits != halves[i].bits;
            CHECK(wrong == 0);
          }
        }
  }
}

TEST_CASE("many small tensors share blocks, and loads on different streams share the ring") {
  const clean_machine machine;
  const files::directory folder;
  const std::string path = folder / "many.safetensors";
  constexpr std::size_t tensors = 60, length = 37;
  std::vector<tensor_declaration> list;
  for (std::size_t i = 0; i < tensors; ++i) list.push_back({"t" + std::to_string(i), dtype::f32, {length}});
  safetensors_writer out(path, list);
  for (std::size_t i = 0; i < tensors; ++i) out.write(std::vector<float>(length, static_cast<float>(i)));
  out.commit();
  load_plan plan(archive::open(path), 0, 1, 256);
  std::vector<arena_slot> slots;
  for (std::size_t i = 0; i < tensors; ++i) slots.push_back(plan.add("t" + std::to_string(i), {length}));
  const cuda_stream one, two;
  device_ring ring({.bytes = tiny});
  device_arena first(plan.bytes()), second(plan.bytes());
  const int made = shardkit_double::calls("cudaMallocHost") + shardkit_double::calls("cudaEventCreateWithFlags");
  plan.load(first, ring, one);
  plan.load(second, ring, two);  // waits for nothing but the blocks
  for (std::size_t i = 0; i < tensors; ++i) {
    const std::vector<float> wanted(length, static_cast<float>(i));
    CHECK(fetched(slots[i].view_in<float>(first), one.handle()) == wanted);
    CHECK(fetched(slots[i].view_in<float>(second), two.handle()) == wanted);
  }
  CHECK(shardkit_double::calls("cudaMallocHost") + shardkit_double::calls("cudaEventCreateWithFlags") == made);
  {
    device_ring short_lived({.bytes = tiny});  // the device still reads it
    plan.load(first, short_lived, one);
  }
  for (const char* function : {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"})
    CHECK_MESSAGE(shardkit_double::calls(function) == 0, function);
}

TEST_CASE("reading goes on ahead of the device until the ring is full, and no longer than the deadline") {
  if (!shardkit_double::active()) return;
  const clean_machine machine;
  const files::directory folder;
  const std::string path = folder / "f.safetensors";
  constexpr std::size_t count = 5000;
  safetensors_writer out(path, {{"t", dtype::f32, {count}}});
  out.write(numbers<float>(count, count));
  out.commit();
  load_plan plan(archive::open(path), 0, 1);
  const auto slot = plan.add("t", {count});
  device_arena arena(plan.bytes());
  const cuda_stream stream;
  std::size_t prepared = 0;
  const load_options counted{.transform = [&](const element_block& block) {
    convert_elements(block);
    prepared += block.count;
  }};
  {
    device_ring ring({.bytes = tiny, .deadline = 0.1});
    shardkit_double::set_stalled(0, true);
    CHECK_THROWS_WITH_AS(plan.load(arena, ring, stream, counted),
                         doctest::Contains("had not copied a block of the ring after 0.1"), timeout_error);
    CHECK(prepared == 4 * 1024 / 4);
    shardkit_double::set_stalled(0, false);
    plan.load(arena, ring, stream);
    CHECK(fetched(slot.view_in<float>(arena), stream.handle()) == numbers<float>(count, count));
  }
}

TEST_CASE("no more than 64 MiB is staged, and what cannot be done is refused before anything is read") {
  const clean_machine machine;
  CHECK(device_ring().bytes() <= std::size_t{64} << 20);
  CHECK_THROWS_WITH_AS(device_ring({.bytes = (std::size_t{64} << 20) + 1}), doctest::Contains("to 67108864"),
                       usage_error);
  CHECK_THROWS_WITH_AS(device_ring({.bytes = tiny - 1}), doctest::Contains("from 8192"), usage_error);
  CHECK_THROWS_AS(device_ring({.deadline = 0}), usage_error);

  const files::directory folder;
  safetensors_writer out(folder / "f.safetensors", {{"t", dtype::f32, {8}}});
  out.write(numbers<float>(8, 8));
  out.commit();
  load_plan plan(archive::open(folder / "f.safetensors"), 0, 1);
  plan.add("t", {8});
  device_arena arena(plan.bytes()), small(plan.bytes() - 1);
  device_ring ring({.bytes = tiny});
  const cuda_stream stream;
  CHECK_THROWS_WITH_AS(plan.load(small, ring, stream), doctest::Contains("31 bytes, the plan needs 32"), usage_error);
  {
    const shardkit_test::captured_graph graph(stream, [&] {
      CHECK_THROWS_WITH_AS(plan.load(arena, ring, stream), doctest::Contains("load before the capture"), usage_error);
    });
    CHECK(graph.nodes() == 0);
  }
  if (cuda_device_count() > 1) {
    cuda_check(cudaSetDevice(1), "cudaSetDevice");
    CHECK_THROWS_WITH_AS(plan.load(arena, ring, stream), doctest::Contains("made on device 0"), usage_error);
    cuda_check(cudaSetDevice(0), "cudaSetDevice");
  }
}

TEST_CASE("a copy or a file that fails on one rank fails on all, naming it") {
  if (!shardkit_double::active()) return;
  const clean_machine machine;
  const files::directory folder;
  for (const std::string what : {"copy", "file"}) {
    std::vector<std::string> said(3);
    for (int rank = 0; rank < 3; ++rank) {
      safetensors_writer out(folder / (what + std::to_string(rank)), {{"t", dtype::f32, {1000}}});
      out.write(numbers<float>(1000, 1000));
      out.commit();
    }
    shardkit_double::set_device_count(3);
    run_ranks(3, [&](thread_communicator& comm) {
      cuda_check(cudaSetDevice(comm.rank()), "cudaSetDevice");
      const std::string path = folder / (what + std::to_string(comm.rank()));
      load_plan plan(open_archive(comm, path), comm.rank(), comm.size());
      plan.add("t", {1000});
      const cuda_stream stream;
      device_arena arena(plan.bytes());
      device_ring ring({.bytes = tiny});
      if (comm.rank() == 1 && what == "file") std::filesystem::resize_file(path, 500);
      if (comm.rank() == 1 && what == "copy")
        shardkit_double::fail_call("cudaMemcpyAsync", 2, cudaErrorInvalidValue, 1);
      said[static_cast<std::size_t>(comm.rank())] = message_of([&] { plan.load(comm, arena, ring, stream); });
      synchronize(stream, deadline);
    });
    for (const std::string& each : said) {
      CHECK(contains(each, "failed on rank 1 of 3: "));
      CHECK(contains(each, what == "copy" ? "cudaMemcpyAsync failed: cudaErrorInvalidValue" : "changed since"));
    }
  }
}
