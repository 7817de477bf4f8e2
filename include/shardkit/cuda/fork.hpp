// The two streams of a call that is started without waiting. A backend over cuda_space includes this header; its
// `start` only enqueues on the call's stream and may return an empty request: the typed face (comm/detail/forked.hpp)
// makes the communication stream wait for the compute stream before, and the compute stream for the call when the
// request is waited for. The events come from the pool that each communicator makes with itself.
#pragma once

#include <shardkit/cuda/event.hpp>
#include <shardkit/cuda/space.hpp>

namespace shardkit {

/// fork{compute, communication}: see cuda_space::fork. POSIX has a function of this name: under `using namespace
/// shardkit` write shardkit::fork, or only {compute, communication}.
using fork = cuda_space::fork;

}  // namespace shardkit
