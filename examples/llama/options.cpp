#include "options.hpp"

#include <CLI/CLI.hpp>

#include <charconv>
#include <cstdint>
#include <fstream>
#include <limits>

namespace llama {
namespace {

constexpr int most_ranks = 4096;

// "1,2,3": decimal ids, blanks allowed around them.
token_list parse_tokens(const std::string& text, const std::string& where) {
  token_list tokens;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::size_t first = text.find_first_not_of(" \t\r", begin);
    const std::size_t last = first < end ? text.find_last_not_of(" \t\r", end - 1) + 1 : end;
    int id = -1;
    const auto [rest, failure] = std::from_chars(text.data() + std::min(first, end), text.data() + last, id);
    if (failure != std::errc{} || rest != text.data() + last || id < 0)
      throw CLI::ValidationError(where, "'" + text.substr(begin, end - begin) + "' is not a token id");
    tokens.push_back(id);
    begin = end + 1;
  }
  return tokens;
}

std::vector<token_list> read_prompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw CLI::ValidationError("--tokens-file", path + " cannot be read");
  std::vector<token_list> prompts;
  for (std::string line; std::getline(file, line);) {
    const std::string where = path + " line " + std::to_string(prompts.size() + 1);
    if (line.find_first_not_of(" \t\r") == std::string::npos)
      throw CLI::ValidationError(where, "is empty; give one prompt of at least one token id a line");
    prompts.push_back(parse_tokens(line, where));
  }
  if (prompts.empty()) throw CLI::ValidationError("--tokens-file", path + " holds no prompt");
  return prompts;
}

void check(const options& given) {
  if (!given.make_tiny.empty()) return;
  if (given.model.empty()) throw CLI::RequiredError("--model");
  if (given.prompts.empty()) throw CLI::RequiredError("--tokens or --tokens-file");
  if (!given.logits.empty() && given.prompts.size() != 1)
    throw CLI::ValidationError("--logits",
                               "takes a single prompt, " + std::to_string(given.prompts.size()) + " were given");
  if (std::int64_t{given.data} * given.pipeline * given.tensor > most_ranks)
    throw CLI::ValidationError("--tensor, --pipeline and --data",
                               "multiply to more than " + std::to_string(most_ranks) + " ranks");
}

}  // namespace

options parse_options(int argc, char** argv) {
  options given;
  std::string tokens, tokens_file;
  CLI::App app(
      "Runs a Llama-family checkpoint over data x pipeline x tensor ranks: threads of this process, or the "
      "processes of an MPI launcher.");
  app.add_option("--model", given.model, "Hugging Face checkpoint directory");
  auto* one = app.add_option("--tokens", tokens, "prompt as comma-separated token ids, taken verbatim");
  app.add_option("--tokens-file", tokens_file, "one prompt of token ids a line")->excludes(one);
  app.add_option("--steps", given.steps, "new tokens at most")
      ->check(CLI::Range(0, std::numeric_limits<int>::max()))
      ->capture_default_str();
  app.add_flag("--print-tokens", given.print_tokens, "print ids only, one line a prompt");
  app.add_option("--logits", given.logits, "write the logits after the prompt to this .npy file");
  app.add_option("--device", given.device, "what the ranks compute on: host, or cuda for GPUs")
      ->check(CLI::IsMember({"host", "cuda"}))
      ->capture_default_str();
  app.add_option("--tensor", given.tensor, "ranks that share each layer")->check(CLI::Range(1, most_ranks));
  app.add_option("--pipeline", given.pipeline, "stages of layers")->check(CLI::Range(1, most_ranks));
  app.add_option("--data", given.data, "replicas that share the prompts")->check(CLI::Range(1, most_ranks));
  app.add_option("--top-k", given.top_k, "sample from the k most likely tokens; 1 is greedy")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--temperature", given.temperature, "of sampling")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seed", given.seed, "of sampling")->capture_default_str();
  app.add_option("--make-tiny", given.make_tiny, "write a small random checkpoint to this directory and stop");
  try {
    app.parse(argc, argv);
    if (!tokens_file.empty()) given.prompts = read_prompts(tokens_file);
    else if (one->count() != 0) given.prompts = {parse_tokens(tokens, "--tokens")};
    check(given);
  } catch (const CLI::ParseError& stop) {
    std::exit(app.exit(stop));
  }
  return given;
}

}  // namespace llama
