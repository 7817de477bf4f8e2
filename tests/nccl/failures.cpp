// What happens when a rank, NCCL or the device fails: everybody hears of it in time, everything is stopped once, in the
// right order, and nothing is left over.
#include "ranks.hpp"

#include <double/nccl_control.hpp>
#include <shardkit/backends/nccl_watchdog.hpp>
#include <shardkit/comm/checked.hpp>
#include <shardkit/launch/thread_bootstrap.hpp>

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace nccl_test;

/// What a rank threw: its type in a word, and its text.
struct verdict {
  std::string kind = "nothing", text;
  double seconds = 0;
};

template <class Body>
verdict verdict_of(Body body) {
  const double start = detail::now_seconds();
  verdict result;
  const auto note = [&](const char* kind, const std::exception& failure) {
    result = {kind, failure.what(), detail::now_seconds() - start};
  };
  try {
    body();
  } catch (const peer_failed& failure) {
    note("peer_failed", failure);
  } catch (const timeout_error& failure) {
    note("timeout_error", failure);
  } catch (const mismatch_error& failure) {
    note("mismatch_error", failure);
  } catch (const nccl_error& failure) {
    note("nccl_error", failure);
  } catch (const cuda_error& failure) {
    note("cuda_error", failure);
  } catch (const std::exception& failure) {
    note("another exception", failure);
  }
  return result;
}

/// body(host) on every rank; what each of them threw. The other ranks hear of it as under a launcher: the exception
/// passes run_ranks.
template <class Body>
std::vector<verdict> verdicts(int ranks, Body body) {
  std::vector<verdict> all(static_cast<std::size_t>(ranks));
  try {
    on_devices(ranks, [&](thread_communicator& host) {
      std::exception_ptr thrown;
      all[static_cast<std::size_t>(host.rank())] = verdict_of([&] {
        try {
          body(host);
        } catch (...) {
          thrown = std::current_exception();
          throw;
        }
      });
      if (thrown) std::rethrow_exception(thrown);
    });
  } catch (const std::exception&) {
    // Told in the verdicts.
  }
  return all;
}

nccl_options impatient() {
  nccl_options options = options_with_kernel();
  options.limits.init = options.limits.operation = 0.4;
  options.limits.abort = 0.5;
  return options;
}

/// Declared after the buffers: they are not freed while something runs that uses them, also when an exception passes.
struct last_wait {
  cudaStream_t stream;
  ~last_wait() { (void)cudaStreamSynchronize(stream); }
};

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

/// The names of the functions that end communicators, in the order called, by all ranks.
struct ending {
  static inline std::mutex writing;
  static inline std::vector<std::string> called;
  static inline nccl_api real;

  static void note(const char* name) {
    const std::lock_guard<std::mutex> lock(writing);
    called.emplace_back(name);
  }
  static nccl_api watched(bool with_revoke) {
    real = nccl_api::of_program();
    called.clear();
    nccl_api api = real;
    api.comm_abort = [](ncclComm_t comm) { return note("abort"), real.comm_abort(comm); };
    api.comm_destroy = [](ncclComm_t comm) { return note("destroy"), real.comm_destroy(comm); };
    api.comm_finalize = [](ncclComm_t comm) { return note("finalize"), real.comm_finalize(comm); };
    api.comm_revoke = nullptr;
    if (with_revoke)
      api.comm_revoke = [](ncclComm_t comm, int flags) { return note("revoke"), real.comm_revoke(comm, flags); };
    return api;
  }
  static long count(const char* name) { return std::count(called.begin(), called.end(), name); }
};

}  // namespace

TEST_CASE("a rank that throws between calls ends the others with its name, and nothing is left") {
  for (int ranks : rank_counts({2, 3})) {
    const auto all = verdicts(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      auto part = world.split(0);
      cuda_stream stream;
      auto x = on_device_now(std::vector<float>(100, 1.0f), stream.handle());
      const last_wait until_done{stream.handle()};
      world.all_reduce(in_place(x), sum, stream);
      if (host.rank() == 1) throw std::runtime_error("out of ideas");
      part.all_reduce(in_place(x), sum, stream);
      synchronize(stream, 20, world, part);
    });
    for (int rank = 0; rank < ranks; ++rank) {
      const verdict& mine = all[static_cast<std::size_t>(rank)];
      CHECK_MESSAGE(mine.kind == (rank == 1 ? "another exception" : "peer_failed"), mine.text);
      if (rank != 1) CHECK_MESSAGE(contains(mine.text, "rank 1 failed"), mine.text);
      CHECK(mine.seconds < 5);
    }
    if (shardkit_double::active()) CHECK(shardkit_double::nccl::live_communicators() == 0);
  }
  expect_clean();
}

