// Thread ranks on CUDA memory: what orders their streams, where their memory may lie, what fails and how.
#include "ranks.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/checked.hpp>
#include <shardkit/cuda/managed_space.hpp>
#include <shardkit/cuda/pinned_space.hpp>

#include <cstddef>
#include <cstring>
#include <thread>
#include <vector>

/// 8-bit floats of an engine.
enum class small_float : unsigned char {};
enum class wide_float : unsigned char {};
template <>
struct shardkit::dtype_traits<small_float> {
  static constexpr dtype value = dtype::f8e4m3;
};
template <>
struct shardkit::dtype_traits<wide_float> {
  static constexpr dtype value = dtype::f8e5m2;
};

namespace {

using namespace cuda_threads_test;

const std::vector<placement> placements = {{1, 1}, {2, 1}, {3, 2}, {4, 4}};

/// What rank `rank` has at the beginning: no two ranks and no two neighbours alike.
std::vector<float> values_of(int rank, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(rank * 1000) + static_cast<float>(i % 97);
  return values;
}
std::vector<float> summed(int ranks, std::size_t count) {
  std::vector<float> sums(count);
  for (int rank = 0; rank < ranks; ++rank)
    for (std::size_t i = 0; i < count; ++i) sums[i] += values_of(rank, count)[i];
  return sums;
}
/// Every rank's values, one after the other.
std::vector<float> joined(int ranks, std::size_t count) {
  std::vector<float> all;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto values = values_of(rank, count);
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}
std::vector<float> part(const std::vector<float>& all, std::size_t first, std::size_t count) {
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(first);
  return {begin, begin + static_cast<std::ptrdiff_t>(count)};
}

/// Buffers that are filled just before a call and overwritten just after it, with nothing but the stream to order that.
class hasty {
 public:
  hasty(cuda_thread_communicator& comm, cuda_space::stream stream) : comm_(comm), stream_(stream) {}

  /// `call(in, out)`, and what `out` holds after it.
  template <class Call>
  std::vector<float> operator()(const std::vector<float>& in, std::size_t out_count, Call call) {
    device_buffer<float> from(in.size()), to(out_count);
    const auto kept = in;
    cuda_space::copy(from.data(), kept.data(), kept.size() * sizeof(float), stream_);
    cuda_space::fill_bytes(to.data(), 0, to.size() * sizeof(float), stream_);
    call(from, to);
    cuda_space::fill_bytes(from.data(), 1, from.size() * sizeof(float), stream_);
    std::vector<float> result(out_count);
    cuda_space::copy(result.data(), to.data(), to.size() * sizeof(float), stream_);
    cuda_space::fill_bytes(to.data(), 2, to.size() * sizeof(float), stream_);
    synchronize(stream_, 20, comm_);
    return result;
  }

 private:
  cuda_thread_communicator& comm_;
  cuda_space::stream stream_;
};

}  // namespace

