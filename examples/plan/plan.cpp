#include "plan.hpp"

#include <shardkit/pipeline/balance.hpp>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

namespace plan {
namespace {

using shardkit::partition;

// How the model is cut: as examples/llama does it.
struct model_cut {
  shardkit::grouped_heads heads;
  partition features, vocabulary, layers;
};

double number(std::size_t value) { return static_cast<double>(value); }

// Multiply-adds of a token on one tensor rank: projections of its heads, and scores and values over the context.
double attention_work(const model& of, std::size_t heads, std::size_t kv_heads, std::size_t context) {
  return number(2 * of.hidden * of.head_dim * (heads + kv_heads)) + number(2 * heads * of.head_dim * context);
}
double feed_forward_work(const model& of, std::size_t features) { return number(3 * of.hidden * features); }
double head_work(const model& of, std::size_t tokens) { return number(of.hidden * tokens); }

shardkit::grouped_heads cut_heads(const model& of, const request& what) {
  using shardkit::head_groups;
  const auto cut = [&](head_groups how) { return shardkit::grouped(of.heads, of.kv_heads, what.tensor, how); };
  const auto busiest = [&](const shardkit::grouped_heads& heads) {
    double most = 0;
    for (int t = 0; t < what.tensor; ++t)
      most = std::max(most, attention_work(of, heads.heads.count(t), heads.kv_heads.count(t), what.context));
    return most;
  };
  const auto whole = cut(head_groups::whole), split = cut(head_groups::split);
  return busiest(split) < busiest(whole) ? split : whole;
}

model_cut cut_model(const model& of, const request& what) {
  const double layer = attention_work(of, of.heads, of.kv_heads, what.context) + feed_forward_work(of, of.intermediate);
  return {cut_heads(of, what), partition::balanced(of.intermediate, what.tensor, 16),
          partition::balanced(of.vocabulary, what.tensor),
          shardkit::balance(of.layers, what.pipeline, {.last_extra = head_work(of, of.vocabulary) / layer})};
}

std::uint64_t parameters_of(const model& of, const request& what, const model_cut& cut, int stage, int t) {
  const std::size_t heads = cut.heads.heads.count(t), kv_heads = cut.heads.kv_heads.count(t);
  const std::size_t layer = 2 * of.hidden * of.head_dim * (heads + kv_heads) + 3 * of.hidden * cut.features.count(t) +
                            2 * of.hidden;  // two norms, on every tensor rank
  const std::size_t table = of.hidden * cut.vocabulary.count(t);
  const bool first = stage == 0, last = stage == what.pipeline - 1;
  std::uint64_t all = cut.layers.count(stage) * layer;
  if (first) all += table;
  if (last) all += of.hidden;
  if (last && !(first && of.tied)) all += table;  // the head
  return all;
}

void require(bool holds, const std::string& what) {
  if (!holds) throw shardkit::usage_error("plan: " + what);
}

}  // namespace

model read_model(const std::string& path) {
  std::ifstream file(path + "/config.json");
  if (!file) file.open(path);
  require(file.good(), path + " is neither a config.json nor a folder with one");
  try {
    const auto config = nlohmann::json::parse(file);
    const auto size = [&](const char* name) { return config.at(name).get<std::size_t>(); };
    model of{};
    of.layers = size("num_hidden_layers");
    of.hidden = size("hidden_size");
    of.intermediate = size("intermediate_size");
    of.heads = size("num_attention_heads");
    of.kv_heads = config.value("num_key_value_heads", of.heads);
    require(of.heads > 0, path + ": num_attention_heads is 0");
    of.head_dim = config.value("head_dim", of.hidden / of.heads);
    of.vocabulary = size("vocab_size");
    of.tied = config.value("tie_word_embeddings", false);
    return of;
  } catch (const nlohmann::json::exception& broken) {
    throw shardkit::usage_error("plan: " + path + ": " + broken.what());
  }
}

costs compute(const model& of, const request& what) {
  require(what.tensor >= 1 && what.pipeline >= 1 && what.data >= 1, "every axis of the mesh has at least 1 rank");
  require(what.microbatches >= 1, "a step has at least 1 microbatch");
  const model_cut cut = cut_model(of, what);
  costs result{};

  const request alone{};
  result.parameters = parameters_of(of, alone, cut_model(of, alone), 0, 0);

  std::uint64_t most_parameters = 0;
  for (int stage = 0; stage < what.pipeline; ++stage)
    for (int t = 0; t < what.tensor; ++t) {
      const std::uint64_t parameters = parameters_of(of, what, cut, stage, t);
      most_parameters = std::max(most_parameters, parameters);
      const std::size_t layers = cut.layers.count(stage), kv_heads = cut.heads.kv_heads.count(t);
      const std::uint64_t cache =
          2 * layers * kv_heads * of.head_dim * what.context * what.sequences * what.activation_bytes;
      const auto replicas = static_cast<std::uint64_t>(what.data);
      result.ranks.push_back({stage, t, layers, cut.heads.heads.count(t), kv_heads, cut.features.count(t),
                              parameters * what.weight_bytes, cache, parameters * what.weight_bytes,
                              (parameters + replicas - 1) / replicas * 12});
    }

  // Two sums a layer, on the first stage one more for the embedding.
  const double row = number(of.hidden * what.activation_bytes);
  const double ring = 2.0 * (what.tensor - 1) / what.tensor;
  for (int stage = 0; stage < what.pipeline; ++stage)
    result.tensor_wire =
        std::max(result.tensor_wire, ring * row * number(2 * cut.layers.count(stage) + (stage == 0 ? 1 : 0)));
  result.pipeline_wire = what.pipeline > 1 ? row : 0;
  result.data_wire =
      2.0 * (what.data - 1) / what.data * static_cast<double>(most_parameters) * number(what.weight_bytes);

  const auto busiest = [&](auto work) {
    double most = 0;
    for (int t = 0; t < what.tensor; ++t) most = std::max(most, work(t));
    return most;
  };
  const double attention = busiest(
      [&](int t) { return attention_work(of, cut.heads.heads.count(t), cut.heads.kv_heads.count(t), what.context); });
  const double feed_forward = busiest([&](int t) { return feed_forward_work(of, cut.features.count(t)); });
  for (int stage = 0; stage < what.pipeline; ++stage)
    result.stage_work.push_back(number(cut.layers.count(stage)) * (attention + feed_forward));
  result.stage_work.back() += busiest([&](int t) { return head_work(of, cut.vocabulary.count(t)); });
  result.serial_work = number(of.layers) * (attention_work(of, of.heads, of.kv_heads, what.context) +
                                            feed_forward_work(of, of.intermediate)) +
                       head_work(of, of.vocabulary);

  // A microbatch at a time, the slowest stage sets the pace: the first takes the sum, each other one the maximum.
  const double sum = std::accumulate(result.stage_work.begin(), result.stage_work.end(), 0.0);
  const double slowest = *std::max_element(result.stage_work.begin(), result.stage_work.end());
  const double count = number(what.microbatches), makespan = sum + (count - 1) * slowest;
  result.latency_speed_up = result.serial_work / sum;
  result.throughput_speed_up = what.data * count * result.serial_work / makespan;
  result.bubble = 1 - count * sum / (what.pipeline * makespan);
  return result;
}

}  // namespace plan
