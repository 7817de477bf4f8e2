// What a rank keeps of the checkpoint: how the model is cut, and where this rank's weights lie in its arena.
#pragma once

#include "config.hpp"

#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/tensor/qkv.hpp>

#include <vector>

namespace llama {

/// How the model is cut: layers over the stages of the pipeline, everything else over the tensor ranks.
struct model_cut {
  model_cut(const model_config& config, int stages, int tensor_ranks);

  shardkit::partition layers;
  shardkit::qkv_cut heads;
  shardkit::partition feed_forward;
  shardkit::partition vocabulary;
};

/// All of it is float32. Matrices are [out, in] as stored by Hugging Face, cut to this rank's rows or columns.
struct layer_slots {
  shardkit::arena_slot input_norm, post_attention_norm;
  shardkit::arena_slot qkv;      ///< this rank's rows of q, k and v, one after the other
  shardkit::arena_slot output;   ///< columns
  shardkit::arena_slot gate_up;  ///< rows of gate, then of up
  shardkit::arena_slot down;     ///< columns
};
struct weight_slots {
  std::vector<layer_slots> layers;  ///< of this stage
  shardkit::arena_slot embedding;   ///< rows of this rank's tokens; first stage
  shardkit::arena_slot final_norm;  ///< last stage
  shardkit::arena_slot head;        ///< rows of this rank's tokens; last stage
};

/// Adds to `plan`, which knows the tensor rank, what that rank of a stage keeps. Throws checkpoint_error where the
/// checkpoint does not hold it.
weight_slots plan_weights(const model_config& config, const model_cut& cut, int stage, shardkit::load_plan& plan);

}  // namespace llama
