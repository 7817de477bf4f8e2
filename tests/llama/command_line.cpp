// The command line of the llama program: what is printed where, where generation ends, and mistakes.
#include "npy.hpp"
#include "reference.hpp"

#include <algorithm>
#include <string>
#include <vector>

using namespace llama_test;

namespace {

command_line ask(const tiny_checkpoint& model, const std::string& tokens, const std::string& steps) {
  return llama({"--model", model.path(), "--tokens", tokens, "--steps", steps, "--print-tokens"});
}

// A prompt whose answer holds several different tokens, so that a test can choose which of them ends it.
struct varied_answer {
  token_list prompt, answer;  ///< without end ids
  std::size_t early, late;    ///< the first places where two tokens of the answer occur; 1 < early < late

  explicit varied_answer(const tiny_checkpoint& model) {
    const reference_model reference(model);
    for (std::uint32_t seed = 1; seed < 40; ++seed) {
      prompt = prompt_of(4, seed);
      answer = reference.greedy(prompt, 16, {});
      token_list seen;
      std::vector<std::size_t> first_places;
      for (std::size_t i = 0; i < answer.size(); ++i)
        if (std::find(seen.begin(), seen.end(), answer[i]) == seen.end()) {
          seen.push_back(answer[i]);
          if (i > 1) first_places.push_back(i);
        }
      if (first_places.size() < 2 || first_places.back() + 1 == answer.size()) continue;
      early = first_places[0];
      late = first_places.back();
      return;
    }
    FAIL("no prompt has an answer of several tokens");
  }

  std::string up_to(std::size_t last) const {
    return text_of(token_list(answer.begin(), answer.begin() + static_cast<std::ptrdiff_t>(last) + 1)) + "\n";
  }
};

}  // namespace

TEST_CASE("Standard output holds one line of ids and nothing else") {
  const tiny_checkpoint model;
  const outcome ended = run(ask(model, " 1, 2 ,3", "6"));
  CHECK(ended.status == 0);
  CHECK(ended.output == text_of(reference_model(model).greedy({1, 2, 3}, 6)) + "\n");
  CHECK(contains(ended.errors, "generated"));
}

TEST_CASE("At most --steps ids are printed; 0 gives an empty line") {
  const tiny_checkpoint model;
  const token_list answer = reference_model(model).greedy({7, 8}, 9);
  REQUIRE(answer.size() == 9);
  for (const std::size_t steps : {0u, 1u, 2u, 9u}) {
    const token_list expected(answer.begin(), answer.begin() + static_cast<std::ptrdiff_t>(steps));
    CHECK(output_of(ask(model, "7,8", std::to_string(steps))) == text_of(expected) + "\n");
  }
  const directory folder;
  write_file(folder / "prompts", "1\n2,3\n4\n");
  for (const char* data : {"1", "2", "4"})
    CHECK(output_of(llama({"--model", model.path(), "--tokens-file", folder / "prompts", "--steps", "0",
                           "--print-tokens", "--data", data})) == "\n\n\n");
}

TEST_CASE("Generation ends behind an end id, given as a number or as a list") {
  const tiny_checkpoint model;
  const varied_answer varied(model);
  const int end = varied.answer[varied.early], unused = 256;
  REQUIRE(std::count(varied.answer.begin(), varied.answer.end(), unused) == 0);
  model.set("eos_token_id", end);
  const std::string expected = varied.up_to(varied.early);
  for (const char* pipeline : {"1", "2"})
    CHECK(output_of(ask(model, text_of(varied.prompt), "16") + command_line{"--pipeline", pipeline}) == expected);
  model.set("eos_token_id", {unused, end});
  CHECK(output_of(ask(model, text_of(varied.prompt), "16")) == expected);
  model.set("eos_token_id", {unused});
  CHECK(output_of(ask(model, text_of(varied.prompt), "16")) == text_of(varied.answer) + "\n");
}

