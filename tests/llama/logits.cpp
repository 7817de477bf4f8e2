// The logits of the llama program against a serial forward pass, on every mesh.
#include "meshes.hpp"
#include "npy.hpp"
#include "reference.hpp"

#include <algorithm>
#include <vector>

using namespace llama_test;

namespace {

constexpr double tolerance = 5e-5;

// The logits after a prompt, as the program writes them; checks that it goes on with the largest.
std::vector<float> logits_of(const tiny_checkpoint& model, const token_list& prompt, const mesh& ranks) {
  const directory folder;
  const std::string file = folder / "logits.npy";
  const std::string first = output_of(llama({"--model", model.path(), "--tokens", text_of(prompt), "--steps", "1",
                                             "--print-tokens", "--logits", file}) +
                                      ranks.arguments());
  const std::vector<float> logits = read_npy(file);
  const auto largest = std::max_element(logits.begin(), logits.end()) - logits.begin();
  CHECK(first == std::to_string(largest) + "\n");
  return logits;
}

}  // namespace

TEST_CASE("On every mesh the logits agree with a serial forward pass in double") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  for (const std::size_t length : {1u, 3u, 64u, 70u}) {
    const token_list prompt = prompt_of(length);
    const std::vector<double> expected = reference.logits(prompt);
    for (const mesh& ranks : meshes) {
      CAPTURE(ranks.name());
      CAPTURE(length);
      const std::vector<float> logits = logits_of(model, prompt, ranks);
      CHECK(logits.size() == 257);
      CHECK(relative_error(logits, expected) <= tolerance);
    }
  }
}

TEST_CASE("Prompts around the attention's blocks of 64 rows agree with a serial forward pass") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  for (const std::size_t length : {2u, 63u, 65u, 128u, 130u}) {
    CAPTURE(length);
    const token_list prompt = prompt_of(length, 7);
    CHECK(relative_error(logits_of(model, prompt, {1, 1, 1}), reference.logits(prompt)) <= tolerance);
  }
}

TEST_CASE("With tied embeddings the head is the embedding table, on one rank, on several, and on different stages") {
  const tiny_checkpoint model;
  model.set("tie_word_embeddings", true);
  model.remove_tensor("lm_head.weight");
  const token_list prompt = prompt_of(11);
  const std::vector<double> expected = reference_model(model).logits(prompt);
  for (const mesh& ranks : {mesh{1, 1, 1}, mesh{4, 1, 1}, mesh{1, 2, 1}, mesh{2, 3, 1}}) {
    CAPTURE(ranks.name());
    CHECK(relative_error(logits_of(model, prompt, ranks), expected) <= tolerance);
  }
}

TEST_CASE("The base of the rotary embedding is taken from either of the fields that name it") {
  const tiny_checkpoint model;
  const token_list prompt = prompt_of(40);
  model.set("rope_theta", 500.0);
  const std::vector<double> expected = reference_model(model).logits(prompt);
  CHECK(relative_error(logits_of(model, prompt, {1, 1, 1}), expected) <= tolerance);
  model.remove("rope_theta");
  CHECK(relative_error(logits_of(model, prompt, {1, 1, 1}), expected) > 100 * tolerance);  // the default is another
  model.set("rope_parameters", {{"rope_type", "default"}, {"rope_theta", 500.0}});
  CHECK(relative_error(logits_of(model, prompt, {1, 1, 1}), expected) <= tolerance);
}

TEST_CASE("Fields that may be absent or null stand for the usual values") {
  const tiny_checkpoint model;
  const token_list prompt = prompt_of(9);
  const std::vector<double> expected = reference_model(model).logits(prompt);
  for (const char* field : {"rope_scaling", "attention_bias", "sliding_window", "quantization_config"})
    model.set(field, nullptr);
  model.set("mlp_bias", false);
  for (const char* field : {"head_dim", "rope_theta", "tie_word_embeddings", "max_position_embeddings", "hidden_act"})
    model.remove(field);
  CHECK(relative_error(logits_of(model, prompt, {2, 1, 1}), expected) <= tolerance);
}

TEST_CASE("With no steps the logits are written all the same, and the first token is not printed") {
  const tiny_checkpoint model;
  const token_list prompt = prompt_of(6);
  const std::vector<double> expected = reference_model(model).logits(prompt);
  for (const mesh& ranks : {mesh{1, 1, 1}, mesh{2, 2, 2}}) {
    const directory folder;
    const std::string file = folder / "logits.npy";
    CHECK(output_of(llama({"--model", model.path(), "--tokens", text_of(prompt), "--steps", "0", "--print-tokens",
                           "--logits", file}) +
                    ranks.arguments()) == "\n");
    CHECK(relative_error(read_npy(file), expected) <= tolerance);
  }
}
