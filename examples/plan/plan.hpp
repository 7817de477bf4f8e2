// What a mesh of ranks costs and gains for a model of the Llama family, by arithmetic alone: the partitions that the
// library would cut by, and the closed forms of its collectives and of a pipeline. Nothing is run.
#pragma once

#include <shardkit/core/partition.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace plan {

/// What config.json says of a model.
struct model {
  std::size_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary;
  bool tied;  ///< embedding and head share their weights
};

/// `path` is a config.json in the layout of Hugging Face, or a folder that holds one. Throws usage_error.
model read_model(const std::string& path);

struct request {
  int tensor = 1, pipeline = 1, data = 1;
  std::size_t context = 4096;        ///< positions of each sequence
  std::size_t sequences = 1;         ///< under way in one replica at a time
  std::size_t microbatches = 4;      ///< of a step through the pipeline
  std::size_t weight_bytes = 2;      ///< of one weight or gradient
  std::size_t activation_bytes = 2;  ///< of one element of activations and of the cache
};

/// One rank of a replica. Bytes.
struct rank_plan {
  int stage, tensor;
  std::size_t layers, heads, kv_heads, features;
  std::uint64_t weights;    ///< parameters it holds
  std::uint64_t cache;      ///< keys and values
  std::uint64_t gradients;  ///< training: of its weights
  std::uint64_t optimizer;  ///< training: AdamW's two moments and a master copy in f32, sharded over data
};

struct costs {
  std::uint64_t parameters;
  std::vector<rank_plan> ranks;  ///< of one replica, tensor fastest

  // Bytes that the busiest rank sends, by axis. An all_reduce of n bytes over T ranks sends 2 (T - 1) / T n (ring).
  double tensor_wire;    ///< for each token
  double pipeline_wire;  ///< for each token
  double data_wire;      ///< training: for each step

  // In multiply-adds; the ranks of a layer meet after its attention and after its feed-forward.
  double serial_work;              ///< of one token, on one rank
  std::vector<double> stage_work;  ///< of one token, on the busiest rank of each stage

  double latency_speed_up;     ///< of a single token: tensor ranks work side by side, stages one after the other
  double throughput_speed_up;  ///< of a step of microbatches over all replicas, ideal but for the bubble
  double bubble;               ///< idle share of the stages in that step
};

/// Throws usage_error where the request makes no sense.
costs compute(const model& of, const request& what);

}  // namespace plan
