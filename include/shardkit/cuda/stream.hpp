// A stream that owns itself. Everything takes borrowed streams (cudaStream_t, cuda_space::stream); an owning one
// converts to them.
#pragma once

#include <shardkit/cuda/space.hpp>

#include <cuda_runtime_api.h>

#include <utility>

namespace shardkit {

/// Owns a CUDA stream of the device that was current when it was made; it does not wait for the default stream, nor
/// the default stream for it. Move-only. Destroying it waits for nothing: work under way still completes.
class cuda_stream {
 public:
  /// `priority`: lower goes first; the device's range is small and contains 0.
  explicit cuda_stream(int priority = 0, const call_site& site = call_site::current()) {
    cuda_check(cudaStreamCreateWithPriority(&handle_, cudaStreamNonBlocking, priority), "cudaStreamCreateWithPriority",
               site);
  }
  cuda_stream(cuda_stream&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  cuda_stream& operator=(cuda_stream&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~cuda_stream() {
    if (handle_ != nullptr) detail::report_cuda_error(cudaStreamDestroy(handle_), "cudaStreamDestroy");
  }

  /// CUDA's own; it lives as long as this object.
  cudaStream_t handle() const noexcept { return handle_; }
  operator cuda_space::stream() const noexcept { return handle_; }

 private:
  cudaStream_t handle_ = nullptr;
};

}  // namespace shardkit
