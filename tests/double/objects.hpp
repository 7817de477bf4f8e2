// The objects of the double: streams and what is queued on them, events, captures, graphs, allocations, devices.
#pragma once

#include <double/operation.hpp>
#include <double/order.hpp>

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace shardkit_double {

struct stream;
struct capture;

/// An operation in a stream, kept as long as an event or another operation refers to it.
struct queued {
  operation op;
  stream* on = nullptr;
  std::vector<std::shared_ptr<queued>> after;  ///< of other streams; emptied when done
  vector_clock seen;                           ///< what comes before, itself included
  const void* caller = nullptr;
  std::uint64_t number = 0;  ///< over all streams, in the order of queueing
  bool done = false;
  bool begun = false;    ///< its function has been called
  bool outside = false;  ///< a host function that runs on its own thread
  std::chrono::steady_clock::time_point ended;
  char queued_token = 0;  ///< ThreadSanitizer: released when queued, acquired by the stream
  char done_token = 0;    ///< released by the stream, acquired by those who wait
};
using queued_ptr = std::shared_ptr<queued>;

/// A node of a graph: the operation and the earlier nodes that it waits for.
struct node {
  operation op;
  std::vector<std::size_t> after;
  std::size_t lane = 0;  ///< nodes of one captured stream share a lane
  int device = 0;
  const void* caller = nullptr;
  cudaGraphNode_t handle = nullptr;
};

struct graph {
  cudaGraph_t handle = nullptr;
  std::deque<node> nodes;
  std::size_t lanes = 0;
};

struct stream {
  cudaStream_t handle = nullptr;
  std::string name;
  int device = 0;
  std::size_t slot = 0;
  unsigned flags = 0;
  int priority = 0;
  bool legacy = false;
  bool destroyed = false;
  void* fiber = nullptr;
  vector_clock seen;
  std::deque<queued_ptr> queue;
  queued_ptr last;  ///< the one queued last, done or not

  capture* capturing = nullptr;
  std::vector<std::size_t> capture_after;  ///< nodes that the next one waits for
  std::size_t capture_lane = 0;

  bool blocking() const noexcept { return (flags & cudaStreamNonBlocking) == 0; }
};

struct event {
  cudaEvent_t handle = nullptr;
  std::string name;
  int device = 0;
  unsigned flags = 0;
  queued_ptr recorded;
  std::uint64_t captured_by = 0;  ///< number of the capture in which it was recorded last; 0: outside
  std::vector<std::size_t> captured_after;
};

struct capture {
  std::uint64_t number = 0;
  std::unique_ptr<graph> into;
  stream* origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  const void* thread = nullptr;
  std::string broken;  ///< by which call; empty while all is well
  std::vector<stream*> streams;
};

struct executable {
  cudaGraphExec_t handle = nullptr;
  std::deque<node> nodes;
  std::vector<stream*> lanes;
  queued_ptr last;  ///< end of the launch before
};

enum class memory_kind { device, pinned, managed, registered };

struct allocation {
  std::uintptr_t begin = 0;
  std::size_t bytes = 0;
  memory_kind kind = memory_kind::device;
  int device = 0;
  unsigned number = 0;
  unsigned flags = 0;
  std::byte* storage = nullptr;  ///< where the bytes are; null once they are gone
  std::byte* mapping = nullptr;  ///< of pinned and managed memory, guard page included
  std::size_t mapping_bytes = 0;
  std::string freed_by;  ///< empty while alive
  access_history history;
};

struct device {
  int error = 0;
  bool was_broken = false;  ///< what is left there at reset() could not be freed
  bool stalled = false;
  std::size_t used = 0;
  unsigned allocations = 0;
  unsigned streams = 0;
  unsigned events = 0;
  stream* legacy = nullptr;
  std::set<int> peers_enabled;
};

struct fault {
  std::string function;
  int device;
  int remaining;  ///< calls until it happens; 0: every call
  int code;
};

struct launch_configuration {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes;
  cudaStream_t stream;
};

/// Handles are addresses that nobody can read and that are never given out twice, so that each use after the end of
/// its object is found.
template <class T>
class handle_table {
 public:
  T* find(const void* handle) const {
    const auto at = alive_.find(handle);
    return at == alive_.end() ? nullptr : at->second.get();
  }
  void add(std::unique_ptr<T> object) {
    const void* handle = object->handle;
    alive_[handle] = std::move(object);
  }
  std::unique_ptr<T> remove(const void* handle) {
    const auto at = alive_.find(handle);
    std::unique_ptr<T> object = std::move(at->second);
    alive_.erase(at);
    return object;
  }
  const std::unordered_map<const void*, std::unique_ptr<T>>& all() const { return alive_; }
  void clear() { alive_.clear(); }

 private:
  std::unordered_map<const void*, std::unique_ptr<T>> alive_;
};

}  // namespace shardkit_double
