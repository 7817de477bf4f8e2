// The tokens that the llama program generates, on every mesh: greedy ones against a serial forward pass, sampled ones
// against each other, and how they are printed.
#include "meshes.hpp"
#include "reference.hpp"

#include <set>
#include <string>
#include <vector>

using namespace llama_test;

namespace {

// A command that answers the prompts from a file.
command_line from_file(const tiny_checkpoint& model, const directory& folder, const std::vector<token_list>& prompts,
                       const std::string& steps, const mesh& ranks) {
  write_file(folder / "prompts", lines_of(prompts));
  return llama({"--model", model.path(), "--tokens-file", folder / "prompts", "--steps", steps}) + ranks.arguments();
}

std::vector<token_list> lists_of(const std::string& lines) {
  std::vector<token_list> lists;
  std::istringstream text(lines);
  for (std::string line; std::getline(text, line);) {
    lists.emplace_back();
    std::istringstream ids(line);
    for (std::string id; std::getline(ids, id, ',');) lists.back().push_back(std::stoi(id));
  }
  return lists;
}

}  // namespace

TEST_CASE("On every mesh several prompts of different lengths get the tokens of the serial forward pass, in order") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  const directory folder;
  // More than are worked on side by side by any pipeline here, and a multiple of no number of replicas.
  const std::vector<token_list> prompts = prompts_of({1, 5, 70, 2, 31, 64, 13});
  std::vector<token_list> expected;
  for (const token_list& prompt : prompts) expected.push_back(reference.greedy(prompt, 12));
  REQUIRE(std::set<token_list>(expected.begin(), expected.end()).size() == expected.size());
  for (const mesh& ranks : meshes) {
    CAPTURE(ranks.name());
    CHECK(output_of(from_file(model, folder, prompts, "12", ranks) + command_line{"--print-tokens"}) ==
          lines_of(expected));
  }
}

TEST_CASE("With fewer prompts than replicas the padded copies are not printed") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  const directory folder;
  for (const std::size_t count : {1u, 2u, 3u}) {
    CAPTURE(count);
    std::vector<token_list> prompts = prompts_of({4, 9, 2}), expected;
    prompts.resize(count);
    for (const token_list& prompt : prompts) expected.push_back(reference.greedy(prompt, 5));
    for (const mesh& ranks : {mesh{1, 1, 4}, mesh{2, 1, 3}, mesh{1, 2, 3}}) {
      CAPTURE(ranks.name());
      CHECK(output_of(from_file(model, folder, prompts, "5", ranks) + command_line{"--print-tokens"}) ==
            lines_of(expected));
    }
  }
}

TEST_CASE("A prompt on the command line gets the same answer as in a file") {
  const tiny_checkpoint model;
  const token_list prompt = prompt_of(5, 3);
  const std::string expected = text_of(reference_model(model).greedy(prompt, 9)) + "\n";
  for (const mesh& ranks : {mesh{1, 1, 1}, mesh{4, 1, 1}, mesh{2, 2, 2}}) {
    CAPTURE(ranks.name());
    CHECK(output_of(llama({"--model", model.path(), "--tokens", text_of(prompt), "--steps", "9", "--print-tokens"}) +
                    ranks.arguments()) == expected);
  }
}

