// The command line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace llama {

using token_list = std::vector<int>;

struct options {
  std::string model;                ///< Hugging Face checkpoint directory
  std::vector<token_list> prompts;  ///< at least one, none empty
  std::size_t steps = 64;           ///< new tokens at most
  bool print_tokens = false;
  std::string logits;           ///< .npy file for the logits after the prompt, or empty
  std::string make_tiny;        ///< directory for a random checkpoint, or empty
  std::string device = "host";  ///< or "cuda"
  int data = 1, pipeline = 1, tensor = 1;
  std::size_t top_k = 1;  ///< candidates to sample from; 1 is greedy
  float temperature = 1;
  std::uint64_t seed = 0;
};

/// Parses and checks. Prints the help or the mistake and ends the process where there is nothing to run.
options parse_options(int argc, char** argv);

}  // namespace llama