TEST_CASE("all communicators are stopped before the first is freed, each exactly once") {
  for (int ranks : rank_counts({2}))
    for (const bool with_revoke : {true, false}) {
      if (with_revoke && nccl_api::of_program().comm_revoke == nullptr) continue;
      nccl_options options = options_with_kernel();
      options.api = ending::watched(with_revoke);
      on_devices(ranks, [&](thread_communicator& host) {
        auto world = nccl_world(host, options);
        auto first = world.split(0), second = first.split(host.rank());
        cuda_stream stream;
        host.barrier();
        if (host.rank() == 0) world.fail("on purpose");
        CHECK(verdict_of([&] {
                for (;;) world.throw_if_failed();
              }).kind == "peer_failed");
        for (auto* comm : {&world, &first, &second}) {
          CHECK(comm->backend().native_handle() == nullptr);
          CHECK_THROWS_AS(comm->barrier(stream), peer_failed);
          CHECK_THROWS_AS(comm->split(0), peer_failed);
          comm->fail("again");
        }
      });
      CHECK(ending::count("abort") == 3 * ranks);
      CHECK(ending::count("revoke") == (with_revoke ? 3 * ranks : 0));
      CHECK(ending::count("destroy") == 0);
      CHECK(ending::count("finalize") == 0);
    }
  expect_clean();
}

TEST_CASE("what was revoked comes to rest before any of it is freed") {
  if (nccl_api::of_program().comm_revoke == nullptr || rank_counts({1}).empty()) return;
  // All of it happens in the one thread that stops a rank's communicators.
  static thread_local int busy = 0;
  static std::atomic<int> freed_too_early, freed;
  freed_too_early = freed = 0;
  nccl_options options = options_with_kernel();
  ending::real = options.api;
  options.api.comm_revoke = [](ncclComm_t comm, int flags) { return busy = 40, ending::real.comm_revoke(comm, flags); };
  options.api.comm_get_async_error = [](ncclComm_t comm, ncclResult_t* state) {
    if (busy == 0) return ending::real.comm_get_async_error(comm, state);
    --busy;
    *state = ncclInProgress;
    return ncclSuccess;
  };
  options.api.comm_abort = [](ncclComm_t comm) {
    ++freed;
    if (busy != 0) ++freed_too_early;
    return ending::real.comm_abort(comm);
  };
  on_devices(1, [&](thread_communicator& host) {
    auto world = nccl_world(host, options);
    auto part = world.split(0);
    world.fail("on purpose");
  });
  CHECK(freed == 2);
  CHECK(freed_too_early == 0);
  expect_clean();
}

TEST_CASE("an error of NCCL that a peer's failure has caused is told as the peer's") {
  if (rank_counts({2}).empty()) return;
  static std::atomic<bool> met;
  met = false;
  nccl_options options = options_with_kernel();
  options.limits.abort = 5;  // NCCL's error is held back for a tenth of it, at most half a second
  options.api.all_reduce = [](const void*, void*, std::size_t, ncclDataType_t, ncclRedOp_t, ncclComm_t, cudaStream_t) {
    met = true;
    return ncclRemoteError;
  };
  const auto all = verdicts(2, [&](thread_communicator& host) {
    auto world = nccl_world(host, options);
    cuda_stream stream;
    auto x = on_device_now(std::vector<float>(12, 1.0f), stream.handle());
    if (host.is_root()) return world.all_reduce(in_place(x), sum, stream);
    while (!met) detail::sleep_seconds(1e-3);
    detail::sleep_seconds(10e-3);  // NCCL's connections break before the rank can say why
    throw std::runtime_error("out of ideas");
  });
  CHECK_MESSAGE(all[0].kind == "peer_failed", all[0].text);
  CHECK_MESSAGE(contains(all[0].text, "rank 1 failed"), all[0].text);
  expect_clean();
}

