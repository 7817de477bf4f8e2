// One rank's shard of a Llama model: its stage's layers, cut over the tensor ranks, on any device.
#pragma once

#include "config.hpp"
#include "kernels.hpp"
#include "weights.hpp"

#include <shardkit/core/buffer.hpp>
#include <shardkit/tensor/gated_mlp.hpp>
#include <shardkit/tensor/vocabulary.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace llama {

/// `Device` is host_device, or another class with its public members.
template <class Device>
class model {
 public:
  using space = typename Device::space;
  using communicator = typename Device::communicator;
  using matrix = shardkit::matrix_view<float, space>;
  using const_matrix = shardkit::matrix_view<const float, space>;

  /// One sequence of tokens: its keys and values in this rank's layers, and room for its ids.
  struct sequence {
    std::vector<typename Device::kv_cache> past;
    typename Device::token_room ids;
  };

  /// Collective over the device's pipeline and tensor ranks; the device outlives the model. Reads this rank's bytes
  /// only, converted to float. Throws checkpoint_error on every rank where any finds the checkpoint broken.
  model(Device& device, const model_config& config, const std::string& directory);
  model(const model&) = delete;
  model& operator=(const model&) = delete;

  const model_config& config() const noexcept { return config_; }
  std::uint64_t loaded_bytes() const noexcept { return arena_.size(); }

  sequence make_sequence(std::size_t positions) const;
  /// Once, before anything is computed: memory for so many rows at a time, and so many candidates.
  void reserve(std::size_t rows, std::size_t candidates);

  /// First stage: the embeddings of `ids` as rows of `hidden` [ids, hidden]. Collective over the tensor ranks, as are
  /// the functions below; all of them give the same result on every tensor rank.
  void embed(const std::vector<int>& ids, sequence& of, matrix hidden);
  /// Passes tokens that stand at first_position on through this stage's layers, in place.
  void forward(matrix hidden, sequence& of, std::size_t first_position);
  /// Last stage: the k most likely next tokens after a token with this hidden state [1, hidden], best first.
  std::vector<shardkit::candidate<float>> candidates(const_matrix hidden, std::size_t k);
  /// Last stage: the logits [vocabulary] after that token.
  std::vector<float> logits(const_matrix hidden);

 private:
  template <class T>
  using memory = shardkit::buffer<T, space>;
  using norm = shardkit::view<const float, space>;

  struct layer {
    norm input_norm, post_attention_norm;
    shardkit::qkv_parallel_linear<communicator, const_matrix> qkv;
    shardkit::row_parallel_linear<communicator, const_matrix> output;
    shardkit::gated_mlp<communicator, const_matrix> feed_forward;
  };

  static matrix scratch(memory<float>& of, std::size_t rows, std::size_t columns) { return {of.data(), rows, columns}; }
  // This rank's logits after a hidden state: normalised, times the rows of the head.
  matrix local_logits(const_matrix hidden);
  shardkit::vocabulary_head<communicator, const_matrix> head() const { return {tensor_, head_, cut_.vocabulary}; }

  model_config config_;
  Device& device_;
  communicator& tensor_;
  model_cut cut_;
  memory<std::byte> arena_;  // all weights
  const_matrix embedding_, head_;
  norm final_norm_;
  std::vector<layer> layers_;
  typename Device::rotary_table rotary_;
  typename Device::head_list heads_;
  memory<float> normed_, projected_, attended_, summed_, logits_, scores_;
  memory<int> ids_;
  memory<std::byte> workspace_;
};

template <class Device>
model<Device>::model(Device& device, const model_config& config, const std::string& directory)
    : config_(config),
      device_(device),
      tensor_(device.tensor),
      cut_(config, device.pipeline.size(), tensor_.size()),
      rotary_(device.make_rotary_table({config.head_dim, config.rope_base, config.max_positions})) {
  shardkit::load_plan plan(shardkit::open_archive(tensor_, directory), tensor_.rank(), tensor_.size());
  const weight_slots slots = plan_weights(config, cut_, device.pipeline.rank(), plan);
  arena_ = memory<std::byte>(plan.bytes());
  device.load(plan, arena_);

  const auto norm_of = [&](const shardkit::arena_slot& slot) { return norm(slot.view_in<float>(arena_)); };
  const auto matrix_of = [&](const shardkit::arena_slot& slot) { return const_matrix(slot.matrix_in<float>(arena_)); };
  for (const layer_slots& slot : slots.layers)
    layers_.push_back({norm_of(slot.input_norm),
                       norm_of(slot.post_attention_norm),
                       {tensor_, matrix_of(slot.qkv), cut_.heads},
                       {tensor_, matrix_of(slot.output), cut_.heads.q()},
                       {tensor_, matrix_of(slot.gate_up), matrix_of(slot.down), cut_.feed_forward}});
  if (device.pipeline.is_root()) embedding_ = matrix_of(slots.embedding);
  if (device.pipeline.is_last()) {
    final_norm_ = norm_of(slots.final_norm);
    head_ = matrix_of(slots.head);
  }

  std::vector<head_pair> heads;
  for (std::size_t head = 0; head < cut_.heads.heads(tensor_.rank()); ++head)
    heads.push_back({head, cut_.heads.kv_head(tensor_.rank(), head)});
  heads_ = device.make_head_list(heads);
}

