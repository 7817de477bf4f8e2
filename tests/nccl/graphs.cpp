// Calls captured into CUDA graphs: a graph holds what the same sequence by hand would hold, and nothing waits, asks or
// allocates while it is captured.
#include "ranks.hpp"

#include <shardkit/comm/verify_replay.hpp>
#include <support/captured_graph.hpp>

#include <optional>
#include <string>
#include <vector>

namespace {

using namespace nccl_test;
using shardkit_test::captured_graph;

float of(int number) { return static_cast<float>(number); }

/// Calls of these functions on this device so far.
int calls_that_wait_or_allocate(int device) {
  int all = 0;
  for (const char* function :
       {"cudaMalloc", "cudaMallocHost", "cudaHostAlloc", "cudaMallocManaged", "cudaFree", "cudaFreeHost",
        "cudaStreamQuery", "cudaEventQuery", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize",
        "cudaStreamCreateWithPriority", "cudaEventCreateWithFlags", "cudaPointerGetAttributes"})
    all += shardkit_double::calls(function, device);
  return all;
}

}  // namespace

TEST_CASE("a captured sequence gives its results at every replay") {
  for (int ranks : rank_counts({1, 2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      auto other = world.split(0, -host.rank());
      const int size = host.size(), me = host.rank();
      const auto n = static_cast<std::size_t>(size);
      cuda_stream stream;
      const auto layout = partition::balanced(3 * n + 1, size);
      auto x = on_device_now(std::vector<float>(8, 1.0f), stream.handle());
      device_buffer<float> all(8 * n), ring(8), part(layout.count(me)), cut(layout.total()), turned(n), row(n);
      cuda_space::fill_bytes(cut.data(), 0, cut.size() * sizeof(float), stream);
      cuda_space::fill_bytes(row.data(), 0, row.size() * sizeof(float), stream);
      synchronize(stream, 20, world);
      const int before = calls_that_wait_or_allocate(me);
      const captured_graph graph(stream.handle(), [&] {
        world.barrier(stream);
        world.all_reduce(in_place(x), sum, stream);
        world.all_gather(x, all, stream);
        other.send_recv(x, (other.rank() + 1) % size, ring, (other.rank() + size - 1) % size, stream);
        world.reduce_scatter(cut, part, sum, layout, stream);
        world.all_gather(part, cut, layout, stream);
        world.all_to_all(row, turned, stream);
        world.group(
            [&](auto& g) {
              g.broadcast(ring, 0);
              g.with(other).all_reduce(in_place(row), sum);
            },
            stream);
      });
      CHECK(calls_that_wait_or_allocate(me) == before);
      float wanted = 1;
      for (int replay = 0; replay < 3; ++replay) {
        graph.launch(stream.handle());
        wanted *= of(size);
        CHECK(fetched(x, stream.handle(), world, other)[7] == wanted);
        CHECK(fetched(all, stream.handle(), world, other)[8 * n - 1] == wanted);
        CHECK(fetched(ring, stream.handle(), world, other)[0] == wanted);
      }
    });
  }
  expect_clean();
}

