#include "engine.hpp"

#include "config.hpp"
#include "generation.hpp"
#include "model.hpp"
#include "npy.hpp"
#include "printer.hpp"
#include "vocabulary.hpp"

#include <shardkit/comm/mesh.hpp>
#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split_indices.hpp>
#include <shardkit/tensor/cblas_gemm.hpp>

#include <algorithm>
#include <cstdio>
#include <string>

namespace llama {
namespace {

void require_fitting_prompts(const options& given, const model_config& config) {
  for (std::size_t i = 0; i < given.prompts.size(); ++i) {
    const std::string name = "prompt " + std::to_string(i + 1);
    const token_list& prompt = given.prompts[i];
    if (prompt.size() > config.max_positions)
      throw shardkit::usage_error(name + " has " + std::to_string(prompt.size()) + " tokens, the model takes " +
                                  std::to_string(config.max_positions));
    for (int id : prompt)
      if (static_cast<std::size_t>(id) >= config.vocabulary)
        throw shardkit::usage_error(name + " has the token " + std::to_string(id) + ", the vocabulary ends at " +
                                    std::to_string(config.vocabulary - 1));
  }
}

// The prompts' answers as rows of ids, -1 behind the last.
void print_answers(shardkit::matrix_view<const int> answers) {
  for (std::size_t i = 0; i < answers.rows(); ++i) {
    const auto row = answers.row(i);
    print_tokens(row.data(), static_cast<std::size_t>(std::find(row.begin(), row.end(), -1) - row.begin()));
  }
}

void print_text(shardkit::matrix_view<const int> answers, std::size_t first, text_printer& printer) {
  for (std::size_t i = first; i < answers.rows(); ++i) {
    for (int id : answers.row(i)) {
      if (id < 0) break;
      printer.token(i, id);
    }
    printer.finish(i);
  }
}

// Every rank calls it; the first one prints to standard error.
void report(communicator& world, shardkit::mesh<communicator>& grid, const model& shard, const speed& mine) {
  const auto loaded = world.exchange(shard.loaded_bytes());
  speed total = mine;
  if (grid.coordinate("pipeline") == 0) {
    communicator& data = grid["data"];
    total.prompt_tokens = data.all_reduce(mine.prompt_tokens, shardkit::sum);
    total.new_tokens = data.all_reduce(mine.new_tokens, shardkit::sum);
    total.prompt_seconds = data.all_reduce(mine.prompt_seconds, shardkit::maximum);
    total.new_seconds = data.all_reduce(mine.new_seconds, shardkit::maximum);
  }
  if (!world.is_root()) return;
  std::fprintf(stderr, "mesh:");
  for (const auto& axis : grid.axes()) std::fprintf(stderr, " %s %d", axis.name.c_str(), axis.size);
  std::fprintf(stderr, "\nloaded per rank, MiB:");
  for (std::uint64_t bytes : loaded) std::fprintf(stderr, " %.2f", static_cast<double>(bytes) / (1 << 20));
  std::fprintf(stderr, "\nprompts: %llu tokens, %.1f tokens/s\n", static_cast<unsigned long long>(total.prompt_tokens),
               total.prompt_rate());
  std::fprintf(stderr, "generated %llu tokens, %.1f tokens/s\n", static_cast<unsigned long long>(total.new_tokens),
               total.new_rate());
}

}  // namespace

void run(communicator world, const options& given) {
  const model_config config = read_config(given.model);
  require_fitting_prompts(given, config);
  shardkit::set_blas_threads(1);  // the ranks are the parallelism

  // The parallel part: a grid of ranks, a shard of the model for each, a share of the prompts for each replica.
  shardkit::mesh grid(world, {{"data", given.data}, {"pipeline", given.pipeline}, {"tensor", given.tensor}});
  model shard(config, given.model, grid["pipeline"], grid["tensor"]);
  const auto prompts = shardkit::pad_and_split(grid["data"], given.prompts);
  const std::size_t first_prompt = shardkit::split_indices(grid["data"], given.prompts.size()).first;

  const vocabulary words(given.print_tokens ? std::string() : given.model);
  text_printer printer(words, world.is_root() && !given.print_tokens, given.prompts.size());
  const generation made = generate(shard, grid["pipeline"], prompts, first_prompt, given, printer);

  if (grid.coordinate("pipeline") == 0) {
    const auto answers = shardkit::gather_trim(grid["data"], made.tokens.matrix(), given.prompts.size());
    if (world.is_root() && given.print_tokens) print_answers(answers.matrix());
    if (world.is_root() && !given.print_tokens) print_text(answers.matrix(), prompts.size(), printer);
    if (world.is_root()) require_printed();
  }
  if (world.is_root() && !given.logits.empty()) write_npy(given.logits, made.logits);
  report(world, grid, shard, made.time);
}

}  // namespace llama
