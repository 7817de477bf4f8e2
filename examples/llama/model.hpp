// One rank's shard of a Llama model: its stage's layers, cut over the tensor ranks.
#pragma once

#include "config.hpp"
#include "kernels.hpp"
#include "weights.hpp"

#include <shardkit/tensor/cblas_gemm.hpp>
#include <shardkit/tensor/gated_mlp.hpp>
#include <shardkit/tensor/qkv.hpp>
#include <shardkit/tensor/vocabulary.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace llama {

/// The keys and values of one sequence in this rank's layers.
using sequence = std::vector<kv_cache>;

class model {
 public:
  /// Collective over both communicators, which outlive the model. Throws checkpoint_error.
  model(const model_config& config, const std::string& directory, communicator& pipeline, communicator& tensor);
  model(const model&) = delete;
  model& operator=(const model&) = delete;

  const model_config& config() const noexcept { return config_; }
  std::uint64_t loaded_bytes() const noexcept { return weights_.loaded_bytes(); }

  sequence make_sequence(std::size_t positions) const;

  /// First stage: the embeddings of `ids` as rows of `hidden` [ids, hidden]. Collective over the tensor ranks, as are
  /// the functions below; all of them give the same result on every tensor rank.
  void embed(const std::vector<int>& ids, matrix hidden);
  /// Passes tokens that stand at first_position on through this stage's layers, in place.
  void forward(matrix hidden, sequence& past, std::size_t first_position);
  /// Last stage: the k most likely next tokens after a token with this hidden state [1, hidden], best first.
  std::vector<shardkit::candidate<float>> candidates(const_matrix hidden, std::size_t k);
  /// Last stage: the logits [vocabulary] after that token.
  std::vector<float> logits(const_matrix hidden);

 private:
  struct layer {
    shardkit::view<const float> input_norm, post_attention_norm;
    shardkit::qkv_parallel_linear<communicator, const_matrix> qkv;
    shardkit::row_parallel_linear<communicator, const_matrix> output;
    shardkit::gated_mlp<communicator, const_matrix> feed_forward;
  };

  // A matrix in memory that is kept between calls.
  static matrix scratch(std::vector<float>& memory, std::size_t rows, std::size_t columns);
  // This rank's logits after a hidden state: normalised, times the rows of the head.
  matrix local_logits(const_matrix hidden);

  model_config config_;
  communicator& tensor_;
  model_cut cut_;
  weights weights_;
  rotary_embedding rotary_;
  std::vector<head_pair> heads_;
  std::vector<layer> layers_;
  shardkit::cblas_gemm gemm_;
  std::vector<float> normed_, projected_, attended_, summed_, logits_, scores_;
  std::vector<std::byte> workspace_;
};

}  // namespace llama