TEST_CASE("Buffers may be filled just before a call and overwritten just after it") {
  for (const placement& where : placements) {
    over_world(where, [](cuda_thread_communicator& world, cuda_space::stream stream) {
      hasty run(world, stream);
      const int size = world.size(), me = world.rank(), last = size - 1;
      const auto ranks = static_cast<std::size_t>(size), mine = static_cast<std::size_t>(me);
      const bool is_last = me == last;
      for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{211}}) {
        CAPTURE(n);
        const auto values = values_of(me, n), all = joined(size, n), sums = summed(size, n);
        const auto wide_sums = summed(size, n * ranks);
        const auto layout = partition::balanced(n, size);
        using buffer_ref = device_buffer<float>&;
        CHECK(run(values, n, [&](buffer_ref in, buffer_ref out) { world.all_reduce(in, out, sum, stream); }) == sums);
        CHECK(run(values, n, [&](buffer_ref in, buffer_ref out) {
                world.all_reduce(in_place(in), sum, stream);
                cuda_space::copy(out.data(), in.data(), n * sizeof(float), stream);
              }) == sums);
        CHECK(run(values, is_last ? n : 0, [&](buffer_ref in, buffer_ref out) {
                world.reduce(in, out, sum, last, stream);
              }) == (is_last ? sums : std::vector<float>()));
        CHECK(run(values_of(me, n * ranks), n, [&](buffer_ref in, buffer_ref out) {
                world.reduce_scatter(in, out, sum, stream);
              }) == part(wide_sums, mine * n, n));
        CHECK(run(values, layout.count(me), [&](buffer_ref in, buffer_ref out) {
                world.reduce_scatter(in, out, sum, layout, stream);
              }) == part(sums, layout.offset(me), layout.count(me)));
        CHECK(run(values, n * ranks, [&](buffer_ref in, buffer_ref out) { world.all_gather(in, out, stream); }) == all);
        CHECK(run(part(values_of(0, n), layout.offset(me), layout.count(me)), n, [&](buffer_ref in, buffer_ref out) {
                world.all_gather(in, out, layout, stream);
              }) == values_of(0, n));
        CHECK(run(values, is_last ? n * ranks : 0, [&](buffer_ref in, buffer_ref out) {
                world.gather(in, out, last, stream);
              }) == (is_last ? all : std::vector<float>()));
        CHECK(run(is_last ? all : std::vector<float>(), n,
                  [&](buffer_ref in, buffer_ref out) { world.scatter(in, out, last, stream); }) == values);
        CHECK(run(is_last ? values : std::vector<float>(), layout.count(me), [&](buffer_ref in, buffer_ref out) {
                world.scatter(in, out, layout, last, stream);
              }) == part(values_of(last, n), layout.offset(me), layout.count(me)));
        std::vector<float> turned, taken;
        for (int rank = 0; rank < size; ++rank) {
          const auto theirs = values_of(rank, n * ranks);
          const auto block = part(theirs, mine * n, n), share = part(theirs, layout.offset(me), layout.count(me));
          turned.insert(turned.end(), block.begin(), block.end());
          taken.insert(taken.end(), share.begin(), share.end());
        }
        CHECK(run(values_of(me, n * ranks), n * ranks,
                  [&](buffer_ref in, buffer_ref out) { world.all_to_all(in, out, stream); }) == turned);
        std::vector<std::size_t> bounds(ranks + 1);
        for (std::size_t rank = 0; rank <= ranks; ++rank) bounds[rank] = rank * layout.count(me);
        const auto from_each = partition::from_bounds(bounds);
        CHECK(run(part(values_of(me, n * ranks), 0, n), taken.size(), [&](buffer_ref in, buffer_ref out) {
                world.all_to_all(in, layout, out, from_each, stream);
              }) == taken);
        CHECK(run(part(values_of(0, n), layout.offset(me), layout.count(me)), is_last ? n : 0,
                  [&](buffer_ref in, buffer_ref out) { world.gather(in, out, layout, last, stream); }) ==
              (is_last ? values_of(0, n) : std::vector<float>()));
        CHECK(run(is_last ? values : std::vector<float>(n), n, [&](buffer_ref in, buffer_ref out) {
                world.broadcast(in, last, stream);
                cuda_space::copy(out.data(), in.data(), n * sizeof(float), stream);
              }) == values_of(last, n));
        CHECK(run(values, n, [&](buffer_ref in, buffer_ref out) {
                world.send_recv(in, (me + 1) % size, out, (me + last) % size, stream);
              }) == values_of((me + last) % size, n));
      }
    });
  }
}

TEST_CASE("Streams of all ranks go on from a barrier when all have come to it") {
  for (const placement& where : placements) {
    std::vector<device_buffer<float>*> shown(static_cast<std::size_t>(where.ranks));
    over_world(where, [&](cuda_thread_communicator& world, cuda_space::stream stream) {
      device_buffer<float> mine(100), theirs(100);
      shown[static_cast<std::size_t>(world.rank())] = &mine;
      cuda_space::fill_bytes(mine.data(), 0, mine.size() * sizeof(float), stream);
      world.barrier(stream);
      const auto* from = shown[static_cast<std::size_t>((world.rank() + 1) % world.size())];
      cuda_space::copy(theirs.data(), from->data(), theirs.size() * sizeof(float), stream);
      world.barrier(stream);
      cuda_space::fill_bytes(mine.data(), 1, mine.size() * sizeof(float), stream);
      CHECK(fetched(theirs, stream, world) == std::vector<float>(100));
    });
  }
}

