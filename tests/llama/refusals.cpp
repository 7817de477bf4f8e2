// Checkpoints that the llama program cannot compute or read: one clear error, on every mesh, and no hang.
#include "checkpoint.hpp"

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

using namespace llama_test;

namespace {

std::string refusal_on(const tiny_checkpoint& model, const mesh& ranks) {
  return refusal_of(llama({"--model", model.path(), "--tokens", "1,2,3", "--steps", "4", "--print-tokens"}) +
                    ranks.arguments());
}

}  // namespace

TEST_CASE("Configuration fields that change the computation are refused by name and value") {
  const std::vector<std::pair<std::string, json>> fields = {
      {"model_type", "qwen2"},
      {"architectures", {"MistralForCausalLM"}},
      {"hidden_act", "gelu"},
      {"attention_bias", true},
      {"mlp_bias", true},
      {"partial_rotary_factor", 0.5},
      {"pretraining_tp", 2},
      {"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8.0}}},
      {"rope_parameters", {{"rope_type", "yarn"}, {"rope_theta", 10000.0}}},
      {"rope_parameters", {{"rope_theta", 10000.0}, {"partial_rotary_factor", 0.5}}},
      {"quantization_config", {{"quant_method", "gptq"}}},
      {"sliding_window", 128},
  };
  for (const auto& [field, value] : fields) {
    CAPTURE(field);
    const tiny_checkpoint model;
    model.set(field, value);
    const std::string refusal = refusal_on(model, {2, 1, 1});
    CHECK(contains(refusal, "config.json: " + field + " = " + value.dump()));
    CHECK(contains(refusal, "not supported"));
  }
}

TEST_CASE("Sizes that are missing or make no model are refused by name") {
  for (const char* field :
       {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size"}) {
    CAPTURE(field);
    const tiny_checkpoint model;
    model.set(field, 0);
    CHECK(contains(refusal_on(model, {1, 1, 1}), std::string(field) + " is missing or not positive"));
    model.set(field, -5);
    CHECK(contains(refusal_on(model, {1, 1, 1}), std::string(field) + " is missing or not positive"));
    model.remove(field);
    CHECK(contains(refusal_on(model, {2, 1, 1}), std::string(field) + " is missing or not positive"));
  }
  const tiny_checkpoint model;
  model.set("num_key_value_heads", 2);
  CHECK(contains(refusal_on(model, {2, 1, 1}), "num_attention_heads is no multiple of num_key_value_heads"));
  model.set("num_key_value_heads", 3);
  model.set("head_dim", 7);
  CHECK(contains(refusal_on(model, {2, 1, 1}), "head_dim is odd"));
}

TEST_CASE("A configuration that is no JSON, or holds the wrong types, is refused with its file's name") {
  const tiny_checkpoint model;
  model.set("hidden_size", "big");
  CHECK(contains(refusal_on(model, {2, 1, 1}), "config.json: "));
  write_file(model.path() + "/config.json", "{\"model_type\": ");
  CHECK(contains(refusal_on(model, {2, 1, 1}), "config.json: "));

  const tiny_checkpoint other;
  other.set_generation_config({{"eos_token_id", "</s>"}});
  CHECK(contains(refusal_on(other, {2, 1, 1}), "generation_config.json: eos_token_id = \"</s>\" is neither"));
  write_file(other.path() + "/generation_config.json", "oops");
  CHECK(contains(refusal_on(other, {2, 1, 1}), "generation_config.json: "));
}

TEST_CASE("Weights of another shape than the configuration says are refused with both shapes") {
  const tiny_checkpoint model;
  model.set("intermediate_size", 208);
  const std::string refusal = refusal_on(model, {3, 1, 1});
  CHECK(contains(refusal, "mlp.gate_proj.weight"));
  CHECK(contains(refusal, "[200, 72]"));
  CHECK(contains(refusal, "[208, 72]"));
}

TEST_CASE("A truncated file of weights is one error on every mesh") {
  const std::string whole = read_file(tiny_checkpoint().weights());
  for (const std::size_t length :
       {std::size_t{0}, std::size_t{7}, std::size_t{8}, std::size_t{1000}, whole.size() / 2, whole.size() - 1})
    for (const mesh& ranks : {mesh{1, 1, 1}, mesh{3, 1, 1}, mesh{1, 2, 1}, mesh{1, 1, 2}, mesh{2, 2, 1}}) {
      CAPTURE(length);
      CAPTURE(ranks.name());
      const tiny_checkpoint model;
      write_file(model.weights(), whole.substr(0, length));
      CHECK(contains(refusal_on(model, ranks), "model.safetensors"));
    }
}

TEST_CASE("A tensor that only one stage of the pipeline misses ends all stages") {
  for (const char* name : {"lm_head.weight", "model.embed_tokens.weight", "model.layers.2.mlp.down_proj.weight"})
    for (const mesh& ranks : {mesh{1, 1, 1}, mesh{1, 3, 1}, mesh{2, 2, 1}, mesh{1, 2, 2}}) {
      CAPTURE(ranks.name());
      const tiny_checkpoint model;
      model.remove_tensor(name);
      CHECK(contains(refusal_on(model, ranks), "has no tensor '" + std::string(name) + "'"));
    }
}

TEST_CASE("A directory without weights is refused") {
  const tiny_checkpoint model;
  std::filesystem::remove(model.weights());
  CHECK(contains(refusal_on(model, {2, 1, 1}), "model.safetensors"));
}

TEST_CASE("A tokenizer that this program cannot decode is refused where text is asked for, and only there") {
  const tiny_checkpoint model;
  write_file(model.path() + "/tokenizer.json", json{{"model", {{"vocab", {{"\u2581the", 5}}}}}}.dump());
  const command_line ask = llama({"--model", model.path(), "--tokens", "1", "--steps", "2", "--tensor", "2"});
  CHECK(contains(refusal_of(ask), "tokenizer.json: '\u2581the' is no byte-level token"));
  CHECK(run(ask + command_line{"--print-tokens"}).status == 0);
}
