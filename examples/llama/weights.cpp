#include "weights.hpp"

#include <shardkit/pipeline/balance.hpp>
#include <shardkit/tensor/gated_mlp.hpp>

#include <algorithm>
#include <cstddef>
#include <string>

namespace llama {
namespace {

using shardkit::dtype;
using shardkit::partition;

// Multiplications of one token: what stages and ranks are balanced by.
double attention_cost(const model_config& config, std::size_t heads, std::size_t kv_heads) {
  return static_cast<double>(2 * config.hidden * config.head_dim * (heads + kv_heads));
}
double layer_cost(const model_config& config) {
  return attention_cost(config, config.heads, config.kv_heads) +
         static_cast<double>(3 * config.hidden * config.intermediate);
}
double head_cost(const model_config& config) { return static_cast<double>(config.hidden * config.vocabulary); }

// Whole groups of heads, unless the busiest rank has less to do with split ones: 9 heads of which 3 share a key/value
// head are 5 and 4 over two ranks, not 6 and 3.
shardkit::qkv_cut cut_heads(const model_config& config, int ranks) {
  using shardkit::head_groups;
  const auto cut = [&](head_groups how) {
    return shardkit::qkv_cut(config.heads, config.kv_heads, config.head_dim, ranks, how);
  };
  const auto busiest = [&](const shardkit::qkv_cut& heads) {
    double most = 0;
    for (int rank = 0; rank < ranks; ++rank)
      most = std::max(most, attention_cost(config, heads.heads(rank), heads.kv_heads(rank)));
    return most;
  };
  const auto whole = cut(head_groups::whole), split = cut(head_groups::split);
  return busiest(split) < busiest(whole) ? split : whole;
}

// The feed-forward is cut in whole vectors of floats, evenly even where heads are not: the ranks meet between the two.
constexpr std::size_t lanes = 16;

}  // namespace

model_cut::model_cut(const model_config& config, int stages, int tensor_ranks)
    : layers(shardkit::balance(config.layers, stages, {.last_extra = head_cost(config) / layer_cost(config)})),
      heads(cut_heads(config, tensor_ranks)),
      feed_forward(partition::balanced(config.intermediate, tensor_ranks, lanes)),
      vocabulary(partition::balanced(config.vocabulary, tensor_ranks)) {}

weight_slots plan_weights(const model_config& config, const model_cut& cut, int stage, shardkit::load_plan& plan) {
  const std::size_t hidden = config.hidden, attention = config.heads * config.head_dim,
                    kv = config.kv_heads * config.head_dim, inner = config.intermediate;
  const partition& q_rows = cut.heads.q();
  const partition& kv_rows = cut.heads.kv();
  const bool is_first = stage == 0, is_last = stage + 1 == cut.layers.parts();

  weight_slots slots;
  slots.layers.resize(cut.layers.count(stage));
  for (std::size_t i = 0; i < slots.layers.size(); ++i) {
    layer_slots& slot = slots.layers[i];
    const std::string layer = "model.layers." + std::to_string(cut.layers.offset(stage) + i) + ".";
    slot.input_norm = plan.add(layer + "input_layernorm.weight", {hidden}, {}, dtype::f32);
    slot.qkv = plan.add_packed({{layer + "self_attn.q_proj.weight", {attention, hidden}, rows(q_rows)},
                                {layer + "self_attn.k_proj.weight", {kv, hidden}, rows(kv_rows)},
                                {layer + "self_attn.v_proj.weight", {kv, hidden}, rows(kv_rows)}},
                               dtype::f32);
    slot.output = plan.add(layer + "self_attn.o_proj.weight", {hidden, attention}, columns(q_rows), dtype::f32);
    slot.post_attention_norm = plan.add(layer + "post_attention_layernorm.weight", {hidden}, {}, dtype::f32);
    slot.gate_up = plan.add_packed({{layer + "mlp.gate_proj.weight", {inner, hidden}, rows(cut.feed_forward)},
                                    {layer + "mlp.up_proj.weight", {inner, hidden}, rows(cut.feed_forward)}},
                                   dtype::f32);
    slot.down = plan.add(layer + "mlp.down_proj.weight", {hidden, inner}, columns(cut.feed_forward), dtype::f32);
  }
  // With tied embeddings the first stage's table and the last stage's head are the same tensor, here and there.
  const char* const embedding = "model.embed_tokens.weight";
  const char* const head = config.tied_embeddings ? embedding : "lm_head.weight";
  const auto table = [&](const char* name) {
    return plan.add(name, {config.vocabulary, hidden}, rows(cut.vocabulary), dtype::f32);
  };
  if (is_first) slots.embedding = table(embedding);
  if (is_last) {
    slots.final_norm = plan.add("model.norm.weight", {hidden}, {}, dtype::f32);
    slots.head = is_first && config.tied_embeddings ? slots.embedding : table(head);
  }
  return slots;
}

}  // namespace llama
