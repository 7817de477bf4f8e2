// This rank's part of the model: how it is cut, and its weights in one arena.
#pragma once

#include "config.hpp"
#include "kernels.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/tensor/qkv.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace llama {

using communicator = shardkit::any_communicator<shardkit::host_space>;

/// How the model is cut: layers over the stages of the pipeline, everything else over the tensor ranks.
struct model_cut {
  model_cut(const model_config& config, int stages, int tensor_ranks);

  shardkit::partition layers;
  shardkit::qkv_cut heads;
  shardkit::partition feed_forward;
  shardkit::partition vocabulary;
};

/// All matrices are [out, in] as stored by Hugging Face, cut to this rank's rows or columns.
struct layer_weights {
  shardkit::view<const float> input_norm, post_attention_norm;
  const_matrix qkv;      ///< this rank's rows of q, k and v, one after the other
  const_matrix output;   ///< columns
  const_matrix gate_up;  ///< rows of gate, then of up
  const_matrix down;     ///< columns
};

class weights {
 public:
  /// Collective over both communicators. Reads this rank's bytes only, converted to float. Throws checkpoint_error on
  /// every rank where any finds the checkpoint broken.
  weights(const model_config& config, const model_cut& cut, const std::string& directory, communicator& pipeline,
          communicator& tensor);

  std::vector<layer_weights> layers;       ///< of this stage
  const_matrix embedding;                  ///< rows of this rank's tokens; first stage
  shardkit::view<const float> final_norm;  ///< last stage
  const_matrix head;                       ///< rows of this rank's tokens; last stage

  std::uint64_t loaded_bytes() const noexcept { return arena_.size(); }

 private:
  shardkit::buffer<std::byte> arena_;
};

}  // namespace llama
