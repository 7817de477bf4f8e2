// Allocation, copies and fills of the three spaces that CUDA knows, against byte loops.
#include "fixture.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/cuda/managed_space.hpp>
#include <shardkit/data/gather_trim.hpp>

#include <cstdint>
#include <cstring>

using shardkit::buffer;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::managed_space;
using shardkit::matrix_view;
using shardkit::pinned_space;
using shardkit::view;
using namespace cuda_tests;

namespace {

using bytes = std::vector<unsigned char>;

// As paper would say it: byte by byte.
void model_copy(bytes& to, std::size_t to_first, std::size_t to_stride, const bytes& from, std::size_t from_first,
                std::size_t from_stride, std::size_t row_bytes, std::size_t rows) {
  for (std::size_t i = 0; i < rows * row_bytes; ++i)
    to[to_first + i / row_bytes * to_stride + i % row_bytes] =
        from[from_first + i / row_bytes * from_stride + i % row_bytes];
}

struct shape {
  std::size_t rows, columns, to_gap, from_gap, first;
};

std::vector<shape> awkward_shapes() {
  std::vector<shape> result;
  for (const std::size_t rows : extents{0, 1, 2, 7})
    for (const std::size_t columns : extents{0, 1, 3, 61})
      for (const std::size_t to_gap : extents{0, 5})
        for (const std::size_t from_gap : extents{0, 3}) result.push_back({rows, columns, to_gap, from_gap, rows % 3});
  return result;
}

}  // namespace

TEST_CASE("2-D copies move exactly their rows, there, within the device and back") {
  const clean_machine machine;
  const cuda_stream stream;
  for (const shape& s : awkward_shapes()) {
    const std::size_t to_stride = s.columns + s.to_gap, from_stride = s.columns + s.from_gap;
    const std::size_t to_size = s.first + s.rows * to_stride + 4, from_size = s.first + s.rows * from_stride + 4;
    const bytes from = pattern(from_size, 1), before = pattern(to_size, 2);
    bytes expected = before;
    model_copy(expected, s.first, to_stride, from, s.first, from_stride, s.columns, s.rows);

    const auto device_from = on_device(from);
    auto device_to = on_device(before);
    cuda_space::copy_2d(device_to.data() + s.first, to_stride, device_from.data() + s.first, from_stride, s.columns,
                        s.rows, stream);
    CHECK(on_host(device_to, stream) == expected);

    buffer<unsigned char, pinned_space> host_from(from_size), host_to(to_size);
    std::memcpy(host_from.data(), from.data(), from_size);
    std::memcpy(host_to.data(), before.data(), to_size);
    auto from_host = on_device(before);
    copy(matrix_view<unsigned char, cuda_space>(from_host.data() + s.first, s.rows, s.columns, to_stride),
         matrix_view<unsigned char, pinned_space>(host_from.data() + s.first, s.rows, s.columns, from_stride), stream);
    CHECK(on_host(from_host, stream) == expected);
    copy(matrix_view<unsigned char, pinned_space>(host_to.data() + s.first, s.rows, s.columns, to_stride),
         matrix_view<const unsigned char, cuda_space>(device_from.data() + s.first, s.rows, s.columns, from_stride),
         stream);
    synchronize(stream, deadline);
    CHECK(bytes(host_to.begin(), host_to.end()) == expected);
  }
}

TEST_CASE("2-D fills write exactly their rows") {
  const clean_machine machine;
  const cuda_stream stream;
  for (const shape& s : awkward_shapes()) {
    const std::size_t stride = s.columns + s.to_gap, size = s.first + s.rows * stride + 4;
    bytes expected = pattern(size);
    auto device = on_device(expected);
    model_copy(expected, s.first, stride, bytes(s.rows * s.columns + 1, 0), 0, s.columns, s.columns, s.rows);
    fill_zero(matrix_view<unsigned char, cuda_space>(device.data() + s.first, s.rows, s.columns, stride), stream);
    CHECK(on_host(device, stream) == expected);
  }
}

