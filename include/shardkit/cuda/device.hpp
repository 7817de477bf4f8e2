// The current device of the calling thread, and where a pointer lies.
#pragma once

#include <shardkit/cuda/space.hpp>

#include <cuda_runtime_api.h>

#include <string>

namespace shardkit {

/// How many GPUs this process can use; 0 where there is no driver or no device.
inline int cuda_device_count() noexcept {
  int count = 0;  // left untouched by the call where it fails
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  (void)cudaGetLastError();
  return 0;
}

/// The calling thread's current device.
inline int current_cuda_device(const call_site& site = call_site::current()) {
  int device = 0;
  cuda_check(cudaGetDevice(&device), "cudaGetDevice", site);
  return device;
}

/// Makes `device` the calling thread's current one for as long as the guard lives.
class cuda_device_guard {
 public:
  explicit cuda_device_guard(int device, const call_site& site = call_site::current())
      : before_(current_cuda_device(site)), changed_(device != before_) {
    if (changed_) cuda_check(cudaSetDevice(device), "cudaSetDevice", site);
  }
  ~cuda_device_guard() {
    if (changed_) detail::report_cuda_error(cudaSetDevice(before_), "cudaSetDevice");
  }
  cuda_device_guard(const cuda_device_guard&) = delete;
  cuda_device_guard& operator=(const cuda_device_guard&) = delete;

 private:
  int before_;
  bool changed_;
};

/// Throws usage_error where `pointer` is not memory that the current device may use in a kernel or collective: its own,
/// managed, or pinned. Costs a call to the driver: for set-up and for looking into trouble, not for every call.
inline void require_device_pointer(const void* pointer, const call_site& site = call_site::current()) {
  cudaPointerAttributes attributes{};
  cuda_check(cudaPointerGetAttributes(&attributes, pointer), "cudaPointerGetAttributes", site);
  const int device = current_cuda_device(site);
  if (attributes.type == cudaMemoryTypeUnregistered)
    throw usage_error("the buffer lies in host memory that no GPU can reach; copy it to device " +
                      std::to_string(device) + ", or allocate it in pinned_space");
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != device)
    throw usage_error("the buffer lies on device " + std::to_string(attributes.device) +
                      ", and the current device is " + std::to_string(device) +
                      "; call cudaSetDevice, or pass a buffer of the current device");
}

}  // namespace shardkit
