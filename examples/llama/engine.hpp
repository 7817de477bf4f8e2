// What every rank does, whichever way it was made and whatever it computes on.
#pragma once

#include "config.hpp"
#include "generation.hpp"
#include "host_communicator.hpp"
#include "model.hpp"
#include "npy.hpp"
#include "options.hpp"
#include "printer.hpp"
#include "vocabulary.hpp"

#include <shardkit/comm/mesh.hpp>
#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split_indices.hpp>

#include <cstdint>
#include <string>

namespace llama {

/// Throws usage_error for a prompt that the model cannot take.
void require_fitting_prompts(const options& given, const model_config& config);

/// Prints what was loaded, and how fast it went, to the standard error of the first rank; every rank calls it.
void report(host_communicator& world, shardkit::mesh<host_communicator>& grid, std::uint64_t loaded_bytes,
            const speed& mine);

/// Loads this rank's shard of the model, answers this replica's prompts, and prints all answers on the first rank.
/// The sizes of the mesh multiply to world.size(); `devices` connects what the same ranks compute on.
template <class Device>
void run(host_communicator& world, typename Device::communicator& devices, const options& given) {
  const model_config config = read_config(given.model);
  require_fitting_prompts(given, config);

  // The parallel part: a grid of ranks, a shard of the model for each, a share of the prompts for each replica.
  shardkit::mesh grid(world, {{"data", given.data}, {"pipeline", given.pipeline}, {"tensor", given.tensor}});
  Device device(devices, grid);
  model<Device> shard(device, config, given.model);
  const auto prompts = shardkit::pad_and_split(grid["data"], given.prompts);
  const std::size_t first_prompt = shardkit::split_indices(grid["data"], given.prompts.size()).first;

  const vocabulary words(given.print_tokens ? std::string() : given.model);
  text_printer printer(words, world.is_root() && !given.print_tokens, given.prompts.size());
  const generation made = generate(shard, device, grid["pipeline"], prompts, first_prompt, given, printer);

  if (grid.coordinate("pipeline") == 0) {
    const auto answers = shardkit::gather_trim(grid["data"], made.tokens.matrix(), given.prompts.size());
    if (world.is_root() && given.print_tokens) print_answers(answers.matrix());
    if (world.is_root() && !given.print_tokens) print_text(answers.matrix(), prompts.size(), printer);
    if (world.is_root()) require_printed();
  }
  if (world.is_root() && !given.logits.empty()) write_npy(given.logits, made.logits);
  report(world, grid, shard.loaded_bytes(), made.time);
}

}  // namespace llama