TEST_CASE("The first new id may be an end id; the prompt's own do not count") {
  const tiny_checkpoint model;
  const varied_answer varied(model);
  model.set("eos_token_id", varied.answer[0]);
  CHECK(output_of(ask(model, text_of(varied.prompt), "16")) == varied.up_to(0));
  model.set("eos_token_id", varied.prompt.back());
  REQUIRE(std::count(varied.answer.begin(), varied.answer.end(), varied.prompt.back()) == 0);
  CHECK(output_of(ask(model, text_of(varied.prompt), "16")) == text_of(varied.answer) + "\n");
}

TEST_CASE("End ids come from generation_config.json; from config.json where that has none; there may be none") {
  const tiny_checkpoint model;
  const varied_answer varied(model);
  const std::string prompt = text_of(varied.prompt);
  model.set("eos_token_id", varied.answer[varied.early]);
  model.set_generation_config({{"eos_token_id", varied.answer[varied.late]}});
  CHECK(output_of(ask(model, prompt, "16")) == varied.up_to(varied.late));
  model.set_generation_config({{"eos_token_id", {varied.answer[varied.late], varied.answer[varied.early]}}});
  CHECK(output_of(ask(model, prompt, "16")) == varied.up_to(varied.early));
  for (const json& without : {json{{"bos_token_id", 1}}, json{{"eos_token_id", nullptr}}}) {
    model.set_generation_config(without);
    CHECK(output_of(ask(model, prompt, "16")) == varied.up_to(varied.early));
  }
  model.set("eos_token_id", nullptr);
  CHECK(output_of(ask(model, prompt, "16")) == text_of(varied.answer) + "\n");
  model.remove("eos_token_id");
  CHECK(output_of(ask(model, prompt, "16")) == text_of(varied.answer) + "\n");
}

TEST_CASE("A prompt may fill the model's positions, and generation ends there; a longer one is refused") {
  const tiny_checkpoint model;
  model.set("max_position_embeddings", 20);
  const auto answer_to = [&](std::size_t length) { return ask(model, text_of(prompt_of(length)), "2147483647"); };
  const reference_model reference(model);
  for (const char* tensor : {"1", "3"})
    for (const std::size_t length : {17u, 19u, 20u})
      CHECK(output_of(answer_to(length) + command_line{"--tensor", tensor}) ==
            text_of(reference.greedy(prompt_of(length), std::max<std::size_t>(1, 20 - length), {2})) + "\n");
  const std::string refusal = refusal_of(answer_to(21) + command_line{"--tensor", "3"});
  CHECK(contains(refusal, "prompt 1 has 21 tokens, the model takes 20"));
}

TEST_CASE("Ids outside the vocabulary are refused on every mesh") {
  const tiny_checkpoint model;
  for (const char* ranks : {"1", "4"})
    for (const char* axis : {"--tensor", "--pipeline", "--data"}) {
      const std::string refusal = refusal_of(ask(model, "1,257", "3") + command_line{axis, ranks});
      CHECK(contains(refusal, "prompt 1 has the token 257, the vocabulary ends at 256"));
    }
}

TEST_CASE("What is no list of ids is refused, and quoted") {
  const tiny_checkpoint model;
  for (const char* tokens : {"", ",", "1,", ",1", "1,,2", "one", "1 2", "1,-2", "1.5", "0x10", "99999999999"}) {
    CAPTURE(tokens);
    CHECK(contains(refusal_of(ask(model, tokens, "3")), "is not a token id"));
  }
}

TEST_CASE("A file of prompts names the line of its mistake") {
  const tiny_checkpoint model;
  const directory folder;
  const auto refusal_for = [&](const std::string& contents) {
    write_file(folder / "prompts", contents);
    return refusal_of(llama({"--model", model.path(), "--tokens-file", folder / "prompts", "--steps", "1"}));
  };
  CHECK(contains(refusal_for("1,2\n\n3\n"), "line 2: is empty"));
  CHECK(contains(refusal_for("1,2\n3\n \n"), "line 3: is empty"));
  CHECK(contains(refusal_for("\n"), "line 1: is empty"));
  CHECK(contains(refusal_for("1,2\n3,x\n"), "line 2: 'x' is not a token id"));
  CHECK(contains(refusal_for(""), "holds no prompt"));
  CHECK(contains(refusal_for("1\n2\n300\n"), "prompt 3 has the token 300"));
  CHECK(contains(refusal_of(llama({"--model", model.path(), "--tokens-file", folder / "none"})), "cannot be read"));

  write_file(folder / "prompts", "1,2\r\n3");  // another system's line ends; none at the end
  const reference_model reference(model);
  CHECK(output_of(llama({"--model", model.path(), "--tokens-file", folder / "prompts", "--steps", "4",
                         "--print-tokens"})) == lines_of({reference.greedy({1, 2}, 4), reference.greedy({3}, 4)}));
}

