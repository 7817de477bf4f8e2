// What is NCCL's own beside the conformance suite: where communicators come from, what calls become, groups, streams.
#include "ranks.hpp"

#include <double/nccl_control.hpp>
#include <shardkit/backends/nccl_registration.hpp>
#include <shardkit/launch/thread_bootstrap.hpp>

#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// An 8-bit float of the engine's own.
struct small_float {
  std::uint8_t bits;
};
template <>
struct shardkit::dtype_traits<small_float> {
  static constexpr dtype value = dtype::f8e4m3;
};

namespace {

using namespace nccl_test;

std::vector<float> ramp(std::size_t count, float first = 0) {
  std::vector<float> all(count);
  std::iota(all.begin(), all.end(), first);
  return all;
}
float of(int number) { return static_cast<float>(number); }

/// A communicator of all ranks made by NCCL's own functions, as an engine has one already.
ncclComm_t raw_communicator(const nccl_api& api, thread_communicator& host) {
  struct identity {
    char bytes[sizeof(ncclUniqueId)];
  } mine{};
  ncclUniqueId id;
  if (host.is_root()) {
    REQUIRE(api.get_unique_id(&id) == ncclSuccess);
    std::memcpy(mine.bytes, &id, sizeof id);
  }
  std::memcpy(&id, host.exchange(mine).front().bytes, sizeof id);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t comm = nullptr;
  ncclResult_t result = api.comm_init_rank_config(&comm, host.size(), id, host.rank(), &config);
  while (result == ncclInProgress) REQUIRE(api.comm_get_async_error(comm, &result) == ncclSuccess);
  REQUIRE(result == ncclSuccess);
  return comm;
}

template <class Body>
std::string text_of(Body body) {
  try {
    body();
  } catch (const error& failure) {
    return failure.what();
  }
  return "nothing was thrown";
}
bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a communicator of one rank does every verb, with kernels or without") {
  if (rank_counts({1}).empty()) return;
  on_devices(1, [](thread_communicator&) {
    nccl_options options = options_with_kernel();
    options.ordered_reduce = nullptr;
    auto alone = nccl_world(options);
    cuda_stream stream;
    auto x = on_device_now(ramp(5), stream.handle());
    device_buffer<float> y(5);
    alone.all_reduce(x, y, by_rank(maximum), stream);
    alone.reduce_scatter(y, x, product, stream);
    alone.reduce_scatter(x, y, by_rank(sum), partition::balanced(5, 1), stream);
    alone.gather(y, x, 0, stream);
    alone.all_to_all(x, y, stream);
    alone.send_recv(y, 0, x, 0, stream);
    alone.barrier(stream);
    CHECK(fetched(x, stream.handle(), alone) == ramp(5));
    CHECK(alone.exchange(7) == std::vector<int>{7});
    CHECK(alone.split(3).size() == 1);
  });
  expect_clean();
}

TEST_CASE("a NCCL communicator can be adopted, and is destroyed with its adopter") {
  for (int ranks : rank_counts({1, 2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      const nccl_options options = options_with_kernel();
      auto comm = nccl_adopt(raw_communicator(options.api, host), host, options);
      CHECK(comm.rank() == host.rank());
      CHECK(comm.size() == host.size());
      cuda_stream stream;
      auto x = on_device_now(ramp(4), stream.handle());
      comm.all_reduce(in_place(x), sum, stream);
      CHECK(fetched(x, stream.handle(), comm)[3] == of(3 * host.size()));
    });
    if (shardkit_double::active()) CHECK(shardkit_double::nccl::live_communicators() == 0);
  }
  expect_clean();
}

TEST_CASE("a borrowed NCCL communicator stays the engine's, also after a failure") {
  for (int ranks : rank_counts({2, 3})) {
    for (const bool fails : {false, true})
      on_devices(ranks, [&](thread_communicator& host) {
        const nccl_options options = options_with_kernel();
        const ncclComm_t own = raw_communicator(options.api, host);
        {
          auto comm = nccl_borrow(own, host, options);
          CHECK(comm.backend().native_handle() == own);
          auto part = comm.split(host.rank() % 2);
          cuda_stream stream;
          auto x = on_device_now(ramp(4, 1), stream.handle());
          comm.all_reduce(in_place(x), sum, stream);
          part.barrier(stream);
          CHECK(fetched(x, stream.handle(), comm, part)[0] == of(host.size()));
          host.barrier();
          if (fails) {
            comm.fail("on purpose");
            CHECK(comm.backend().native_handle() == nullptr);
            CHECK_THROWS_AS(comm.barrier(stream), peer_failed);
          }
        }
        ncclResult_t state = ncclSuccess;
        CHECK(options.api.comm_get_async_error(own, &state) == ncclSuccess);
        CHECK(state == ncclSuccess);
        CHECK(options.api.comm_destroy(own) == ncclSuccess);
      });
    if (shardkit_double::active()) CHECK(shardkit_double::nccl::live_communicators() == 0);
  }
  expect_clean();
}

