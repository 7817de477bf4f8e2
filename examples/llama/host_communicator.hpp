// Between the ranks on the host: carries prompts, tokens and results, whatever the model computes on.
#pragma once

#include <shardkit/comm/any_communicator.hpp>

namespace llama {

using host_communicator = shardkit::any_communicator<shardkit::host_space>;

}  // namespace llama
