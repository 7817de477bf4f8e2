// What a test says to the double and hears from it: devices, schedule, faults, reports. No CUDA header is needed, and
// the same test links with the real libraries too: there active() is false, and everything else does nothing.
#pragma once

#include <double/operation.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace shardkit_double {

/// True in a program that is linked with the double, false where the real CUDA runtime answers.
bool active();

// ---- What the double found ---------------------------------------------------------------------------------------

enum class report_kind {
  race,            ///< two accesses, one of them a write, that nothing orders
  out_of_bounds,   ///< bytes outside the allocation
  use_after_free,  ///< memory, stream, event, graph or communicator that was freed before
  free_in_flight,  ///< memory freed while queued work that uses it is not known to have ended
  wrong_device,    ///< the current device, the stream, the event or the memory are of different devices
  bad_handle,      ///< a handle that the double never gave out
  bad_argument,    ///< unknown flags, null pointers, host memory where device memory must be
  capture,         ///< what may not happen during graph capture
  mismatch,        ///< ranks of a collective that disagree
  communicator,    ///< a misuse of NCCL
  leak,            ///< not freed or destroyed at reset()
  unfinished,      ///< queued work that cannot end at reset()
};

const char* to_string(report_kind kind);

struct report {
  report_kind kind;
  std::string text;  ///< calls, streams, devices and ranges by name, and the remedy
};

/// All that was found since the last reset. A program that ends with reports that nobody has read prints them and
/// exits with 76.
std::vector<report> reports();

/// The reports, one a line, for a test's message.
std::string report_text();

/// Forgets the reports, and nothing else.
void clear_reports();

/// Ends a test: lets queued work run as far as it can, reports what is left over (memory and handles of devices that
/// were never broken, unfinished work), forgets everything, sets schedule, devices and modes back to their defaults,
/// and returns all reports. No other thread may be inside a CUDA or NCCL call. Handles and memory of before are dead,
/// and using them is reported.
std::vector<report> reset();

// ---- The machine -------------------------------------------------------------------------------------------------

/// Number of devices: 2 by default, or SHARDKIT_DOUBLE_DEVICES. Zero: every call answers cudaErrorNoDevice.
void set_device_count(int count);
/// As on a machine without a driver: every call answers cudaErrorInsufficientDriver, cudaGetDeviceCount leaves the
/// count as it was.
void set_driver_missing(bool missing);
/// What kind of GPU all devices are; 9.0 by default.
void set_compute_capability(int major, int minor);
/// Bytes that each device can allocate; 4 GiB by default.
void set_device_memory(std::size_t bytes);
/// Whether device `from` can access the memory of device `to`; true by default.
void set_peer_access(int from, int to, bool possible);
/// The current device of the calling thread.
int current_device();

// ---- Schedules ---------------------------------------------------------------------------------------------------

/// When queued work runs.
enum class order {
  eager,   ///< at once, inside the call that queues it, if nothing holds it up
  late,    ///< only when somebody waits for it or asks, and then nothing but what is waited for
  jitter,  ///< chosen by a seeded generator
};
struct schedule {
  order when = order::eager;
  std::uint64_t seed = 0;
};
/// The default is eager, or SHARDKIT_DOUBLE_SCHEDULE: "eager", "late", "jitter:17". Work that nobody waits for runs
/// after some idle milliseconds in every schedule, as a device would do it.
void set_schedule(schedule s);
schedule current_schedule();
/// For how many seconds nothing must have been queued or run before that happens; by default 0.02 when late, else
/// 0.002.
void set_idle_time(double seconds);

/// Host synchronisations (cudaStreamSynchronize and its like) order the work that the same thread queues later. Those
/// of one thread are by default taken to order other threads too, since the double cannot see how threads
/// synchronise. With `true` they do not, which finds more: for programs whose threads meet by events alone, or by
/// starting and joining threads.
void set_threads_order_by_events_only(bool strict);

// ---- Faults ------------------------------------------------------------------------------------------------------

/// The n-th call from now (1: the next) of a function, for instance "cudaMalloc", returns `code` and does nothing.
/// With a device, only calls made while it is current are counted.
void fail_call(const std::string& function, int nth, int code, int device = -1);
/// The n-th call from now returns success and does nothing: a dropped synchronisation. 0: every call.
void drop_call(const std::string& function, int nth, int device = -1);
/// The n-th operation of this name to run from now on, for instance "cudaMemcpyAsync", crashes instead: it does
/// nothing, and from then on every call on its device answers `code`, as after set_device_error().
void fail_operation(const std::string& operation, int nth, int code, int device = -1);
/// How often a function was called since the last reset, failed and dropped calls too.
int calls(const std::string& function, int device = -1);
/// From now on every call on this device answers `code`, as after a kernel that crashed; 0 ends it.
void set_device_error(int device, int code);
/// Queued work of a device stands still until told otherwise: a slow or dead rank.
void set_stalled(int device, bool stalled);

/// What happens when the ranks of a collective disagree.
enum class mismatch_mode {
  diagnose,  ///< reported, and the call fails on every rank
  faithful,  ///< nothing is said, and it hangs or writes garbage, as NCCL does
};
void set_mismatch_mode(mismatch_mode mode);
mismatch_mode current_mismatch_mode();

// ---- Kernels and graphs ------------------------------------------------------------------------------------------

/// A kernel launch as the host code of nvcc makes it. Arguments carry neither type nor count: the stand-in knows them.
struct kernel_launch {
  std::string kernel;  ///< the demangled name, with template arguments and parameters
  unsigned grid[3];
  unsigned block[3];
  std::size_t shared_bytes;
  void** arguments;  ///< of each parameter the address of its value, valid during the call only

  template <class T>
  const T& argument(std::size_t index) const {
    return *static_cast<const T*>(arguments[index]);
  }
};
/// Checks the arguments of a launch and says what the kernel does; throws std::exception to refuse, which becomes a
/// report and cudaErrorInvalidValue. It is called at the launch, under the lock of the double.
using stand_in = std::function<operation(const kernel_launch&)>;
/// For all kernels whose demangled name without arguments is `name` ("ns::scale": every ns::scale<...>(...)). A launch
/// of a kernel that has none fails with cudaErrorInvalidDeviceFunction and a report. Survives reset().
void set_stand_in(const std::string& name, stand_in function);

/// The nodes of a cudaGraph_t in the order of their capture, one a line: number, name, parameters, accesses as
/// allocation and offset, and the numbers of the nodes that it waits for.
std::string graph_text(const void* graph);

/// Where the double keeps the bytes of device memory; host memory is its own storage. Null when the address is of no
/// allocation. For run functions of operations, and for tests that look at device memory behind the double's back.
void* storage(const void* address);

}  // namespace shardkit_double
