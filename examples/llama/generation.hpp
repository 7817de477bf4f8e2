// Greedy or sampled generation for several prompts over a pipeline of stages.
#pragma once

#include "model.hpp"
#include "options.hpp"
#include "printer.hpp"

#include <shardkit/data/matrix_buffer.hpp>

#include <cstdint>
#include <vector>

namespace llama {

/// What a replica did in which time, as its first stage saw it. The first new token belongs to its prompt.
struct speed {
  std::uint64_t prompt_tokens = 0, new_tokens = 0;
  double prompt_seconds = 0, new_seconds = 0;

  double prompt_rate() const { return prompt_seconds > 0 ? static_cast<double>(prompt_tokens) / prompt_seconds : 0; }
  double new_rate() const { return new_seconds > 0 ? static_cast<double>(new_tokens) / new_seconds : 0; }
};

struct generation {
  shardkit::matrix_buffer<int> tokens;  ///< [prompts, most new tokens] on the first stage; -1 behind the last
  std::vector<float> logits;            ///< of the last prompt, where asked for, on the first stage
  speed time;
};

/// Collective over the stages and their tensor ranks. `prompts` are this replica's; the first of them is number
/// `first_prompt` of all, which tells its random numbers. Tokens are handed to `printer` as they come.
generation generate(model& shard, communicator& pipeline, const std::vector<token_list>& prompts,
                    std::size_t first_prompt, const options& given, text_printer& printer);

}  // namespace llama