TEST_CASE("A 2-D copy is one call of CUDA's, and none where there is nothing to copy") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  const cuda_stream stream;
  buffer<char, cuda_space> a(100), b(100);
  const auto calls = [] {
    return shardkit_double::calls("cudaMemcpy2DAsync") * 100 + shardkit_double::calls("cudaMemcpyAsync");
  };
  fill_zero(a, stream);
  int before = calls();
  cuda_space::copy_2d(b.data(), 10, a.data(), 9, 7, 5, stream);
  CHECK(calls() - before == 100);
  before = calls();
  cuda_space::copy_2d(b.data(), 7, a.data(), 7, 7, 5, stream);
  CHECK(calls() - before == 1);
  before = calls();
  cuda_space::copy_2d(b.data(), 7, a.data(), 7, 7, 0, stream);
  cuda_space::copy_2d(b.data(), 7, a.data(), 7, 0, 5, stream);
  cuda_space::copy(a.data(), a.data(), 5, stream);
  CHECK(calls() == before);
  synchronize(stream, deadline);
}

TEST_CASE("Views of pinned and managed memory are host views and CUDA views") {
  const clean_machine machine;
  const cuda_stream stream;
  const auto host_sum = [](view<const int> x) {
    int sum = 0;
    for (const int value : x) sum += value;
    return sum;
  };
  const auto double_up = [&](view<int, cuda_space> to, view<const int, cuda_space> from) {
    cuda_space::copy(to.data(), from.data(), from.bytes(), stream);
    cuda_space::copy(to.data() + from.size(), from.data(), from.bytes(), stream);
  };
  const auto check = [&](auto small, auto large) {
    for (std::size_t i = 0; i < small.size(); ++i) small[i] = static_cast<int>(i) + 1;
    CHECK(host_sum(view_of(small)) == 15);
    double_up(view_of(large), view_of(small));
    synchronize(stream, deadline);
    CHECK(host_sum(view_of(large)) == 30);
  };
  check(buffer<int, pinned_space>(5), buffer<int, pinned_space>(10));
  check(buffer<int, managed_space>(5), buffer<int, managed_space>(10));
  check(buffer<int, managed_space>(5), buffer<int, pinned_space>(10));
  static_assert(!std::is_convertible_v<view<int, cuda_space>, view<int>>);
  static_assert(!std::is_convertible_v<view<int>, view<int, cuda_space>>);
  static_assert(!std::is_convertible_v<view<const int, pinned_space>, view<int>>);
}

TEST_CASE("Pinned and managed buffers are taken by verbs on a device and on the host") {
  const clean_machine machine;
  const cuda_stream stream;
  one_rank_communicator device{one_rank()};
  buffer<int, pinned_space> pinned(3), out(3);
  for (std::size_t i = 0; i < 3; ++i) pinned[i] = 7;
  device.all_reduce(pinned, out, shardkit::sum, stream);
  device.all_reduce(shardkit::in_place(pinned), shardkit::sum, stream);
  synchronize(stream, deadline, device);
  CHECK(out[2] == 7);

  shardkit::self_communicator host{shardkit::self_backend()};
  host.all_reduce(pinned, out, shardkit::sum);
  host.all_reduce(shardkit::in_place(out), shardkit::sum);
  CHECK(out[1] == 7);

  buffer<int, managed_space> gathered(3);
  gather_trim_into(host, out, gathered);
  std::vector<int> plain(3);
  gather_trim_into(host, gathered, plain);
  CHECK(plain == std::vector<int>(3, 7));
}

TEST_CASE("Ordinary host memory is copied, too") {
  const clean_machine machine;
  const cuda_stream stream;
  const std::vector<double> before{1, 2, 3};
  std::vector<double> after(3);
  buffer<double, cuda_space> device(3);
  copy(device, before, stream);
  copy(after, device, stream);
  synchronize(stream, deadline);
  CHECK(after == before);
}

TEST_CASE("A copy of another size or shape is refused before anything is copied") {
  const clean_machine machine;
  const cuda_stream stream;
  buffer<int, cuda_space> device(6);
  buffer<int, pinned_space> host(5);
  CHECK_THROWS_WITH_AS(copy(device, host, stream), doctest::Contains("5 elements into 6"), shardkit::usage_error);
  CHECK_THROWS_WITH_AS(copy(matrix_view<int, cuda_space>(device.data(), 2, 2),
                            matrix_view<int, pinned_space>(host.data(), 1, 4), stream),
                       doctest::Contains("[1, 4] into [2, 2]"), shardkit::usage_error);
}

TEST_CASE("Buffers are aligned, and one of no elements allocates nothing") {
  const clean_machine machine;
  const buffer<char, cuda_space> a(1), b(1);
  const buffer<char, pinned_space> c(1);
  for (const char* at : {a.data(), b.data(), c.data()})
    CHECK(reinterpret_cast<std::uintptr_t>(at) % cuda_space::alignment == 0);
  const buffer<char, cuda_space> none(0);
  CHECK(none.data() == nullptr);
}
