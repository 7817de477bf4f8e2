#include "engine.hpp"

#include "host_device.hpp"
#include "run.hpp"

#include <cstdio>

namespace llama {

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

void report(host_communicator& world, shardkit::mesh<host_communicator>& grid, std::uint64_t loaded_bytes,
            const speed& mine) {
  const auto loaded = world.exchange(loaded_bytes);
  speed total = mine;
  if (grid.coordinate("pipeline") == 0) {
    host_communicator& data = grid["data"];
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

void run_on_host(host_communicator world, const options& given) { run<host_device>(world, world, given); }

}  // namespace llama
