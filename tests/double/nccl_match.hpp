// The way of a launch through stream and queue, for those that queue it and those that drop it.
#pragma once

#include <double/nccl_communicator.hpp>

namespace shardkit_double::nccl {

/// A plan that was queued on its stream joins its communicator's queue.
std::shared_ptr<launch> begin(const std::shared_ptr<const launch_plan>& plan);

/// What the launch's operation runs at the head of its stream.
progress advance(launch& l);

}  // namespace shardkit_double::nccl
