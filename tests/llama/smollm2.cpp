// SmolLM2-135M-Instruct against Hugging Face transformers, whose results lie in tests/data/smollm2. Its weights are
// fetched by scripts/demo.sh; without them this test skips itself.
#include "npy.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

using namespace llama_test;
using nlohmann::json;

namespace {

constexpr double tolerance = 5e-5;

// The checkpoint directory: from the environment, from CMake, or where scripts/demo.sh puts it.
std::string model_directory() {
  if (const char* chosen = std::getenv("SHARDKIT_SMOLLM2")) return chosen;
  if (const std::string configured = CONFIGURED_SMOLLM2; !configured.empty()) return configured;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  return (cache != nullptr ? std::string(cache) : std::string(home != nullptr ? home : "") + "/.cache") +
         "/shardkit/smollm2";
}

// The model, or nothing and the line by which ctest knows that nothing was tested.
std::string model_or_skip() {
  const std::string model = model_directory();
  if (std::filesystem::exists(model + "/model.safetensors")) return model;
  std::cout << "skipped: " << model
            << " holds no model; scripts/demo.sh fetches it, or set SHARDKIT_SMOLLM2 to a converted checkpoint\n";
  return {};
}

json expected_results() { return json::parse(read_file(SMOLLM2_RESULTS "/expected.json")); }

std::size_t most_steps(const json& results) {
  std::size_t most = 0;
  for (const json& result : results) most = std::max(most, result.at("greedy").size());
  return most;
}

}  // namespace

TEST_CASE("Tokens and logits of SmolLM2 agree with transformers on one rank, on two and where a rank has no heads") {
  const std::string model = model_or_skip();
  if (model.empty()) return;
  const json results = expected_results();
  const directory folder;
  for (const mesh& ranks : {mesh{1, 1, 1}, mesh{2, 1, 1}, mesh{4, 1, 1}})
    for (const json& result : results) {
      const std::string name = result.at("name");
      CAPTURE(name);
      CAPTURE(ranks.name());
      const std::string output =
          output_of(llama({"--model", model, "--tokens", text_of(result.at("input_ids").get<token_list>()), "--steps",
                           std::to_string(most_steps(results)), "--print-tokens", "--logits", folder / "logits.npy"}) +
                        ranks.arguments(),
                    300);
      CHECK(output == text_of(result.at("greedy").get<token_list>()) + "\n");
      const double error =
          relative_error(read_npy(folder / "logits.npy"), read_npy(SMOLLM2_RESULTS "/" + name + ".npy"));
      CHECK(error <= tolerance);
      std::cout << ranks.name() << " " << name << ": error of the logits " << error << "\n";
    }
}

TEST_CASE("All prompts from one file get the tokens of transformers over three ranks, stages and both") {
  const std::string model = model_or_skip();
  if (model.empty()) return;
  const json results = expected_results();
  const directory folder;
  std::vector<token_list> prompts, expected;
  for (const json& result : results) {
    prompts.push_back(result.at("input_ids"));
    expected.push_back(result.at("greedy"));
  }
  write_file(folder / "prompts", lines_of(prompts));
  for (const mesh& ranks : {mesh{3, 1, 1}, mesh{1, 3, 1}, mesh{2, 2, 1}}) {
    CAPTURE(ranks.name());
    CHECK(output_of(llama({"--model", model, "--tokens-file", folder / "prompts", "--steps",
                           std::to_string(most_steps(results)), "--print-tokens"}) +
                        ranks.arguments(),
                    300) == lines_of(expected));
  }
}
