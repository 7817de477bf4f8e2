// plan: what a model costs on a mesh of tensor x pipeline x data ranks, and what it can gain.
#include "plan.hpp"

#include <shardkit/core/error.hpp>

#include <CLI/CLI.hpp>

#include <cinttypes>
#include <cstdio>
#include <exception>
#include <string>

namespace {

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void print(const plan::model& of, const plan::request& what, bool training) {
  const plan::costs costs = plan::compute(of, what);
  std::printf("model: %" PRIu64 " parameters, %.2f MiB\n", costs.parameters, mib(costs.parameters * what.weight_bytes));
  std::printf("mesh: data %d x pipeline %d x tensor %d\n\n", what.data, what.pipeline, what.tensor);
  std::printf("stage tensor  layers heads   kv features  weights MiB  cache MiB%s\n",
              training ? "  gradients MiB  optimizer MiB" : "");
  for (const plan::rank_plan& rank : costs.ranks) {
    std::printf("%5d %6d  %6zu %5zu %4zu %8zu  %11.2f  %9.2f", rank.stage, rank.tensor, rank.layers, rank.heads,
                rank.kv_heads, rank.features, mib(rank.weights), mib(rank.cache));
    if (training) std::printf("  %13.2f  %13.2f", mib(rank.gradients), mib(rank.optimizer));
    std::printf("\n");
  }
  std::printf("\nsent by the busiest rank: tensor %.0f and pipeline %.0f bytes a token", costs.tensor_wire,
              costs.pipeline_wire);
  if (training) std::printf(", data %.2f MiB a step", costs.data_wire / (1 << 20));
  std::printf("\nideal speed-up: %.2f for one token, %.2f for %zu microbatches\nbubble: %.1f %%\n",
              costs.latency_speed_up, costs.throughput_speed_up, what.microbatches, 100 * costs.bubble);
}

}  // namespace

int main(int argc, char** argv) {
  plan::request what;
  std::string model;
  bool training = false;
  CLI::App app("Memory, traffic and ideal speed-up of a Llama-family model on a mesh of ranks. Nothing is run.");
  app.add_option("model", model, "config.json, or a folder with one")->required();
  app.add_option("--tensor", what.tensor, "ranks that share each layer");
  app.add_option("--pipeline", what.pipeline, "stages of layers");
  app.add_option("--data", what.data, "replicas");
  app.add_option("--context", what.context, "positions of each sequence")->capture_default_str();
  app.add_option("--sequences", what.sequences, "under way at a time in one replica")->capture_default_str();
  app.add_option("--microbatches", what.microbatches, "of a step through the pipeline")->capture_default_str();
  app.add_option("--weight-bytes", what.weight_bytes, "of one weight or gradient")->capture_default_str();
  app.add_option("--activation-bytes", what.activation_bytes, "of one activation")->capture_default_str();
  app.add_flag("--training", training, "gradients and optimizer state, too");
  CLI11_PARSE(app, argc, argv);
  try {
    print(plan::read_model(model), what, training);
    return 0;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}