TEST_CASE("Logits are for a single prompt and a file that can be written") {
  const tiny_checkpoint model;
  const directory folder;
  write_file(folder / "prompts", "1\n2\n");
  const command_line two = llama({"--model", model.path(), "--tokens-file", folder / "prompts", "--print-tokens"});
  CHECK(contains(refusal_of(two + command_line{"--logits", folder / "logits.npy"}), "single prompt, 2 were given"));
  CHECK_FALSE(std::filesystem::exists(folder / "logits.npy"));

  const outcome unwritable = run(ask(model, "1", "1") + command_line{"--logits", folder / "none/logits.npy"});
  CHECK(unwritable.status == 1);
  CHECK(contains(unwritable.errors, "none/logits.npy: cannot be written"));
}

TEST_CASE("Counts that make no sense are refused by name") {
  const tiny_checkpoint model;
  for (const auto& [option, value] : std::vector<std::pair<std::string, std::string>>{{"--steps", "-1"},
                                                                                      {"--steps", "many"},
                                                                                      {"--tensor", "0"},
                                                                                      {"--pipeline", "-2"},
                                                                                      {"--data", "1000000000"},
                                                                                      {"--top-k", "0"},
                                                                                      {"--temperature", "0"},
                                                                                      {"--temperature", "-1"},
                                                                                      {"--seed", "x"}}) {
    CAPTURE(option);
    CHECK(contains(refusal_of(llama({"--model", model.path(), "--tokens", "1", option, value})), option));
  }
  // Numbers of ranks whose product is beyond an int, too.
  CHECK(contains(
      refusal_of(ask(model, "1", "1") + command_line{"--tensor", "4096", "--pipeline", "4096", "--data", "4096"}),
      "multiply to more than"));
}

TEST_CASE("A missing model or prompt is named") {
  const directory folder;
  CHECK(contains(refusal_of(llama({"--model", folder / "none", "--tokens", "1", "--tensor", "3"})),
                 "none/config.json: cannot be read; --model takes a Hugging Face checkpoint directory"));
  CHECK(contains(refusal_of(llama({"--tokens", "1"})), "--model"));
  CHECK(contains(refusal_of(llama({"--model", folder.path()})), "--tokens"));
  CHECK(contains(refusal_of(llama({"--model", folder.path(), "--tokens", "1", "--tokens-file", "x"})), "excludes"));
}

TEST_CASE("Answers that cannot be written are an error") {
  if (!std::filesystem::exists("/dev/full")) {
    MESSAGE("skipped: this system has no /dev/full");
    return;
  }
  const tiny_checkpoint model;
  std::string command;
  for (const std::string& argument : ask(model, "1", "3") + command_line{"--tensor", "2"}) command += argument + " ";
  const outcome ended = run({"sh", "-c", command + "> /dev/full"});
  CHECK(ended.status == 1);
  CHECK(contains(ended.errors, "standard output"));
}

TEST_CASE("Started by a launcher whose ranks it cannot find, the program refuses to run once per process") {
  const tiny_checkpoint model;
  CHECK(contains(refusal_of(ask(model, "1", "3") + command_line{"--tensor", "2"}, {"WORLD_SIZE=2"}), "WORLD_SIZE"));
  CHECK(run(ask(model, "1", "3") + command_line{"--tensor", "2"}, {"WORLD_SIZE=1"}).status == 0);
}
