// Everything that the double remembers, in one object under one lock, and the functions that its parts share.
#pragma once

#include <double/hidden.hpp>
#include <double/objects.hpp>
#include <double/runtime.hpp>

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace shardkit_double {

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
  std::atomic<std::uint32_t> changes{0};  ///< raised when a waiting thread should look again
  std::atomic<int> sleepers{0};           ///< threads that sleep until then

  int device_count = 2;
  bool driver_missing = false;
  std::size_t device_memory = std::size_t{4} << 30;
  int compute_capability = 90;  ///< of all devices: 89 is 8.9
  std::set<std::pair<int, int>> peers_impossible;
  std::map<int, device> devices;

  schedule when;
  std::uint64_t random = 0;
  double idle_seconds = 0;  ///< 0: as the schedule has it
  bool strict_threads = false;
  mismatch_mode mismatch = mismatch_mode::diagnose;
  std::vector<fault> faults;
  std::vector<fault> operation_faults;
  std::map<std::string, std::map<int, int>> calls;

  std::vector<report> found;
  bool found_unread = false;
  std::vector<std::function<void()>> forget;

  vector_clock host_seen;  ///< of all threads, or of those that ended where threads are strict
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
/// The query and the synchronisation of what has these ends.
cudaError_t ask_all(const std::vector<queued_ptr>& ends);
cudaError_t await_all(const std::vector<queued_ptr>& ends);
/// Sleeps, without the lock, until wake() is called for the first time since `changes` was `seen`.
void sleep_until_change(std::uint32_t seen, std::int64_t nanoseconds);
void run_everything();
bool anything_queued();
void start_idle_thread();
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

constexpr std::size_t page = 4096;
constexpr std::size_t round_to_pages(std::size_t bytes) { return (bytes + page - 1) / page * page; }
/// Addresses without memory, for device memory: nobody can read them, and they are given out once. 0 if there are none.
std::uintptr_t new_device_addresses(std::size_t bytes);
bool was_device_address(const void* address);
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

/// Whether there is a driver and a device.
cudaError_t machine_missing();
/// What every call on the current device answers: that, or what broke the device.
cudaError_t machine_error();
/// From now on the device answers `code`; 0 heals it.
void break_device(int number, int code);
cudaError_t remember(cudaError_t code);
cudaError_t refuse_in_host_function(const char* function);

/// Runs one API function: lock, faults, state of the machine, last error.
template <class Function>
cudaError_t api(const char* name, Function function, const void* caller = __builtin_return_address(0)) {
  entry call(name, caller);
  if (call.injected()) return remember(static_cast<cudaError_t>(call.code()));
  if (const cudaError_t error = refuse_in_host_function(name); error != cudaSuccess) return remember(error);
  if (const cudaError_t error = machine_error(); error != cudaSuccess) return remember(error);
  return remember(function());
}

/// One that does not touch the current device, and works when that is broken.
template <class Function>
cudaError_t api_of_all_devices(const char* name, Function function, const void* caller = __builtin_return_address(0)) {
  entry call(name, caller);
  if (call.injected()) return remember(static_cast<cudaError_t>(call.code()));
  if (const cudaError_t error = refuse_in_host_function(name); error != cudaSuccess) return remember(error);
  if (const cudaError_t error = machine_missing(); error != cudaSuccess) return remember(error);
  return remember(function());
}

}  // namespace shardkit_double
