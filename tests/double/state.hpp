// What the double remembers: devices, streams, events, allocations, captures and graphs. One object, under one lock.
#pragma once

#include <double/hidden.hpp>
#include <double/order.hpp>
#include <double/runtime.hpp>

#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
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

/// What belongs to one thread of the program.
struct thread_state {
  ~thread_state();

  int device = 0;
  cudaError_t last_error = cudaSuccess;
  cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
  bool in_host_function = false;
  std::uint64_t generation = 0;  ///< of the reset() that `seen` and `streams` belong to
  vector_clock seen;
  std::map<int, stream*> streams;  ///< cudaStreamPerThread, by device
  std::vector<launch_configuration> launches;
  const entry* inside = nullptr;
  const void* caller = nullptr;
};
thread_state& this_thread();

struct state {
  hidden_lock lock;
  std::atomic<std::uint32_t> changes{0};  ///< raised and woken when a waiting thread should look again

  int device_count = 2;
  bool driver_missing = false;
  std::size_t device_memory = std::size_t{4} << 30;
  std::set<std::pair<int, int>> peers_impossible;
  std::map<int, device> devices;

  schedule when;
  std::uint64_t random = 0;
  bool strict_threads = false;
  mismatch_mode mismatch = mismatch_mode::diagnose;
  std::vector<fault> faults;
  std::map<std::string, std::map<int, int>> calls;

  std::vector<report> found;
  bool found_unread = false;
  std::vector<std::function<void()>> forget;

  vector_clock host_seen;     ///< of all threads, or of those that ended where threads are strict
  std::uint64_t generation = 1;
  std::uint64_t operations = 0;
  std::uint64_t steps = 0;
  bool stepping = false;
  queued_ptr running;  ///< whose run function is being called
  std::size_t slots = 0;
  std::vector<std::unique_ptr<stream>> streams;  ///< destroyed ones too: queued work may remain
  std::map<const void*, stream*> stream_handles;
  handle_table<event> events;
  handle_table<graph> graphs;
  handle_table<executable> executables;
  std::map<const void*, std::unique_ptr<capture>> captures;  ///< by their origin's handle
  std::uint64_t capture_count = 0;
  std::map<std::uintptr_t, allocation> memory;  ///< freed ones too
  std::set<std::string> names;                  ///< what stamps refer to

  std::map<std::string, stand_in> stand_ins;
  std::map<const void*, std::string> kernels;  ///< registered host stubs and their demangled names
};
/// Never destroyed: streams may outlive every static object.
state& all();

/// The lock for functions that are no API calls.
class under_lock {
 public:
  under_lock() {
    unseen::begin();
    all().lock.lock();
  }
  ~under_lock() {
    all().lock.unlock();
    unseen::end();
  }
  under_lock(const under_lock&) = delete;
  under_lock& operator=(const under_lock&) = delete;
};

// ---- engine ------------------------------------------------------------------------------------------------------

/// Puts an operation at the end of a stream, after those of other streams in `after`, and lets the schedule act.
/// Accesses are entered into the histories; they have been checked against the allocations before.
queued_ptr put(stream& s, operation op, std::vector<queued_ptr> after, const void* caller);
/// Does one piece of work, of what `target` waits for where the schedule is late; false when nothing can move.
bool step(const queued* target);
/// What happens when somebody asks without waiting.
void step_on_query(const queued* target);
bool wait_done(const queued_ptr& target, double seconds = 0);
/// The calling thread knows that `q` is done: orders what it queues from now on.
void host_saw(const queued& q);
vector_clock& host_clock();
/// Runs a host function on the thread that is for them, as the stream's fiber.
void run_outside(queued_ptr q, std::function<void()> function);

// ---- objects -----------------------------------------------------------------------------------------------------

const void* new_handle();
bool was_handle(const void* handle);
device& device_state(int number);
stream& new_stream(int device, unsigned flags, int priority, std::string name);
/// The stream behind a handle of the calling thread, its legacy and per-thread streams too; null for a dead one.
stream* find_stream(cudaStream_t handle);
event* find_event(cudaEvent_t handle);
cudaError_t bad_handle(const void* handle, const char* what, const char* function);

allocation* find_allocation(const void* address);
cudaError_t check_accesses(const operation& op, int device);
void release_storage(allocation& a);
/// Reports accesses to `a` that the calling thread does not know to have ended.
void check_free(allocation& a, const char* function);
/// Waits for everything queued on a device.
void drain(int device);

/// Adds an operation to the graph that `s` captures.
void capture_operation(stream& s, operation op, const void* caller);
void break_capture(capture& c, const char* function);

/// Runs one API function: lock, faults, state of the machine, last error.
template <class Function>
cudaError_t api(const char* name, Function function, const void* caller = __builtin_return_address(0));
cudaError_t machine_error();
cudaError_t remember(cudaError_t code);
cudaError_t refuse_in_host_function(const char* function);

template <class Function>
cudaError_t api(const char* name, Function function, const void* caller) {
  entry call(name, caller);
  if (call.injected()) return remember(static_cast<cudaError_t>(call.code()));
  if (const cudaError_t error = refuse_in_host_function(name); error != cudaSuccess) return remember(error);
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return remember(error);
  return remember(function());
}

}  // namespace shardkit_double