TEST_CASE("Calls on several streams take effect in program order") {
  for (const placement& where : placements) {
    over_world(where, [](cuda_thread_communicator& world, cuda_space::stream first) {
      const cuda_stream second, third;
      const int size = world.size(), me = world.rank();
      const std::size_t n = 64;
      auto x = on_device_now(values_of(me, n), first);
      device_buffer<float> all(n * static_cast<std::size_t>(size)), next(n);
      world.all_reduce(in_place(x), sum, first);
      world.all_gather(x, all, second);
      world.send_recv(x, (me + 1) % size, next, (me + size - 1) % size, third);
      world.broadcast(x, 0, first);
      world.all_reduce(in_place(next), maximum, second);
      const auto sums = summed(size, n);
      CHECK(fetched(next, second, world) == sums);
      CHECK(fetched(x, first, world) == sums);
      CHECK(part(fetched(all, second, world), n * static_cast<std::size_t>(size - 1), n) == sums);
    });
  }
}

TEST_CASE("Calls from several threads, each on its own default stream, take effect in program order") {
  for (const placement& where : placements) {
    over_world(where, [](cuda_thread_communicator& world, cuda_space::stream stream) {
      const int me = world.rank(), device = current_cuda_device();
      auto x = on_device_now(values_of(me, 50), stream);
      device_buffer<float> all(50 * static_cast<std::size_t>(world.size()));
      world.all_reduce(in_place(x), sum, cudaStreamPerThread);
      std::thread([&] {
        const cuda_device_guard same(device);
        world.all_gather(x, all, cudaStreamPerThread);
        CHECK(part(fetched(all, cudaStreamPerThread, world), 0, 50) == summed(world.size(), 50));
      }).join();
      synchronize(cudaStreamPerThread, 20, world);
    });
  }
}

TEST_CASE("The default stream will do, also where ranks share it") {
  for (const placement& where : placements) {
    over_world(where, [](cuda_thread_communicator& world, cuda_space::stream stream) {
      auto x = on_device_now(values_of(world.rank(), 50), stream);
      device_buffer<float> next(50);
      world.all_reduce(in_place(x), sum);
      world.send_recv(x, (world.rank() + 1) % world.size(), next, (world.rank() + world.size() - 1) % world.size());
      CHECK(fetched(next, cuda_space::stream(), world) == summed(world.size(), 50));
    });
  }
}

TEST_CASE("Started calls run on a second stream and are joined by the first") {
  for (const placement& where : placements) {
    over_world(where, [](cuda_thread_communicator& world, cuda_space::stream compute) {
      const cuda_stream communication;
      const shardkit::fork streams{compute, communication};
      const int size = world.size(), me = world.rank();
      const std::size_t n = 300;
      device_buffer<float> a(n), b(n), from(n);
      const auto values = values_of(me, n);
      for (int round = 0; round < 3; ++round) {
        cuda_space::copy(a.data(), values.data(), n * sizeof(float), compute);
        cuda_space::copy(b.data(), values.data(), n * sizeof(float), compute);
        // Ranks wait in different orders: what is under way goes on in every wait.
        request first = world.all_reduce_async(in_place(a), sum, streams);
        request message = world.send_recv_async(b, (me + 1) % size, from, (me + size - 1) % size, streams);
        if (me % 2 == 0) first.wait();
        message.wait();
        cuda_space::fill_bytes(b.data(), 0, n * sizeof(float), compute);
        first.wait();
        CHECK(fetched(a, compute, world) == summed(size, n));
        CHECK(fetched(from, compute, world) == values_of((me + size - 1) % size, n));
      }
    });
  }
}

TEST_CASE("Reductions have the bits of thread ranks on host memory, for every type") {
  const auto compare = [](auto zero, reduction op) {
    using element = decltype(zero);
    const std::size_t n = 1031;
    on_devices({3, 2}, [&](thread_communicator& threads) {
      std::vector<element> values(n), wanted(n);
      for (std::size_t i = 0; i < n; ++i)
        values[i] = static_cast<element>(
            0.37f * static_cast<float>((i * 7 + static_cast<std::size_t>(threads.rank())) % 89) - 3.1f);
      threads.all_reduce(values, wanted, op);
      auto world = cuda_thread_world(threads, with_kernel());
      const cuda_stream stream;
      const auto x = on_device_now(values, stream);
      device_buffer<element> y(n);
      world.all_reduce(x, y, op, stream);
      const auto got = fetched(y, stream, world);
      CHECK(std::memcmp(got.data(), wanted.data(), n * sizeof(element)) == 0);
    });
  };
  compare(float16{}, sum);
  compare(bfloat16{}, average);
  compare(bfloat16{}, sum);
  compare(0.0f, product);
  compare(0.0, minimum);
  compare(std::int16_t{}, bit_xor);
}

