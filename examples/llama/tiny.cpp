#include "tiny.hpp"

#include <shardkit/checkpoint/safetensors_writer.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

namespace llama {
namespace {

constexpr const char* config = R"({
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "num_hidden_layers": 5,
  "hidden_size": 72,
  "intermediate_size": 200,
  "num_attention_heads": 9,
  "num_key_value_heads": 3,
  "head_dim": 8,
  "vocab_size": 257,
  "max_position_embeddings": 512,
  "rope_theta": 10000.0,
  "rms_norm_eps": 1e-05,
  "hidden_act": "silu",
  "tie_word_embeddings": false,
  "eos_token_id": 2
}
)";
constexpr std::size_t layers = 5, hidden = 72, attention = 72, kv = 24, intermediate = 200, vocabulary = 257;

// Uniform in [-1, 1): splitmix64, because the standard distributions differ between libraries.
class random_numbers {
 public:
  float next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<float>(static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0);
  }

 private:
  std::uint64_t state_ = 42;
};

std::vector<shardkit::tensor_declaration> tensors() {
  using shardkit::dtype;
  std::vector<shardkit::tensor_declaration> list = {{"model.embed_tokens.weight", dtype::f32, {vocabulary, hidden}}};
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    list.push_back({prefix + "input_layernorm.weight", dtype::f32, {hidden}});
    list.push_back({prefix + "self_attn.q_proj.weight", dtype::bf16, {attention, hidden}});
    list.push_back({prefix + "self_attn.k_proj.weight", dtype::bf16, {kv, hidden}});
    list.push_back({prefix + "self_attn.v_proj.weight", dtype::bf16, {kv, hidden}});
    list.push_back({prefix + "self_attn.o_proj.weight", dtype::bf16, {hidden, attention}});
    list.push_back({prefix + "post_attention_layernorm.weight", dtype::f32, {hidden}});
    list.push_back({prefix + "mlp.gate_proj.weight", dtype::f16, {intermediate, hidden}});
    list.push_back({prefix + "mlp.up_proj.weight", dtype::f16, {intermediate, hidden}});
    list.push_back({prefix + "mlp.down_proj.weight", dtype::f16, {hidden, intermediate}});
  }
  list.push_back({"model.norm.weight", dtype::f32, {hidden}});
  list.push_back({"lm_head.weight", dtype::f32, {vocabulary, hidden}});
  return list;
}

// Norms stay near 1; matrices get the variance that keeps activations of order 1.
std::vector<float> random_values(const std::vector<std::size_t>& shape, random_numbers& random) {
  const std::size_t count = std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
  const bool norm = shape.size() == 1;
  const float scale = norm ? 0.2f : std::sqrt(3.0f / static_cast<float>(shape.back()));
  std::vector<float> values(count);
  for (float& value : values) value = (norm ? 1.0f : 0.0f) + scale * random.next();
  return values;
}

template <class Stored>
std::vector<Stored> as(const std::vector<float>& values) {
  return std::vector<Stored>(values.begin(), values.end());
}

}  // namespace

void make_tiny_checkpoint(const std::string& directory) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  const auto list = tensors();
  shardkit::safetensors_writer file(directory + "/model.safetensors", list);
  random_numbers random;
  for (const auto& tensor : list) {
    const std::vector<float> values = random_values(tensor.shape, random);
    switch (tensor.type) {
      case shardkit::dtype::bf16: file.write(as<shardkit::bfloat16>(values)); break;
      case shardkit::dtype::f16: file.write(as<shardkit::float16>(values)); break;
      default: file.write(values);
    }
  }
  file.commit();
  std::ofstream json(directory + "/config.json");
  json << config;
  if (!json.flush()) throw shardkit::checkpoint_error(directory + "/config.json: cannot be written");
}

}  // namespace llama
