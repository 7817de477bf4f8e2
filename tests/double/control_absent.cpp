// The control functions of the double in a program that runs on real GPUs: there is nothing to control or to hear.
#include <double/control.hpp>

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>

namespace shardkit_double {
namespace {

/// Ends the program before main where it can do nothing: 77 says "skipped" to CTest.
[[maybe_unused]] const bool has_gpu = [] {
  int count = 0;  // stays as it is when the call fails
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return true;
  std::printf("skipped: no GPU can be used here: cudaGetDeviceCount says %s, %s\n", cudaGetErrorName(error),
              cudaGetErrorString(error));
  std::fflush(stdout);
  std::_Exit(77);
}();

}  // namespace

bool active() { return false; }
const char* to_string(report_kind) { return ""; }
std::vector<report> reports() { return {}; }
std::string report_text() { return {}; }
void clear_reports() {}
std::vector<report> reset() { return {}; }

void set_device_count(int) {}
void set_driver_missing(bool) {}
void set_compute_capability(int, int) {}
void set_device_memory(std::size_t) {}
void set_peer_access(int, int, bool) {}
int current_device() {
  int device = 0;
  return cudaGetDevice(&device) == cudaSuccess ? device : 0;
}

void set_schedule(schedule) {}
schedule current_schedule() { return {}; }
void set_idle_time(double) {}
void set_threads_order_by_events_only(bool) {}

void fail_call(const std::string&, int, int, int) {}
void fail_operation(const std::string&, int, int, int) {}
void drop_call(const std::string&, int, int) {}
int calls(const std::string&, int) { return 0; }
void set_device_error(int, int) {}
void set_stalled(int, bool) {}
void set_mismatch_mode(mismatch_mode) {}
mismatch_mode current_mismatch_mode() { return mismatch_mode::faithful; }

void set_stand_in(const std::string&, stand_in) {}
std::string graph_text(const void*) { return {}; }
void* storage(const void*) { return nullptr; }

}  // namespace shardkit_double