TEST_CASE("a graph holds exactly the nodes of the sequence written by hand") {
  if (!shardkit_double::active()) return;
  for (int ranks : rank_counts({1, 2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      const int size = host.size(), me = host.rank();
      const int next = (me + 1) % size, previous = (me + size - 1) % size;
      cuda_stream stream;
      device_buffer<float> x(8), y(8), all(8 * static_cast<std::size_t>(size));
      const nccl_api api = nccl_api::of_program();
      const ncclComm_t comm = world.backend().native_handle();
      const auto settled = [&](ncclResult_t result) {
        while (result == ncclInProgress) REQUIRE(api.comm_get_async_error(comm, &result) == ncclSuccess);
        REQUIRE(result == ncclSuccess);
      };
      const captured_graph ours(stream.handle(), [&] {
        world.all_reduce(in_place(x), sum, stream);
        world.broadcast(y, 0, stream);
        world.send_recv(x, next, y, previous, stream);
        world.all_gather(x, all, stream);
        world.group(
            [&](auto& g) {
              g.all_reduce(in_place(x), average);
              g.reduce(in_place(y), product, 0);
            },
            stream);
      });
      const captured_graph by_hand(stream.handle(), [&] {
        const cudaStream_t on = stream.handle();
        settled(api.all_reduce(x.data(), x.data(), 8, ncclFloat32, ncclSum, comm, on));
        settled(api.broadcast(y.data(), y.data(), 8, ncclFloat32, 0, comm, on));
        settled(api.group_start());
        settled(api.send(x.data(), 8, ncclFloat32, next, comm, on));
        settled(api.recv(y.data(), 8, ncclFloat32, previous, comm, on));
        settled(api.group_end());
        settled(api.all_gather(x.data(), all.data(), 8, ncclFloat32, comm, on));
        settled(api.group_start());
        settled(api.all_reduce(x.data(), x.data(), 8, ncclFloat32, ncclAvg, comm, on));
        settled(api.reduce(y.data(), y.data(), 8, ncclFloat32, ncclProd, 0, comm, on));
        settled(api.group_end());
      });
      CHECK(ours.text() == by_hand.text());
      CHECK(ours.nodes() == by_hand.nodes());
      host.barrier();
    });
  }
  expect_clean();
}

TEST_CASE("a call on two streams is captured with both") {
  for (int ranks : rank_counts({1, 2})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream compute, communication;
      auto x = on_device_now(std::vector<float>(8, 1.0f), compute.handle());
      device_buffer<float> y(8);
      const captured_graph graph(compute.handle(), [&] {
        auto pending = world.all_reduce_async(in_place(x), sum, shardkit::fork{compute, communication});
        pending.wait();
        cuda_space::copy(y.data(), x.data(), 8 * sizeof(float), compute);
      });
      graph.launch(compute.handle());
      CHECK(fetched(y, compute.handle(), world)[7] == of(host.size()));
    });
  }
  expect_clean();
}

TEST_CASE("what cannot be captured is refused before anything is recorded") {
  for (int ranks : rank_counts({2})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream stream;
      device_buffer<float> x(8);
      std::string text;
      host.barrier();
      const captured_graph graph(stream.handle(), [&] {
        try {
          world.group(
              [&](auto& g) {
                g.all_reduce(in_place(x), sum);
                g.all_reduce(in_place(x), by_rank(sum));
              },
              stream);
        } catch (const error& failure) {
          text = failure.what();
        }
      });
      CHECK(graph.nodes() == 0);
      CHECK_MESSAGE((text.find("cannot be captured into a graph") != std::string::npos ||
                     text.find("failed:") != std::string::npos),
                    text);
    });
  }
  expect_clean();
}

namespace {

/// The ranks take turns: whoever asks a peer in its own waits for ever.
template <class Body>
void in_turn(thread_communicator& host, Body body) {
  for (int turn = 0; turn < host.size(); ++turn) {
    if (turn == host.rank()) body();
    host.barrier();
  }
}

}  // namespace

