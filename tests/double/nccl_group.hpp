// The group of the calling thread: what verbs, initialisation and split put into it, and its end.
#pragma once

#include <double/nccl_communicator.hpp>

#include <functional>

namespace shardkit_double::nccl {

/// Something that ends with the group and may have to wait for other ranks: initialisation, split, finalize.
struct job {
  ncclComm* comm = nullptr;
  std::function<void()> begin;        ///< at the end of the group: announces this rank
  std::function<bool()> finished;     ///< all that it waits for has come
  std::function<ncclResult_t()> end;  ///< what a blocking call returns then
};

/// Runs `body` as a call of its own, or as part of the group that the thread has open: a failure fails the group.
ncclResult_t in_group(const std::function<ncclResult_t()>& body);

/// Marks the open group as failed, as an injected fault does.
void fail_group(ncclResult_t result);

/// Adds to the group of the thread; only inside in_group().
ncclResult_t add(job j);
ncclResult_t add(ncclComm& comm, cudaStream_t stream, std::vector<task> tasks);

/// Number of the present call in its group.
int call_number();

}  // namespace shardkit_double::nccl