TEST_CASE("communicators that end well are finalised and destroyed, never aborted") {
  nccl_options options = options_with_kernel();
  options.api = ending::watched(true);
  for (int ranks : rank_counts({1, 2})) {
    on_devices(ranks, [&](thread_communicator& host) {
      auto world = nccl_world(host, options);
      auto part = world.split(0);
      cuda_stream stream;
      auto x = on_device_now(std::vector<float>(100, 1.0f), stream.handle());
      const last_wait until_done{stream.handle()};
      part.all_reduce(in_place(x), sum, stream);
      synchronize(stream, 20, world, part);
    });
    CHECK(ending::count("finalize") == 2 * ranks);
    CHECK(ending::count("destroy") == 2 * ranks);
    CHECK(ending::count("abort") == 0);
    CHECK(ending::count("revoke") == 0);
    ending::called.clear();
  }
  expect_clean();
}

TEST_CASE("an abort that hangs is left behind after its deadline") {
  if (rank_counts({1}).empty()) return;
  static std::atomic<bool> go_on;
  static std::atomic<int> ended;
  go_on = false;
  ended = 0;
  nccl_options options = impatient();
  options.api.comm_revoke = nullptr;
  options.api.comm_abort = [](ncclComm_t comm) {
    while (!go_on) detail::sleep_seconds(1e-3);
    const ncclResult_t result = nccl_api::of_program().comm_abort(comm);
    ++ended;
    return result;
  };
  on_devices(1, [&](thread_communicator& host) {
    auto world = nccl_world(host, options);
    const double start = detail::now_seconds();
    world.fail("on purpose");
    CHECK(detail::now_seconds() - start < 2);
    CHECK_THROWS_AS(world.barrier(), peer_failed);
  });
  go_on = true;
  while (ended == 0) detail::sleep_seconds(1e-3);
  expect_clean();
}

TEST_CASE("a rank that never comes to the making of a communicator is a timeout for the others") {
  for (int ranks : rank_counts({2, 3})) {
    thread_meeting_place place(ranks);
    std::vector<verdict> all(static_cast<std::size_t>(ranks));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank)
      threads.emplace_back([&, rank] {
        cuda_check(cudaSetDevice(rank), "cudaSetDevice");
        thread_bootstrap start(place, rank);
        if (rank == 1) return (void)start.broadcast({});  // takes the id and goes
        all[static_cast<std::size_t>(rank)] = verdict_of([&] { nccl_world(start, impatient()); });
      });
    for (auto& thread : threads) thread.join();
    for (int rank : {0, ranks - 1}) {
      if (rank == 1) continue;
      const verdict& mine = all[static_cast<std::size_t>(rank)];
      CHECK_MESSAGE(mine.kind == "timeout_error", mine.text);
      CHECK_MESSAGE(contains(mine.text, "ncclCommInitRankConfig was still under way at the init deadline"), mine.text);
      CHECK(mine.seconds < 3);
    }
  }
  expect_clean();
}

TEST_CASE("a rank that never comes to a call is a timeout of synchronize, and a failed peer to the others") {
  for (int ranks : rank_counts({2, 3})) {
    std::atomic<int> over{0};
    const auto all = verdicts(ranks, [&](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream stream;
      auto x = on_device_now(std::vector<float>(100, 1.0f), stream.handle());
      const last_wait until_done{stream.handle()};
      if (host.is_root()) {
        while (over < host.size() - 1) detail::sleep_seconds(1e-3);
        world.throw_if_failed();
        return;
      }
      world.all_reduce(in_place(x), sum, stream);
      try {
        synchronize(stream, host.rank() == 1 ? 0.3 : 20, world);
      } catch (...) {
        ++over;
        throw;
      }
    });
    CHECK_MESSAGE(all[1].kind == "timeout_error", all[1].text);
    CHECK_MESSAGE(contains(all[1].text, "a peer does not take part in a collective"), all[1].text);
    for (int rank = 0; rank < ranks; ++rank)
      if (rank != 1) {
        const verdict& mine = all[static_cast<std::size_t>(rank)];
        CHECK_MESSAGE(mine.kind == "peer_failed", mine.text);
        CHECK_MESSAGE(contains(mine.text, "rank 1 failed"), mine.text);
        CHECK(mine.seconds < 3);
      }
  }
  expect_clean();
}