TEST_CASE("checked calls are captured without asking anybody, and compared when the replay is verified") {
  for (int ranks : rank_counts({1, 2, 3, 4})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = with_checks(nccl_world(host, options_with_kernel()));
      const int size = host.size(), me = host.rank();
      const int next = (me + 1) % size, previous = (me + size - 1) % size;
      const auto n = static_cast<std::size_t>(size);
      const auto cut = partition::balanced(3 * n + 1, size);
      cuda_stream stream, beside;
      auto x = on_device_now(std::vector<float>(8, 1.0f), stream.handle());
      device_buffer<float> y(8), z(4), whole(cut.total()), row(n), column(n);
      for (auto* one : {&y, &z, &whole, &row})
        cuda_space::fill_bytes(one->data(), 0, one->size() * sizeof(float), stream);
      synchronize(stream, 20, world);
      world.barrier(stream);
      CHECK(take_captured(world).empty());
      const auto record = [&] {
        world.all_reduce(in_place(x), sum, stream);
        world.send_recv(x, next, y, previous, stream);
        auto pending = world.all_reduce_async(in_place(z), sum, shardkit::fork{stream, beside});
        pending.wait();
        world.all_gather(in_place(whole), cut, stream);
        world.all_to_all(row, partition::balanced(n, size), column, partition::balanced(n, size), stream);
        world.group(
            [&](auto& g) {
              g.all_reduce(in_place(z), sum);
              g.send(x, next);
              g.recv(y, previous);
              g.broadcast(row, size - 1);
            },
            stream);
        if (size == 2 && me == 0) world.send(z, 1, stream);
        if (size == 2 && me == 1) world.recv(z, 0, stream);
      };
      const int before = calls_that_wait_or_allocate(me);
      std::optional<captured_graph> graph;
      in_turn(host, [&] { graph.emplace(stream.handle(), record); });
      CHECK(calls_that_wait_or_allocate(me) == before);
      const captured_calls calls = take_captured(world);
      CHECK(calls.size() == std::size_t{10} + (size == 2));
      CHECK(take_captured(world).empty());
      float wanted = 1;
      for (int replay = 0; replay < 2; ++replay) {
        verify_replay(world, calls);
        graph->launch(stream.handle());
        wanted *= of(size);
        CHECK(fetched(y, stream.handle(), world)[7] == wanted);
        world.barrier(stream);  // compared at once, as ever
      }
    });
  }
  expect_clean();
}

