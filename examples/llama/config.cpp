#include "config.hpp"

#include <shardkit/core/error.hpp>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

namespace llama {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw shardkit::checkpoint_error(path + ": " + why);
}

json read_json(const std::string& path) {
  std::ifstream file(path);
  if (!file) refuse(path, "cannot be read; --model takes a Hugging Face checkpoint directory");
  try {
    return json::parse(file);
  } catch (const json::exception& broken) {
    refuse(path, broken.what());
  }
}

// A missing or null field takes the fallback.
template <class T>
T field(const json& config, const char* name, T fallback) {
  const auto found = config.find(name);
  return found == config.end() || found->is_null() ? fallback : found->get<T>();
}

std::size_t size_field(const json& config, const std::string& path, const char* name, std::size_t fallback = 0) {
  const auto value = field<long long>(config, name, static_cast<long long>(fallback));
  if (value < 1) refuse(path, std::string(name) + " is missing or not positive");
  return static_cast<std::size_t>(value);
}

// Fields that change the computation: the value this engine implements, or absence.
void require_supported(const json& config, const std::string& path) {
  const auto only = [&](const char* name, const json& supported) {
    const auto found = config.find(name);
    if (found != config.end() && !found->is_null() && *found != supported)
      refuse(path, std::string(name) + " = " + found->dump() + " is not supported; this engine computes " +
                       supported.dump() + " only");
  };
  only("model_type", "llama");
  only("architectures", json::array({"LlamaForCausalLM"}));
  only("hidden_act", "silu");
  only("attention_bias", false);
  only("mlp_bias", false);
  only("partial_rotary_factor", 1.0);
  only("pretraining_tp", 1);
  for (const char* name : {"rope_scaling", "quantization_config", "sliding_window"})
    if (config.contains(name) && !config[name].is_null())
      refuse(path, std::string(name) + " = " + config[name].dump() + " is not supported");
  const json rope = field(config, "rope_parameters", json::object());
  if (field<std::string>(rope, "rope_type", "default") != "default" || field(rope, "partial_rotary_factor", 1.0) != 1.0)
    refuse(path, "rope_parameters = " + rope.dump() + " is not supported");
}

float rope_base(const json& config) {
  return field(field(config, "rope_parameters", json::object()), "rope_theta", field(config, "rope_theta", 10000.0f));
}

// A number, a list of numbers, or nothing.
std::vector<int> end_ids(const json& config, const std::string& path) {
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return {};
  try {
    return found->is_array() ? found->get<std::vector<int>>() : std::vector<int>{found->get<int>()};
  } catch (const json::exception&) {
    refuse(path, "eos_token_id = " + found->dump() + " is neither an id nor a list of ids");
  }
}

}  // namespace

bool model_config::ends(int id) const { return std::find(end_ids.begin(), end_ids.end(), id) != end_ids.end(); }

model_config read_config(const std::string& directory) {
  const std::string path = directory + "/config.json";
  const json config = read_json(path);
  try {
    require_supported(config, path);
    model_config model{};
    model.layers = size_field(config, path, "num_hidden_layers");
    model.hidden = size_field(config, path, "hidden_size");
    model.intermediate = size_field(config, path, "intermediate_size");
    model.heads = size_field(config, path, "num_attention_heads");
    model.kv_heads = size_field(config, path, "num_key_value_heads", model.heads);
    model.head_dim = size_field(config, path, "head_dim", model.hidden / model.heads);
    model.vocabulary = size_field(config, path, "vocab_size");
    model.max_positions = size_field(config, path, "max_position_embeddings", 2048);
    model.rope_base = rope_base(config);
    model.norm_epsilon = field(config, "rms_norm_eps", 1e-6f);
    model.tied_embeddings = field(config, "tie_word_embeddings", false);
    if (model.heads % model.kv_heads != 0) refuse(path, "num_attention_heads is no multiple of num_key_value_heads");
    if (model.head_dim % 2 != 0) refuse(path, "head_dim is odd, rotary embedding needs pairs");

    const std::string generation = directory + "/generation_config.json";
    if (std::ifstream(generation)) model.end_ids = end_ids(read_json(generation), generation);
    if (model.end_ids.empty()) model.end_ids = end_ids(config, path);
    return model;
  } catch (const json::exception& wrong_type) {
    refuse(path, wrong_type.what());
  }
}

}  // namespace llama