TEST_CASE("an asynchronous error of NCCL is thrown where it is, and told to the others") {
  if (!shardkit_double::active()) return;
  for (int ranks : rank_counts({2, 3})) {
    const auto all = verdicts(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream stream;
      auto x = on_device_now(std::vector<float>(100, 1.0f), stream.handle());
      const last_wait until_done{stream.handle()};
      host.barrier();
      if (host.is_root()) shardkit_double::nccl::fail_asynchronously(1, ncclRemoteError);
      host.barrier();
      world.all_reduce(in_place(x), sum, stream);
      synchronize(stream, 20, world);
    });
    CHECK_MESSAGE(all[1].kind == "nccl_error", all[1].text);
    CHECK_MESSAGE(contains(all[1].text, "another process has ended or cannot be reached"), all[1].text);
    CHECK_MESSAGE(all[0].kind == "peer_failed", all[0].text);
    CHECK_MESSAGE(contains(all[0].text, "rank 1 failed"), all[0].text);
  }
  expect_clean();
}

TEST_CASE("what NCCL does not get enqueued in time is a timeout") {
  if (!shardkit_double::active()) return;
  rank_counts({2});
  const auto all = verdicts(2, [](thread_communicator& host) {
    auto world = nccl_world(host, impatient());
    cuda_stream stream;
    auto x = on_device_now(std::vector<float>(100, 1.0f), stream.handle());
    const last_wait until_done{stream.handle()};
    host.barrier();
    if (host.is_root()) shardkit_double::nccl::hold_enqueue(1 << 30);
    host.barrier();
    world.all_reduce(in_place(x), sum, stream);
    synchronize(stream, 20, world);
  });
  const verdict& first = all[all[0].kind == "timeout_error" ? 0 : 1];
  CHECK_MESSAGE(first.kind == "timeout_error", first.text);
  CHECK_MESSAGE(contains(first.text, "all_reduce was still under way at the operation deadline"), first.text);
  CHECK(first.seconds < 3);
  expect_clean();
}

TEST_CASE("every call of NCCL and CUDA that fails is an error on all ranks, and nothing is left") {
  if (!shardkit_double::active()) return;
  struct fault {
    const char* function;
    int code;
  };
  const fault faults[] = {
      {"ncclGetUniqueId", ncclSystemError},
      {"ncclCommInitRankConfig", ncclUnhandledCudaError},
      {"ncclCommSplit", ncclUnhandledCudaError},
      {"ncclCommGetAsyncError", ncclInvalidArgument},
      {"ncclAllReduce", ncclUnhandledCudaError},
      {"ncclAllGather", ncclInternalError},
      {"ncclBroadcast", ncclUnhandledCudaError},
      {"ncclGroupStart", ncclUnhandledCudaError},
      {"ncclGroupEnd", ncclUnhandledCudaError},
      {"ncclSend", ncclInvalidUsage},
      {"ncclRecv", ncclInvalidArgument},
      {"ncclAlltoAll", ncclInvalidUsage},
      {"ncclReduce", ncclInvalidArgument},
      {"ncclCommFinalize", ncclSystemError},
      {"cudaMalloc", cudaErrorMemoryAllocation},
      {"cudaMemcpyAsync", cudaErrorInvalidValue},
      {"cudaStreamWaitEvent", cudaErrorInvalidResourceHandle},
      {"cudaEventRecord", cudaErrorInvalidResourceHandle},
      {"cudaEventCreateWithFlags", cudaErrorMemoryAllocation},
      {"cudaStreamIsCapturing", cudaErrorUnknown},
  };
  const auto program = [](thread_communicator& host) {
    auto world = nccl_world(host, options_with_kernel());
    auto part = world.split(0);
    cuda_stream stream;
    const auto layout = partition::balanced(5, host.size());
    device_buffer<float> x(6), y(6), all(5);
    const last_wait until_done{stream.handle()};
    cuda_space::fill_bytes(x.data(), 0, x.size() * sizeof(float), stream);
    cuda_space::fill_bytes(all.data(), 0, all.size() * sizeof(float), stream);
    world.all_reduce(in_place(x), sum, stream);
    world.all_reduce(in_place(x), by_rank(sum), stream);
    world.all_gather(in_place(all), layout, stream);
    part.all_to_all(x, y, stream);
    const auto mine = view_of(x).subview(0, layout.count(host.rank()));
    part.reduce_scatter(all, mine, sum, layout, stream);
    world.group(
        [&](auto& g) {
          g.send(view_of(x).subview(0, 3), (host.rank() + 1) % host.size());
          g.recv(view_of(x).subview(3, 3), (host.rank() + host.size() - 1) % host.size());
          g.all_reduce(in_place(all), sum);
        },
        stream);
    synchronize(stream, 20, world, part);
  };
  rank_counts({2});
  for (const fault& one : faults)
    for (int nth = 1; nth <= 4; nth += one.function == std::string("cudaMalloc") ? 1 : 2) {
      CAPTURE(one.function);
      CAPTURE(nth);
      rank_counts({2});
      shardkit_double::fail_call(one.function, nth, one.code, 1);
      const auto all = verdicts(2, program);
      const bool happened = shardkit_double::calls(one.function, 1) >= nth;
      const bool told = all[1].kind != "nothing";
      // Errors of destructors are not thrown.
      if (happened && one.function != std::string("ncclCommFinalize")) CHECK_MESSAGE(told, all[1].text);
      if (told) CHECK_MESSAGE(all[0].kind != "nothing", all[1].text);
      for (const verdict& mine : all) CHECK_MESSAGE(mine.seconds < 10, mine.text);
      CHECK(shardkit_double::nccl::live_communicators() == 0);
      expect_clean();
    }
}

