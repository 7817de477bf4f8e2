// The inside of the double that its other parts (NCCL) stand on: streams by handle, queueing, the lock, waiting,
// injected faults. Everything here is called under the lock, that is while an `entry` of the calling thread is alive.
#pragma once

#include <double/control.hpp>

#include <cuda_runtime_api.h>

#include <functional>
#include <string>

namespace shardkit_double {

/// One call of the API by the program. Alive, it holds the lock of the double, which the same thread may take again,
/// and hides what is done from ThreadSanitizer. The first statement of every API function:
///
///     ncclResult_t ncclAllReduce(...) {
///       entry call("ncclAllReduce");
///       if (call.injected()) return static_cast<ncclResult_t>(call.code());
class entry {
 public:
  /// `caller` is where the program called the API function; reports of ThreadSanitizer name it.
  explicit entry(const char* function, const void* caller = __builtin_return_address(0));
  ~entry();
  entry(const entry&) = delete;
  entry& operator=(const entry&) = delete;

  /// True when a fault is to happen here: return code() at once (0 for a call that is dropped).
  bool injected() const noexcept { return injected_; }
  int code() const noexcept { return code_; }
  const char* function() const noexcept { return function_; }

 private:
  const char* function_;
  const entry* outer_;
  const void* outer_caller_;
  bool injected_ = false;
  int code_ = 0;
};

/// Queues an operation on a stream of the current device (null: the legacy default stream), or adds it to the graph
/// that the stream captures. Returns what the CUDA call has to return; what is wrong is reported here.
cudaError_t enqueue(cudaStream_t stream, operation op);

/// Why nothing can be queued on `stream` now: dead or unknown handle (cudaErrorInvalidResourceHandle), another device
/// (the same), a capture that is broken; reported here. cudaSuccess otherwise.
cudaError_t check_stream(cudaStream_t stream, const char* function);
/// The device of a stream, or -1 for a handle that is not alive.
int stream_device(cudaStream_t stream);
bool is_capturing(cudaStream_t stream);

/// For calls that may not be made while the calling thread captures (allocation, synchronisation): reports, breaks the
/// capture and returns cudaErrorStreamCaptureUnsupported; cudaSuccess where nothing captures.
cudaError_t refuse_in_capture(const char* function);

/// Checks that `bytes` at `address` can be used by `device` ("device 1", "host" in the text), and reports what is
/// wrong: cudaErrorInvalidValue.
cudaError_t check_access(const access& a, int device, const char* function);

/// The device on which `address` was allocated: -1 for host memory, pinned or not.
int memory_device(const void* address);
/// "device 0 allocation #3 + 128" or "host 0x7f...".
std::string describe(const void* address);

void report_found(report_kind kind, std::string text);

/// Blocks the calling thread, with the lock released, until `condition` holds; queued work runs meanwhile as the
/// schedule says. `condition` is evaluated under the lock. False when `seconds` have passed (0: no deadline).
bool wait_until(const std::function<bool()>& condition, double seconds = 0);

/// State that `condition`s or `run` functions look at has changed.
void wake();

/// For the parts of the double that have state of their own: called by reset() under the lock, after queued work has
/// run and before leaks of memory are looked for. Call it from a constructor of a static object.
void at_reset(std::function<void()> forget);

/// Makes what the calling thread did so far visible, for ThreadSanitizer, to those that acquire the same token later:
/// for host state that an API call hands from thread to thread. The address is never read.
void release_token(const void* token);
void acquire_token(const void* token);

}  // namespace shardkit_double