TEST_CASE("a communicator of another size than its host is refused") {
  if (rank_counts({2}).empty()) return;
  on_devices(2, [](thread_communicator& host) {
    const nccl_options options = options_with_kernel();
    const ncclComm_t own = raw_communicator(options.api, host);
    auto alone = host.split(host.rank());
    CHECK(contains(text_of([&] { nccl_borrow(own, alone, options); }), "the ranks of both have to be the same"));
    CHECK(options.api.comm_destroy(own) == ncclSuccess);
  });
  expect_clean();
}

TEST_CASE("the id travels through a bootstrap; metadata then have no way") {
  for (int ranks : rank_counts({1, 2, 3})) {
    thread_meeting_place place(ranks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
      threads.emplace_back([&, rank] {
        cuda_check(cudaSetDevice(rank), "cudaSetDevice");
        thread_bootstrap start(place, rank);
        auto world = nccl_world(start, options_with_kernel());
        cuda_stream stream;
        auto x = on_device_now(ramp(3, 1), stream.handle());
        world.all_reduce(in_place(x), sum, stream);
        CHECK(fetched(x, stream.handle(), world)[2] == of(3 * ranks));
        CHECK(contains(text_of([&] { world.exchange(1); }), "make it from a communicator of threads, MPI or TCP"));
        CHECK(contains(text_of([&] { world.control(); }), "needs a host communicator"));
        auto part = world.split(0, -rank);
        CHECK(part.rank() == ranks - 1 - rank);
      });
    for (auto& thread : threads) thread.join();
  }
  expect_clean();
}

TEST_CASE("gather, scatter and all_to_all are grouped messages where NCCL has no such calls") {
  const auto run = [](thread_communicator& host, const nccl_options& options, bool native) {
    auto world = nccl_world(host, options);
    const int ranks = host.size(), me = host.rank();
    const auto n = static_cast<std::size_t>(ranks);
    cuda_stream stream;
    const auto how = native ? nccl_lowering::one_call : nccl_lowering::grouped_messages;
    const nccl_backend& backend = world.backend();
    CHECK(backend.lowering(gather_call{nullptr, nullptr, 1, dtype::f32, 0, nullptr, {}}) == how);
    CHECK(backend.lowering(scatter_call{nullptr, nullptr, 1, dtype::f32, 0, nullptr, {}}) == how);
    CHECK(backend.lowering(all_to_all_call{nullptr, nullptr, 1, dtype::f32, nullptr, {}}) == how);
    auto mine = on_device_now(std::vector<float>{of(me), of(me + 10)}, stream.handle());
    device_buffer<float> all(me == ranks - 1 ? 2 * n : 0), back(2), turned(n);
    auto row = on_device_now(ramp(n, of(100 * me)), stream.handle());
    world.gather(mine, all, ranks - 1, stream);
    world.scatter(all, back, ranks - 1, stream);
    world.all_to_all(row, turned, stream);
    CHECK(fetched(back, stream.handle(), world) == std::vector<float>{of(me), of(me + 10)});
    const auto column = fetched(turned, stream.handle(), world);
    for (std::size_t r = 0; r < n; ++r) CHECK(column[r] == static_cast<float>(100 * r) + of(me));
    if (me == ranks - 1) CHECK(fetched(all, stream.handle(), world)[2 * n - 1] == of(me + 10));
  };
  for (int ranks : rank_counts({2, 3, 4})) {
    // By the version of the library, by the functions that it has, by the headers.
    for (int way = 0; way < 3; ++way) {
      if (way == 1 && !shardkit_double::active()) continue;
      if (way == 1) shardkit_double::nccl::set_version(22703);
      on_devices(ranks, [&](thread_communicator& host) {
        nccl_options options = options_with_kernel();
        if (way == 2) options.api.gather = options.api.scatter = nullptr, options.api.all_to_all = nullptr;
        run(host, options, way == 0 && options.api.version() >= 22800);
      });
      if (way == 1) shardkit_double::nccl::set_version(NCCL_VERSION_CODE);
    }
  }
  expect_clean();
}

TEST_CASE("unequal counts take the equal-count call where they are equal, and else groups") {
  for (int ranks : rank_counts({2, 3}))
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      const nccl_backend& backend = world.backend();
      const int n = host.size();
      const auto even = partition::balanced(static_cast<std::size_t>(4 * n), n);
      const auto odd = partition::balanced(static_cast<std::size_t>(4 * n + 1), n);
      const auto none = partition::balanced(0, n);
      const auto gathered = [&](const partition& layout) {
        return backend.lowering(all_gather_uneven_call{nullptr, nullptr, &layout, dtype::f32, nullptr, {}});
      };
      const auto reduced = [&](const partition& layout, reduction op) {
        return backend.lowering(
            reduce_scatter_uneven_call{nullptr, nullptr, &layout, dtype::f32, op, nullptr, nullptr, {}});
      };
      CHECK(gathered(even) == nccl_lowering::one_call);
      CHECK(gathered(odd) == nccl_lowering::grouped_broadcasts);
      CHECK(gathered(none) == nccl_lowering::nothing);
      CHECK(reduced(even, sum) == nccl_lowering::one_call);
      CHECK(reduced(odd, sum) == nccl_lowering::grouped_reductions);
      CHECK(reduced(odd, by_rank(sum)) == nccl_lowering::gather_and_combine);
      CHECK(std::string(name_of(reduced(odd, sum))) == "grouped reductions");
      CHECK(backend.lowering(all_reduce_call{nullptr, nullptr, 4, dtype::f32, maximum, nullptr, nullptr, {}}) ==
            nccl_lowering::gather_and_combine);
      // The same number of NCCL's calls as it says.
      if (!shardkit_double::active()) return;
      cuda_stream stream;
      host.barrier();
      const int before = shardkit_double::calls("ncclBroadcast", host.rank());
      device_buffer<float> all(odd.total());
      cuda_space::fill_bytes(all.data(), 0, all.size() * sizeof(float), stream);
      world.all_gather(in_place(all), odd, stream);
      CHECK(shardkit_double::calls("ncclBroadcast", host.rank()) - before == n);
      synchronize(stream, 20, world);
    });
  expect_clean();
}