template <class Device>
typename model<Device>::sequence model<Device>::make_sequence(std::size_t positions) const {
  sequence made;
  for (std::size_t i = 0; i < layers_.size(); ++i)
    made.past.emplace_back(cut_.heads.kv_heads(tensor_.rank()), config_.head_dim, positions);
  made.ids = device_.make_token_room(positions);
  return made;
}

template <class Device>
void model<Device>::reserve(std::size_t rows, std::size_t candidates) {
  const int rank = tensor_.rank();
  normed_ = memory<float>(rows * config_.hidden);
  summed_ = memory<float>(rows * config_.hidden);
  projected_ = memory<float>(rows * cut_.heads.rows().count(rank));
  attended_ = memory<float>(rows * cut_.heads.q().count(rank));
  std::size_t workspace = 0;
  for (const layer& one : layers_) workspace = std::max(workspace, one.feed_forward.workspace_bytes(rows));
  if (device_.pipeline.is_last()) {
    logits_ = memory<float>(cut_.vocabulary.count(rank));
    scores_ = memory<float>(candidates);
    ids_ = memory<int>(candidates);
    workspace = std::max(workspace, head().workspace_bytes(1, candidates));
  }
  workspace_ = memory<std::byte>(workspace);
}

template <class Device>
void model<Device>::embed(const std::vector<int>& ids, sequence& of, matrix hidden) {
  shardkit::vocabulary_embedding(tensor_, embedding_, cut_.vocabulary)
      .forward(device_.tokens(ids, of.ids), hidden, device_.stream);
}

template <class Device>
void model<Device>::forward(matrix hidden, sequence& of, std::size_t first_position) {
  const std::size_t rows = hidden.rows();
  const auto stream = shardkit::at<space>(device_.stream);
  const matrix normed = scratch(normed_, rows, config_.hidden);
  const matrix summed = scratch(summed_, rows, config_.hidden);
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const layer& now = layers_[i];
    device_.rms_norm(hidden, now.input_norm, config_.norm_epsilon, normed);
    const auto [q, k, v] = now.qkv.forward(normed, scratch(projected_, rows, now.qkv.columns()), device_.gemm, stream);
    device_.rotate(q.data, rotary_, first_position);
    device_.rotate(k.data, rotary_, first_position);
    device_.store(k.data, v.data, first_position, of.past[i]);
    const matrix attended = scratch(attended_, rows, q.data.columns());
    device_.attend(q.data, of.past[i], heads_, config_.head_dim, first_position, attended);
    now.output.forward(shardkit::sharded(attended, q.cut), summed, device_.gemm, const_matrix(hidden), stream);

    device_.rms_norm(summed, now.post_attention_norm, config_.norm_epsilon, normed);
    now.feed_forward.forward(
        normed, hidden, device_.gemm, [&](matrix gate, matrix up, auto) { device_.silu_multiply(gate, up); },
        shardkit::view_of(workspace_), const_matrix(summed), stream);
  }
}

template <class Device>
typename model<Device>::matrix model<Device>::local_logits(const_matrix hidden) {
  const matrix normed = scratch(normed_, hidden.rows(), config_.hidden);
  device_.rms_norm(hidden, final_norm_, config_.norm_epsilon, normed);
  const matrix local = scratch(logits_, hidden.rows(), cut_.vocabulary.count(tensor_.rank()));
  return head().local_logits(normed, local, device_.gemm, device_.stream).data;
}

template <class Device>
std::vector<shardkit::candidate<float>> model<Device>::candidates(const_matrix hidden, std::size_t k) {
  head().top_k(local_logits(hidden), scratch(scores_, 1, k), shardkit::matrix_view<int, space>(ids_.data(), 1, k),
               shardkit::view_of(workspace_), device_.stream);
  const auto scores = device_.fetch(shardkit::view<const float, space>(scores_.data(), k));
  const auto ids = device_.fetch(shardkit::view<const int, space>(ids_.data(), k));
  std::vector<shardkit::candidate<float>> best;
  for (std::size_t i = 0; i < k; ++i) best.push_back({scores[i], ids[i]});
  return best;
}

template <class Device>
std::vector<float> model<Device>::logits(const_matrix hidden) {
  memory<float> all(config_.vocabulary);
  tensor_.all_gather(local_logits(hidden).flat(), all, cut_.vocabulary, device_.stream);
  return device_.fetch(shardkit::view<const float, space>(shardkit::view_of(all)));
}

}  // namespace llama