TEST_CASE("ranks whose captured calls do not meet are told so on every rank, and go on without a replay") {
  struct way {
    const char* difference;
    const char *first, *second;  // what the error says of the ranks
  };
  constexpr way ways[] = {{"count", "rank 0 all_reduce(12 x f32", "rank 1 all_reduce(11 x f32"},
                          {"reduction", "rank 0 all_reduce(12 x f32, sum)", "rank 1 all_reduce(12 x f32, product)"},
                          {"root", "rank 0 broadcast(12 x f32, root 0)", "rank 1 broadcast(12 x f32, root 1)"},
                          {"type", "rank 0 all_reduce(12 x f32", "rank 1 all_reduce(12 x i32"},
                          {"verb", "rank 0 all_reduce(", "rank 1 barrier("},
                          {"one call less", "rank 0 barrier(", "rank 1 nothing more"},
                          {"another call", "rank 0 nothing more", "rank 1 barrier("},
                          {"order", "rank 0 all_reduce(", "rank 1 broadcast("},
                          {"layout", "rank 0 all_gather(", "rank 1 all_gather("},
                          {"uneven exchange", "rank 0 all_to_all(", "rank 1 all_to_all("},
                          {"message count", "rank 0 send(12 x f32", "rank 1 recv(11 x f32"},
                          {"no receive", "rank 0 send(12 x f32", "rank 1 nothing more"},
                          {"receives on both sides", "rank 0 recv(", "rank 1 recv("},
                          {"message after the collective", "rank 0 send(", "rank 1 all_reduce("}};
  for (int ranks : rank_counts({2, 3}))
    for (std::size_t which = 0; which < std::size(ways); ++which) {
      std::vector<std::string> texts(static_cast<std::size_t>(ranks));
      on_devices(ranks, [&](thread_communicator& host) {
        auto world = with_checks(nccl_world(host, options_with_kernel()));
        const bool odd = host.rank() == 1;
        const auto n = static_cast<std::size_t>(host.size());
        cuda_stream stream;
        auto x = on_device_now(std::vector<float>(12, 1.0f), stream.handle());
        device_buffer<int> whole_numbers(12);
        device_buffer<float> y(12);
        const auto part = view_of(x).subview(0, odd ? 11 : 12);
        // One element more to rank 0 than it expects, and the same in the layout of a gather.
        std::vector<std::size_t> bounds(n + 1);
        for (std::size_t i = 1; i <= n; ++i) bounds[i] = 2 * i + odd;
        const auto to_each = partition::from_bounds(bounds), from_each = partition::balanced(2 * n, host.size());
        {
          const captured_graph graph(stream.handle(), [&] {
            world.broadcast(y, 0, stream);
            switch (which) {
              case 0: world.all_reduce(in_place(part), sum, stream); break;
              case 1: world.all_reduce(in_place(x), odd ? product : sum, stream); break;
              case 2: world.broadcast(x, odd ? 1 : 0, stream); break;
              case 3:
                if (odd) world.all_reduce(in_place(whole_numbers), sum, stream);
                else world.all_reduce(in_place(x), sum, stream);
                break;
              case 4:
                if (odd) world.barrier(stream);
                else world.all_reduce(in_place(x), sum, stream);
                break;
              case 5:
                if (!odd) world.barrier(stream);
                break;
              case 6:
                if (odd) world.barrier(stream);
                break;
              case 7:
                if (odd) world.broadcast(y, 0, stream);
                world.all_reduce(in_place(x), sum, stream);
                if (!odd) world.broadcast(y, 0, stream);
                break;
              case 8: world.all_gather(in_place(view_of(x).subview(0, to_each.total())), to_each, stream); break;
              case 9:
                world.all_to_all(view_of(x).subview(0, to_each.total()), to_each, view_of(y).subview(0, 2 * n),
                                 from_each, stream);
                break;
              case 10:
                if (host.rank() == 0) world.send(x, 1, stream);
                if (odd) world.recv(part, 0, stream);
                break;
              case 11:
                if (host.rank() == 0) world.send(x, 1, stream);
                break;
              case 12:
                if (host.rank() < 2) world.recv(y, 1 - host.rank(), stream);
                break;
              default:
                if (host.rank() == 0) world.send(x, 1, stream);
                world.all_reduce(in_place(y), sum, stream);
                if (odd) world.recv(x, 0, stream);
            }
          });
          try {
            verify_replay(world, take_captured(world));
          } catch (const mismatch_error& failure) {
            texts[static_cast<std::size_t>(host.rank())] = failure.what();
          }
        }
        world.all_reduce(in_place(x), sum, stream);
        CHECK(fetched(x, stream.handle(), world)[3] == of(host.size()));
      });
      CAPTURE(ways[which].difference);
      for (const std::string& text : texts) {
        CHECK_MESSAGE(text.find(ways[which].first) != std::string::npos, text);
        CHECK_MESSAGE(text.find(ways[which].second) != std::string::npos, text);
        CHECK_MESSAGE(text.find("graphs.cpp:") != std::string::npos, text);
      }
    }
  expect_clean();
}

TEST_CASE("a rank that does not verify the replay when the others do is a mismatch") {
  if (rank_counts({2}).empty()) return;
  std::vector<std::string> texts(2);
  on_devices(2, [&](thread_communicator& host) {
    auto world = with_checks(nccl_world(host, options_with_kernel()));
    cuda_stream stream;
    try {
      if (host.is_root()) verify_replay(world, take_captured(world));
      else world.barrier(stream);
    } catch (const mismatch_error& failure) {
      texts[static_cast<std::size_t>(host.rank())] = failure.what();
    }
  });
  for (const std::string& text : texts) CHECK_MESSAGE(text.find("rank 1 barrier()") != std::string::npos, text);
  expect_clean();
}

TEST_CASE("checked calls that cannot be captured are refused before anything is recorded, and leave no note") {
  for (int ranks : rank_counts({2})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = with_checks(nccl_world(host, options_with_kernel()));
      cuda_stream stream;
      device_buffer<float> x(8);
      host.barrier();
      {
        const captured_graph graph(
            stream.handle(), [&] { CHECK_THROWS_AS(world.all_reduce(in_place(x), by_rank(sum), stream), error); });
        CHECK(graph.nodes() == 0);
      }
      CHECK(take_captured(world).empty());
    });
  }
  expect_clean();
}
