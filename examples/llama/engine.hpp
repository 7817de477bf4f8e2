// What every rank does, whichever way it was made.
#pragma once

#include "options.hpp"

#include <shardkit/comm/any_communicator.hpp>

namespace llama {

/// Loads this rank's shard of the model, answers this replica's prompts, and prints all answers on the first rank.
/// The sizes of the mesh multiply to world.size().
void run(shardkit::any_communicator<shardkit::host_space> world, const options& given);

}  // namespace llama
