#include "model.hpp"

#include <algorithm>
#include <utility>

namespace llama {

model::model(const model_config& config, const std::string& directory, communicator& pipeline, communicator& tensor)
    : config_(config),
      tensor_(tensor),
      cut_(config, pipeline.size(), tensor.size()),
      weights_(config, cut_, directory, pipeline, tensor),
      rotary_(config.head_dim, config.rope_base, config.max_positions) {
  for (std::size_t head = 0; head < cut_.heads.heads(tensor.rank()); ++head)
    heads_.push_back({head, cut_.heads.kv_head(tensor.rank(), head)});
  for (const layer_weights& w : weights_.layers)
    layers_.push_back({w.input_norm,
                       w.post_attention_norm,
                       {tensor, w.qkv, cut_.heads},
                       {tensor, w.output, cut_.heads.q()},
                       {tensor, w.gate_up, w.down, cut_.feed_forward}});
}

sequence model::make_sequence(std::size_t positions) const {
  sequence past;
  for (std::size_t i = 0; i < layers_.size(); ++i)
    past.emplace_back(cut_.heads.kv_heads(tensor_.rank()), config_.head_dim, positions);
  return past;
}

void model::embed(const std::vector<int>& ids, matrix hidden) {
  shardkit::vocabulary_embedding(tensor_, weights_.embedding, cut_.vocabulary).forward(ids, hidden);
}

void model::forward(matrix hidden, sequence& past, std::size_t first_position) {
  const std::size_t rows = hidden.rows();
  const matrix normed = scratch(normed_, rows, config_.hidden);
  const matrix summed = scratch(summed_, rows, config_.hidden);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const layer& now = layers_[i];
    rms_norm(hidden, now.input_norm, config_.norm_epsilon, normed);
    const auto [q, k, v] = now.qkv.forward(normed, scratch(projected_, rows, now.qkv.columns()), gemm_);
    rotary_.apply(q.data, first_position);
    rotary_.apply(k.data, first_position);
    past[i].store(k.data, v.data, first_position);
    const matrix attended = scratch(attended_, rows, q.data.columns());
    attend(q.data, past[i], heads_, config_.head_dim, first_position, scores_, attended);
    now.output.forward(shardkit::sharded(attended, q.cut), summed, gemm_, const_matrix(hidden));

    rms_norm(summed, now.post_attention_norm, config_.norm_epsilon, normed);
    workspace_.resize(std::max(workspace_.size(), now.feed_forward.workspace_bytes(rows)));
    now.feed_forward.forward(
        normed, hidden, gemm_, [](matrix gate, matrix up, auto) { silu_multiply(gate, up); },
        shardkit::view_of(workspace_), const_matrix(summed));
  }
}

matrix model::local_logits(const_matrix hidden) {
  const matrix normed = scratch(normed_, hidden.rows(), config_.hidden);
  rms_norm(hidden, weights_.final_norm, config_.norm_epsilon, normed);
  const shardkit::vocabulary_head head(tensor_, weights_.head, cut_.vocabulary);
  const matrix local = scratch(logits_, hidden.rows(), cut_.vocabulary.count(tensor_.rank()));
  return head.local_logits(normed, local, gemm_).data;
}

std::vector<shardkit::candidate<float>> model::candidates(const_matrix hidden, std::size_t k) {
  const matrix local = local_logits(hidden);
  const shardkit::vocabulary_head head(tensor_, weights_.head, cut_.vocabulary);
  workspace_.resize(std::max(workspace_.size(), head.workspace_bytes(1, k)));
  std::vector<float> values(k);
  std::vector<int> ids(k);
  head.top_k(local, matrix(values.data(), 1, k), shardkit::matrix_view(ids.data(), 1, k),
             shardkit::view_of(workspace_));
  std::vector<shardkit::candidate<float>> best;
  for (std::size_t i = 0; i < k; ++i) best.push_back({values[i], ids[i]});
  return best;
}

std::vector<float> model::logits(const_matrix hidden) {
  const matrix local = local_logits(hidden);
  std::vector<float> all(config_.vocabulary);
  tensor_.all_gather(local.flat(), all, cut_.vocabulary);
  return all;
}

matrix model::scratch(std::vector<float>& memory, std::size_t rows, std::size_t columns) {
  if (memory.size() < rows * columns) memory.resize(rows * columns);
  return {memory.data(), rows, columns};
}

}  // namespace llama
