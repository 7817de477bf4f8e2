// A training step as an engine makes it, over and over: gradients summed beside the backward pass, parameters updated
// by their owners and gathered, the last part of it captured into a graph. The program is correct, and the double has
// nothing to say about it.
#include "ranks.hpp"

#include <support/captured_graph.hpp>

#include <string>
#include <vector>

namespace {

using namespace nccl_test;

float of(int number) { return static_cast<float>(number); }

void train(thread_communicator& host) {
  auto world = nccl_world(host, options_with_kernel());
  const int ranks = host.size(), me = host.rank();
  constexpr std::size_t buckets = 3, count = 50;
  const auto owned = partition::balanced(buckets * count, ranks);
  cuda_stream compute, communication;
  device_buffer<float> gradients(buckets * count), parameters(buckets * count), mine(owned.count(me));
  const auto bucket = [&](std::size_t which) { return view_of(gradients).subview(which * count, count); };
  const auto update = [&] {
    world.reduce_scatter(gradients, mine, sum, owned, compute);
    cuda_space::copy(parameters.data() + owned.offset(me), mine.data(), mine.size() * sizeof(float), compute);
    world.all_gather(in_place(parameters), owned, compute);
  };
  const shardkit_test::captured_graph replayed(compute, update);
  for (int step = 0; step < 3; ++step) {
    std::vector<float> backward(buckets * count);
    for (std::size_t i = 0; i < backward.size(); ++i) backward[i] = of(me + step) + static_cast<float>(i);
    std::vector<request> pending;
    for (std::size_t which = 0; which < buckets; ++which) {
      cuda_space::copy(bucket(which).data(), backward.data() + which * count, bucket(which).bytes(), compute);
      pending.push_back(world.all_reduce_async(in_place(bucket(which)), sum, shardkit::fork{compute, communication}));
    }
    wait_all(pending.data(), pending.size());
    if (step == 0) update();
    else replayed.launch(compute);
    const auto now = fetched(parameters, compute.handle(), world);
    for (std::size_t i = 0; i < now.size(); ++i) {
      float total = 0;
      for (int rank = 0; rank < ranks; ++rank) total += of(rank + step) + static_cast<float>(i);
      REQUIRE(now[i] == of(ranks) * total);  // summed beside the backward pass, and once more where it is scattered
    }
  }
}

}  // namespace

// Under ten schedules 300 runs.
TEST_CASE("a correct training step gives the right parameters and no report") {
  const int runs = shardkit_double::active() ? 10 : 1;
  for (int run = 0; run < runs; ++run) {
    const auto schedule = shardkit_double::current_schedule();
    for (int ranks : rank_counts({1, 2, 3})) {
      if (shardkit_double::active()) {
        shardkit_double::set_schedule({schedule.when, schedule.seed + 100 * static_cast<unsigned>(run)});
        shardkit_double::set_device_count(ranks);
      }
      on_devices(ranks, train);
      expect_clean();
    }
  }
}