TEST_CASE("a group of more than 1024 operations goes in several, cut alike on all ranks") {
  for (int ranks : rank_counts({2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      const int size = host.size(), me = host.rank();
      constexpr std::size_t messages = 700;
      cuda_stream stream;
      const auto n = static_cast<std::size_t>(size);
      std::vector<float> values(messages * n);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = of(me * 10000) + static_cast<float>(i);
      auto out = on_device_now(values, stream.handle());
      device_buffer<float> in(values.size());
      auto totals = on_device_now(std::vector<float>(1500, 1.0f), stream.handle());
      const auto one = [](device_buffer<float>& of_all, std::size_t i) { return view_of(of_all).subview(i, 1); };
      world.group(
          [&](auto& g) {
            for (std::size_t k = 0; k < messages; ++k)
              for (int peer = 0; peer < size; ++peer) {
                if (peer == me) continue;
                g.send(one(out, static_cast<std::size_t>(peer) * messages + k), peer);
              }
            for (std::size_t i = 0; i < totals.size(); ++i) g.all_reduce(in_place(one(totals, i)), sum);
            // All receives after all sends: cut in this order, each rank would wait for the others' next group.
            for (int peer = 0; peer < size; ++peer)
              for (std::size_t k = 0; k < messages; ++k)
                if (peer != me) g.recv(one(in, static_cast<std::size_t>(peer) * messages + k), peer);
          },
          stream);
      const auto got = fetched(in, stream.handle(), world), sums = fetched(totals, stream.handle(), world);
      for (int peer = 0; peer < size; ++peer)
        for (std::size_t k = 0; k < messages; ++k)
          if (peer != me)
            REQUIRE(got[static_cast<std::size_t>(peer) * messages + k] ==
                    of(peer * 10000) + static_cast<float>(static_cast<std::size_t>(me) * messages + k));
      CHECK(sums == std::vector<float>(1500, of(size)));
    });
  }
  expect_clean();
}

