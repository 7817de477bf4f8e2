// A small random checkpoint for tests and for machines without network.
#pragma once

#include <string>

namespace llama {

/// Writes config.json and model.safetensors to the directory, which is made if missing: 5 layers, 9 heads and 3
/// key/value heads of 8, feed-forward 200, vocabulary 257, none of which divides by the usual numbers of ranks; the
/// weights are the same on every machine, and stored as f32, bf16 and f16. Throws checkpoint_error.
void make_tiny_checkpoint(const std::string& directory);

}  // namespace llama
