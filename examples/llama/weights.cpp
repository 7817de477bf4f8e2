#include "weights.hpp"

#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/pipeline/balance.hpp>
#include <shardkit/tensor/gated_mlp.hpp>

#include <algorithm>

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

weights::weights(const model_config& config, const model_cut& cut, const std::string& directory, communicator& pipeline,
                 communicator& tensor) {
  shardkit::load_plan plan(shardkit::open_archive(tensor, directory), tensor.rank(), tensor.size());
  const std::size_t hidden = config.hidden, attention = config.heads * config.head_dim,
                    kv = config.kv_heads * config.head_dim, inner = config.intermediate;
  const partition& q_rows = cut.heads.q();
  const partition& kv_rows = cut.heads.kv();

  struct layer_slots {
    shardkit::arena_slot input_norm, post_attention_norm, qkv, output, gate_up, down;
  };
  std::vector<layer_slots> slots(cut.layers.count(pipeline.rank()));
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const std::string layer = "model.layers." + std::to_string(cut.layers.offset(pipeline.rank()) + i) + ".";
    slots[i].input_norm = plan.add(layer + "input_layernorm.weight", {hidden}, {}, dtype::f32);
    slots[i].qkv = plan.add_packed({{layer + "self_attn.q_proj.weight", {attention, hidden}, rows(q_rows)},
                                    {layer + "self_attn.k_proj.weight", {kv, hidden}, rows(kv_rows)},
                                    {layer + "self_attn.v_proj.weight", {kv, hidden}, rows(kv_rows)}},
                                   dtype::f32);
    slots[i].output = plan.add(layer + "self_attn.o_proj.weight", {hidden, attention}, columns(q_rows), dtype::f32);
    slots[i].post_attention_norm = plan.add(layer + "post_attention_layernorm.weight", {hidden}, {}, dtype::f32);
    slots[i].gate_up = plan.add_packed({{layer + "mlp.gate_proj.weight", {inner, hidden}, rows(cut.feed_forward)},
                                        {layer + "mlp.up_proj.weight", {inner, hidden}, rows(cut.feed_forward)}},
                                       dtype::f32);
    slots[i].down = plan.add(layer + "mlp.down_proj.weight", {hidden, inner}, columns(cut.feed_forward), dtype::f32);
  }
  // With tied embeddings the first stage's table and the last stage's head are the same tensor, here and there.
  const char* const embedding_name = "model.embed_tokens.weight";
  const char* const head_name = config.tied_embeddings ? embedding_name : "lm_head.weight";
  shardkit::arena_slot embedding_slot, norm_slot, head_slot;
  const auto table = [&](const char* name) {
    return plan.add(name, {config.vocabulary, hidden}, rows(cut.vocabulary), dtype::f32);
  };
  if (pipeline.is_root()) embedding_slot = table(embedding_name);
  if (pipeline.is_last()) {
    norm_slot = plan.add("model.norm.weight", {hidden}, {}, dtype::f32);
    head_slot = pipeline.is_root() && config.tied_embeddings ? embedding_slot : table(head_name);
  }

  arena_ = shardkit::buffer<std::byte>(plan.bytes());
  shardkit::buffer<std::byte> staging(std::size_t{1} << 20);
  plan.load(tensor, arena_, staging);

  const auto matrix_of = [&](const shardkit::arena_slot& slot) { return const_matrix(slot.matrix_in<float>(arena_)); };
  for (const layer_slots& slot : slots)
    layers.push_back({slot.input_norm.view_in<float>(arena_), slot.post_attention_norm.view_in<float>(arena_),
                      matrix_of(slot.qkv), matrix_of(slot.output), matrix_of(slot.gate_up), matrix_of(slot.down)});
  if (pipeline.is_root()) embedding = matrix_of(embedding_slot);
  if (pipeline.is_last()) {
    final_norm = norm_slot.view_in<float>(arena_);
    head = matrix_of(head_slot);
  }
}

}  // namespace llama