TEST_CASE("checked ranks find a mismatch before NCCL meets it") {
  for (int ranks : rank_counts({2, 3})) {
    if (shardkit_double::active()) shardkit_double::set_mismatch_mode(shardkit_double::mismatch_mode::faithful);
    for (int way = 0; way < 4; ++way) {
      const auto all = verdicts(ranks, [&](thread_communicator& host) {
        auto world = with_checks(nccl_world(host, options_with_kernel()));
        cuda_stream stream;
        auto x = on_device_now(std::vector<float>(12, 1.0f), stream.handle());
        const last_wait until_done{stream.handle()};
        const bool odd = host.rank() == 1;
        const auto part = view_of(x).subview(0, odd ? 11 : 12);
        switch (way) {
          case 0: world.all_reduce(in_place(part), sum, stream); break;
          case 1: world.all_reduce(in_place(x), odd ? product : sum, stream); break;
          case 2: world.broadcast(x, odd ? 1 : 0, stream); break;
          default:
            if (odd) world.barrier(stream);
            else world.all_reduce(in_place(x), sum, stream);
        }
        synchronize(stream, 20, world);
      });
      for (const verdict& mine : all)
        CHECK_MESSAGE((mine.kind == "mismatch_error" || (mine.kind == "peer_failed" && contains(mine.text, "rank"))),
                      mine.kind, mine.text);
      CHECK(std::any_of(all.begin(), all.end(), [](const verdict& one) { return one.kind == "mismatch_error"; }));
    }
  }
  expect_clean();
}

TEST_CASE("a watchdog ends a wait of CUDA's own when a peer fails") {
  for (int ranks : rank_counts({2, 3})) {
    const auto all = verdicts(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      const nccl_watchdog dog(world, 0.01);
      cuda_stream stream;
      auto x = on_device_now(std::vector<float>(100, 1.0f), stream.handle());
      const last_wait until_done{stream.handle()};
      host.barrier();
      if (host.rank() == 1) throw std::runtime_error("out of ideas");
      world.all_reduce(in_place(x), sum, stream);
      (void)cudaStreamSynchronize(stream.handle());
      world.barrier(stream);
    });
    for (int rank = 0; rank < ranks; ++rank) {
      const verdict& mine = all[static_cast<std::size_t>(rank)];
      CHECK_MESSAGE(mine.kind == (rank == 1 ? "another exception" : "peer_failed"), mine.text);
      CHECK(mine.seconds < 5);
    }
  }
  expect_clean();
}

TEST_CASE("communicators that fail one after the other leave nothing behind") {
  if (rank_counts({2}).empty()) return;
  const int rounds = shardkit_double::active() ? 100 : 10;
  for (int round = 0; round < rounds; ++round)
    (void)verdicts(2, [&](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream stream;
      device_buffer<float> x(10);
      const last_wait until_done{stream.handle()};
      cuda_space::fill_bytes(x.data(), 0, x.size() * sizeof(float), stream);
      world.all_reduce(in_place(x), sum, stream);
      if (host.rank() == round % 2) throw std::runtime_error("on purpose");
      world.all_reduce(in_place(x), sum, stream);
      synchronize(stream, 20, world);
    });
  if (shardkit_double::active()) CHECK(shardkit_double::nccl::live_communicators() == 0);
  expect_clean();
}
