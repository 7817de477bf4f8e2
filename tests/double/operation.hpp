// What can be queued on a stream of the double: a name, the memory that it touches, and a function that does the work.
// Kernel stand-ins of tests and the NCCL part of the double are written with it; no CUDA header is needed.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace shardkit_double {

enum class access_mode { read, write };

/// Bytes that an operation reads or writes, on a device or on the host. Rows of a strided copy are one `access` each
/// or one with `rows` and `stride`.
struct access {
  access_mode mode = access_mode::read;
  const void* address = nullptr;
  std::size_t bytes = 0;
  /// A matrix: `rows` rows of `bytes`, each `stride` bytes after the one before it.
  std::size_t rows = 1;
  std::size_t stride = 0;
};

inline access reads(const void* address, std::size_t bytes) { return {access_mode::read, address, bytes, 1, 0}; }
inline access writes(void* address, std::size_t bytes) { return {access_mode::write, address, bytes, 1, 0}; }

enum class progress { done, not_yet };

/// What a graph calls its node.
enum class node_kind { kernel, copy, fill, host, allocation, deallocation, empty };

/// One operation of a stream.
///
/// When it is queued, its accesses are checked: against the allocations (bounds, lifetime, device) and against every
/// earlier access that no stream order, event or synchronisation puts before it. When it has reached the head of its
/// stream, `run` moves the data.
struct operation {
  /// As reports and graph dumps name it, for instance "ncclAllReduce".
  std::string name;
  node_kind kind = node_kind::kernel;
  std::vector<access> accesses;
  /// What a graph dump adds to name and accesses, for instance "float32 sum".
  std::string parameters;
  /// Runs at the head of the stream, under the lock of the double, again and again until it says `done`: it may not
  /// block and may not call the CUDA or NCCL API. Memory is reached by `storage()`. A capturing stream keeps the
  /// operation in its graph; each replay runs a fresh copy of this function object, so what it holds by value starts
  /// anew.
  std::function<progress()> run;
  /// Called once, under the lock, when the operation is queued: now, or at each launch of the graph that holds it.
  /// `run` of the same replay is the function object inside the operation that is passed, so both can share state
  /// that is made here.
  std::function<void(operation&)> on_queued;
};

}  // namespace shardkit_double