TEST_CASE("Sampled tokens are the same on every mesh, depend on the seed, and are among the k most likely") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  const directory folder;
  const std::vector<token_list> prompts = prompts_of({3, 8, 3, 1, 17});  // the first and the third are equal
  const auto sample = [&](const mesh& ranks, const char* seed, const char* top_k) {
    return output_of(from_file(model, folder, prompts, "10", ranks) +
                     command_line{"--print-tokens", "--top-k", top_k, "--seed", seed});
  };
  const std::string expected = sample({1, 1, 1}, "1", "5");
  for (const mesh& ranks : meshes) {
    CAPTURE(ranks.name());
    CHECK(sample(ranks, "1", "5") == expected);
  }
  CHECK(sample({1, 1, 1}, "2", "5") != expected);
  CHECK(sample({1, 1, 1}, "2", "1") == sample({1, 1, 1}, "1", "1"));  // greedy

  const std::vector<token_list> answers = lists_of(expected);
  REQUIRE(answers.size() == prompts.size());
  CHECK(answers[0] != answers[2]);
  std::set<std::size_t> places;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    token_list all = prompts[i];
    all.insert(all.end(), answers[i].begin(), answers[i].end());
    for (std::size_t at = prompts[i].size(); at < all.size(); ++at) places.insert(reference.place_of(all, at));
  }
  CHECK(places == std::set<std::size_t>{0, 1, 2, 3, 4});
}

TEST_CASE("A low temperature is greedy, a high one is not") {
  const tiny_checkpoint model;
  const auto sample = [&](const char* temperature) {
    return output_of(llama({"--model", model.path(), "--tokens", "5,6,7", "--steps", "20", "--print-tokens", "--top-k",
                            "50", "--temperature", temperature}));
  };
  const std::string greedy = text_of(reference_model(model).greedy({5, 6, 7}, 20)) + "\n";
  CHECK(sample("1e-6") == greedy);
  CHECK(sample("100") != greedy);
}

TEST_CASE("Without --print-tokens the texts appear one after the other in the order of the prompts") {
  const tiny_checkpoint model;
  const reference_model reference(model);
  const directory folder;
  const std::vector<token_list> prompts = prompts_of({1, 5, 2, 31, 13});

  std::string numbers, text;
  json vocabulary = json::object();
  for (int id = 0; id < 257; ++id) vocabulary[std::string("\u0120w").append(std::to_string(id))] = id;  // " w17"
  for (const token_list& prompt : prompts) {
    for (int id : reference.greedy(prompt, 7)) {
      numbers += std::to_string(id) + " ";
      text += " w";
      text += std::to_string(id);
    }
    numbers += "\n";
    text += "\n";
  }
  const auto answers = [&](const mesh& ranks) { return output_of(from_file(model, folder, prompts, "7", ranks)); };
  for (const mesh& ranks : {mesh{1, 1, 1}, mesh{1, 2, 1}, mesh{2, 1, 2}}) CHECK(answers(ranks) == numbers);
  write_file(model.path() + "/tokenizer.json", json{{"model", {{"vocab", vocabulary}}}}.dump());
  for (const mesh& ranks : {mesh{1, 1, 1}, mesh{1, 3, 1}, mesh{2, 1, 2}, mesh{1, 1, 3}}) CHECK(answers(ranks) == text);
}

TEST_CASE("The axes are ordered data, pipeline, tensor, the last one fastest") {
  const tiny_checkpoint model;
  // Stages differ in what they load, and so tell which ranks belong to which.
  const auto loaded = [&](const mesh& ranks) {
    const outcome ended =
        run(llama({"--model", model.path(), "--tokens", "1", "--steps", "0", "--print-tokens"}) + ranks.arguments());
    std::istringstream line(ended.errors.substr(ended.errors.find("MiB:") + 4));
    std::vector<double> sizes;
    for (double size = 0; line >> size;) sizes.push_back(size);
    REQUIRE(sizes.size() == static_cast<std::size_t>(ranks.ranks()));
    return sizes;
  };
  const std::vector<double> stages = loaded({1, 5, 1}), replicas = loaded({1, 5, 2}), cut = loaded({2, 5, 1});
  REQUIRE(stages[0] > stages[1] + 0.05);
  REQUIRE(stages[4] > stages[3] + 0.05);
  for (std::size_t i = 0; i < 10; ++i) {
    CAPTURE(i);
    CHECK(replicas[i] == stages[i % 5]);
    CHECK(cut[i] == doctest::Approx(stages[i / 2] / 2).epsilon(0.08));
  }
}
