// Data-parallel training with a sharded optimiser: every rank computes gradients on its share of the data, keeps the
// AdamW state of its shard of the parameters, and gets the other shards from their ranks.
#include "glue.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

using namespace shardkit;

constexpr std::size_t features = 7, samples = 12;  // 7 parameters do not divide by 2, 3 or 4 ranks

struct sample {
  float x[features];
  float y;
};

// A line through 7 dimensions, which the training has to find.
std::vector<sample> make_samples() {
  std::vector<sample> all(samples);
  for (std::size_t i = 0; i < samples; ++i)
    for (std::size_t k = 0; k < features; ++k) {
      all[i].x[k] = static_cast<float>((i * 5 + k * k * 3 + i * i * k) % 11) / 11;
      all[i].y += all[i].x[k] * (static_cast<float>(k) - 3);
    }
  return all;
}

// AdamW on one shard. The state is as long as the shard.
struct adamw {
  std::vector<float> m, v;
  int step = 0;

  void update(view<float> parameters, view<const float> gradients) {
    m.resize(parameters.size());
    v.resize(parameters.size());
    ++step;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      m[i] += 0.1f * (gradients[i] - m[i]);
      v[i] += 0.01f * (gradients[i] * gradients[i] - v[i]);
      const float mean = m[i] / (1 - std::pow(0.9f, static_cast<float>(step)));
      const float square = v[i] / (1 - std::pow(0.99f, static_cast<float>(step)));
      parameters[i] -= 0.05f * mean / (std::sqrt(square) + 1e-8f);
    }
  }
};

template <class Communicator>
void train(Communicator& comm) {
  const std::vector<sample> data = make_samples();
  std::vector<float> parameters(features), gradients(features);
  adamw state;
  float loss = 0;
  // [train]
  sharded_optimizer<Communicator> optimizer{comm, partition::balanced(features, comm.size())};
  const auto mine = split(comm, data);
  for (int step = 0; step < 400; ++step) {
    gradients.assign(features, 0);
    loss = 0;
    for (const sample& one : mine) {
      float error = -one.y;
      for (std::size_t k = 0; k < features; ++k) error += parameters[k] * one.x[k];
      loss += error * error / static_cast<float>(mine.size());
      for (std::size_t k = 0; k < features; ++k) gradients[k] += 2 * error * one.x[k] / static_cast<float>(mine.size());
    }
    optimizer.reduce(view_of(gradients));
    state.update(optimizer.shard(view_of(parameters)), optimizer.shard(view_of(gradients)));
    optimizer.gather(view_of(parameters));
  }
  loss = comm.all_reduce(loss, average);
  // [train]
  const auto kept = comm.exchange(state.m.size());
  if (!comm.is_root()) return;
  std::printf("%d ranks, loss %s, optimiser state of", comm.size(), loss < 1e-3f ? "below 0.001" : "TOO HIGH");
  for (std::size_t count : kept) std::printf(" %zu", count);
  std::printf(" parameters\n");
}

// 10_training_glue [method [processes [rank [folder]]]]
int main(int argc, char** argv) try {
  launch how;
  how.processes = 3;
  if (argc > 1) how.method = argv[1];
  if (argc > 2) how.processes = std::atoi(argv[2]);
  if (argc > 3) how.rank = std::atoi(argv[3]);
  if (argc > 4) how.folder = argv[4];
  on_ranks(how, [](auto& comm) { train(comm); });
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return 1;
}