TEST_CASE("groups of communicators on one stream are enqueued alike, whichever way ranks list them") {
  for (int ranks : rank_counts({2, 3, 4})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      auto other = world.split(0, -host.rank()), third = world.split(0);
      cuda_stream stream;
      for (int round = 0; round < 4; ++round) {
        auto x = on_device_now(ramp(8, 1), stream.handle()), y = on_device_now(ramp(8, 1), stream.handle());
        auto z = on_device_now(ramp(8, 1), stream.handle());
        const auto list = [&](auto& a, auto& b, auto& c) {
          a.all_reduce(in_place(x), sum);
          b.all_reduce(in_place(y), sum);
          c.all_reduce(in_place(z), sum);
        };
        switch ((host.rank() + round) % 3) {
          case 0: world.group([&](auto& g) { list(g, g.with(other), g.with(third)); }, stream); break;
          case 1: other.group([&](auto& g) { list(g.with(world), g, g.with(third)); }, stream); break;
          default: third.group([&](auto& g) { list(g.with(world), g.with(other), g); }, stream); break;
        }
        const float total = of(host.size());
        CHECK(fetched(x, stream.handle(), world)[0] == total);
        CHECK(fetched(y, stream.handle(), world)[7] == 8 * total);
        CHECK(fetched(z, stream.handle(), world)[1] == 2 * total);
      }
    });
  }
  expect_clean();
}

TEST_CASE("what NCCL does not do is refused with the remedy where there is no kernel") {
  if (rank_counts({2}).empty()) return;
  const auto refusal = [](auto call) {
    std::string text;
    std::mutex writing;
    on_devices(2, [&](thread_communicator& host) {
      nccl_options options = options_with_kernel();
      options.ordered_reduce = nullptr;
      const std::string mine = text_of([&] {
        auto world = nccl_world(host, options);
        call(world);
      });
      const std::lock_guard<std::mutex> lock(writing);
      if (!contains(mine, "failed:")) text = mine;  // the other rank may hear of the first one's failure
    });
    return text;
  };
  device_buffer<float> x(4);
  device_buffer<int> i(4);
  device_buffer<short> s(4);
  CHECK(contains(refusal([&](auto& world) { world.all_reduce(in_place(x), by_rank(sum)); }), "or leave out by_rank"));
  CHECK(contains(refusal([&](auto& world) { world.all_reduce(in_place(x), maximum); }), "native_extremes"));
  CHECK(contains(refusal([&](auto& world) { world.all_reduce(in_place(i), bit_xor); }), "bit_xor of i32"));
  CHECK(contains(refusal([&](auto& world) { world.all_reduce(in_place(s), sum); }), "nccl_options::ordered_reduce"));
  CHECK(contains(refusal([&](auto& world) { world.send(x, world.rank()); }), "use send_recv, or put both sides"));
  x = {}, i = {}, s = {};
  expect_clean();
}

TEST_CASE("native extremes and 8-bit floats are NCCL's own") {
  for (int ranks : rank_counts({2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      nccl_options options = options_with_kernel();
      options.ordered_reduce = nullptr;
      options.native_extremes = true;
      auto world = nccl_world(host, options);
      cuda_stream stream;
      auto x = on_device_now(std::vector<float>{of(host.rank()), -of(host.rank())}, stream.handle());
      world.all_reduce(in_place(x), maximum, stream);
      CHECK(fetched(x, stream.handle(), world) == std::vector<float>{of(host.size() - 1), 0});
      auto ones = on_device_now(std::vector<small_float>(3, {0x38}), stream.handle());  // 1.0
      world.all_reduce(in_place(ones), sum, stream);
      CHECK(fetched(ones, stream.handle(), world)[2].bits == (host.size() == 2 ? 0x40 : 0x44));  // 2.0, 3.0
    });
  }
  expect_clean();
}

TEST_CASE("a reduction in rank order goes through a small workspace in pieces, on several streams") {
  for (int ranks : rank_counts({2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      nccl_options options = options_with_kernel();
      options.workspace_bytes = 7 * sizeof(float) * static_cast<std::size_t>(host.size()) + 3;
      auto world = nccl_world(host, options);
      cuda_stream first, second;
      const auto n = static_cast<std::size_t>(host.size());
      auto x = on_device_now(ramp(50, 1), first.handle()), y = on_device_now(ramp(9 * n, 1), second.handle());
      device_buffer<float> z(9);
      world.all_reduce(in_place(x), by_rank(sum), first);
      world.reduce_scatter(y, z, by_rank(sum), second);
      world.reduce(in_place(x), by_rank(sum), 0, first);
      const auto sums = fetched(x, first.handle(), world), parts = fetched(z, second.handle(), world);
      const float total = of(host.size());
      CHECK(sums[49] == 50 * total * (host.is_root() ? total : 1));
      CHECK(parts[8] == static_cast<float>(9 * host.rank() + 9) * total);
    });
  }
  expect_clean();
}