TEST_CASE("8-bit floats are moved, and their reduction is refused on every rank") {
  const auto refuses = [](auto zero) {
    using element = decltype(zero);
    on_devices({2, 2}, [](thread_communicator& threads) {
      auto world = cuda_thread_world(threads, with_kernel());
      const cuda_stream stream;
      const auto mine = static_cast<element>(0x30 + threads.rank());
      const auto x = on_device_now(std::vector<element>(5, mine), stream);
      device_buffer<element> all(10), y(5);
      world.all_gather(x, all, stream);
      const auto got = fetched(all, stream, world);
      CHECK(static_cast<int>(got[4]) == 0x30);
      CHECK(static_cast<int>(got[5]) == 0x31);
      threads.barrier();  // nobody fails while another still looks
      CHECK_THROWS_WITH_AS(world.all_reduce(x, y, sum, stream), doctest::Contains("is not defined"), error);
    });
  };
  refuses(small_float{});
  refuses(wide_float{});
}

TEST_CASE("Pinned and managed memory takes part as device memory does") {
  on_devices({2, 2}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    buffer<float, pinned_space> in(10);
    buffer<float, managed_space> out(20);
    for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(threads.rank());
    world.all_gather(in, out, stream);
    synchronize(stream, 20, world);
    CHECK(out[9] == 0.0f);
    CHECK(out[10] == 1.0f);
  });
}

TEST_CASE("Calls allocate nothing and wait for nothing but their peers") {
  if (!shardkit_double::active()) return;
  const auto counted = [](int device) {
    int all = 0;
    for (const char* function : {"cudaMalloc", "cudaMallocHost", "cudaFree", "cudaEventCreateWithFlags",
                                 "cudaEventQuery", "cudaStreamQuery", "cudaStreamSynchronize", "cudaEventSynchronize",
                                 "cudaDeviceSynchronize", "cudaPointerGetAttributes", "cudaStreamCreateWithPriority"})
      all += shardkit_double::calls(function, device);
    return all;
  };
  for (const placement& where : {placement{3, 3}, {3, 3, false}}) {
    over_world(where, [&](cuda_thread_communicator& world, cuda_space::stream stream) {
      const int size = world.size(), me = world.rank();
      device_buffer<float> x(40), y(40), all(40 * static_cast<std::size_t>(size));
      cuda_space::fill_bytes(x.data(), 0, 40 * sizeof(float), stream);
      const int before = counted(me);
      for (int round = 0; round < 10; ++round) {
        world.all_reduce(in_place(x), sum, stream);
        world.all_gather(x, all, stream);
        for (int i = 0; i < 3; ++i) world.send_recv(x, (me + 1) % size, y, (me + size - 1) % size, stream);
        world.all_reduce_async(in_place(x), sum, stream).wait();
        world.barrier(stream);
      }
      CHECK(counted(me) == before);
      synchronize(stream, 20, world);
    });
  }
}

TEST_CASE("Decorators and erasure work over it, and so do its children") {
  on_devices({4, 2}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    auto rows = world.split(threads.rank() / 2, -threads.rank());
    any_communicator<cuda_space> erased = erase(with_checks(std::move(world)));
    const cuda_stream stream;
    auto x = on_device_now(values_of(threads.rank(), 9), stream);
    auto y = on_device_now(values_of(threads.rank(), 9), stream);
    erased.all_reduce(in_place(x), sum, stream);
    rows.all_reduce(in_place(y), sum, stream);
    erased.group(
        [&](auto& g) {
          g.all_reduce(in_place(x), maximum);
          g.with(rows).broadcast(y, 1);
        },
        stream);
    CHECK(fetched(x, stream, erased) == summed(4, 9));
    const float first = static_cast<float>((threads.rank() / 2) * 4000 + 1000);
    CHECK(fetched(y, stream, rows)[0] == first);
    CHECK(rows.exchange(threads.rank())[0] == threads.rank() / 2 * 2 + 1);
  });
}
