// What main does with each rank: the engine (engine.hpp) on the host, or on GPUs.
#pragma once

#include "host_communicator.hpp"
#include "options.hpp"

#include <shardkit/backends/threads.hpp>
#ifdef LLAMA_WITH_MPI
#include <shardkit/backends/mpi.hpp>
#endif

namespace llama {

/// Seconds that a rank may wait for others: a replica that has answered its prompts waits for the one with the longest
/// answers.
inline constexpr double longest_wait = 24 * 3600;

/// Defined in engine.cpp.
void run_on_host(host_communicator world, const options& given);

/// `--device cuda`; several ranks may share a GPU. Defined in cuda/gpus.cpp, and in no_gpus.cpp for the program that is
/// built without CUDA.
void run_on_gpus(shardkit::thread_communicator& ranks, const options& given);
#ifdef LLAMA_WITH_MPI
void run_on_gpus(shardkit::mpi_communicator& ranks, const options& given);
#endif

}  // namespace llama
