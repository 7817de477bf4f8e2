// What a Hugging Face checkpoint directory says about its model. Everything this engine would compute differently is
// refused by name.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace llama {

struct model_config {
  std::size_t layers, hidden, intermediate, heads, kv_heads, head_dim, vocabulary, max_positions;
  float rope_base, norm_epsilon;
  bool tied_embeddings;
  std::vector<int> end_ids;  ///< generation stops after one of these

  bool ends(int id) const;
};

/// Reads config.json and, for the end ids, generation_config.json. Throws checkpoint_error.
model_config read_config(const std::string& directory);

}  // namespace llama