TEST_CASE("registered buffers are reduced as others are") {
  for (int ranks : rank_counts({1, 2})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream stream;
      auto x = on_device_now(ramp(64, 1), stream.handle());
      {
        nccl_registration first(world, view_of(x));
        nccl_registration registered = std::move(first);
        world.all_reduce(in_place(x), sum, stream);
        CHECK(fetched(x, stream.handle(), world)[63] == 64 * of(host.size()));
      }
      nccl_registration outlives(world, view_of(x));
      host.barrier();
      if (host.is_root()) world.fail("on purpose");
    });
  }
  expect_clean();
}

TEST_CASE("a call on two streams runs beside the first one, which waits for it in time") {
  for (int ranks : rank_counts({1, 2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream compute, communication;
      device_buffer<float> gradients(300);
      const std::vector<float> backward = ramp(300, 1);
      for (int step = 0; step < 3; ++step) {
        put(gradients, backward, compute.handle());
        auto pending = world.all_reduce_async(in_place(gradients), sum, shardkit::fork{compute, communication});
        pending.wait();
        CHECK(fetched(gradients, compute.handle(), world)[299] == 300 * of(host.size()));
      }
    });
  }
  expect_clean();
}

TEST_CASE("a gradient sum that does not wait for the backward pass is a race, and the double says so") {
  if (!shardkit_double::active()) return;
  rank_counts({2});
  on_devices(2, [](thread_communicator& host) {
    auto world = nccl_world(host, options_with_kernel());
    cuda_stream compute, communication;
    device_buffer<float> gradients(300);
    const std::vector<float> ones(300, 1.0f);
    put(gradients, ones, compute.handle());  // stands for the backward pass
    // No fork: the communication stream knows nothing of the compute stream.
    world.all_reduce(in_place(gradients), sum, communication);
    synchronize(communication, 20, world);
    synchronize(compute, 20, world);
  });
  bool raced = false;
  for (const auto& one : shardkit_double::reset()) raced = raced || one.kind == shardkit_double::report_kind::race;
  CHECK(raced);
}

TEST_CASE("NCCL's functions may be those of a library that is loaded at run time") {
  void* const function = ::dlsym(RTLD_DEFAULT, "ncclAllReduce");
  Dl_info library{};
  REQUIRE(::dladdr(function, &library) != 0);
  for (int ranks : rank_counts({1, 2}))
    on_devices(ranks, [&](thread_communicator& host) {
      nccl_options options = options_with_kernel();
      options.api = nccl_api::load(library.dli_fname);
      CHECK(reinterpret_cast<void*>(options.api.all_reduce) == function);
      auto world = nccl_world(host, options);
      cuda_stream stream;
      auto x = on_device_now(std::vector<float>(8, 1.0f), stream.handle());
      device_buffer<float> all(8 * static_cast<std::size_t>(ranks));
      world.all_reduce(in_place(x), sum, stream);
      world.gather(x, all, 0, stream);
      const auto gathered = fetched(all, stream.handle(), world);
      if (host.is_root()) CHECK(gathered.back() == static_cast<float>(ranks));
    });
  expect_clean();
}

TEST_CASE("a library that is not there or not NCCL is refused with the remedy") {
  CHECK(contains(text_of([] { nccl_api::load("libno_such_nccl.so.7"); }), "install NCCL 2.19 or newer"));
  CHECK(contains(text_of([] { nccl_api::load("libc.so.6"); }), "libc.so.6 has no ncclGetVersion"));
}

TEST_CASE("ranks that use different versions are told so") {
  if (rank_counts({2}).empty()) return;
  std::vector<std::string> texts(2);
  on_devices(2, [&](thread_communicator& host) {
    nccl_options options = options_with_kernel();
    if (!host.is_root()) options.api.get_version = [](int* version) { return *version = 21903, ncclSuccess; };
    texts[static_cast<std::size_t>(host.rank())] = text_of([&] { nccl_world(host, options); });
  });
  CHECK(contains(texts[1], "this rank 2.19.3; load the same library on all ranks"));
  CHECK(contains(texts[0], "rank 1 failed: rank 0 uses NCCL"));
  expect_clean();
}
