// Every CUDA return code as an error of the library's hierarchy. Needs the CUDA runtime's headers, not nvcc.
#pragma once

#include <shardkit/core/error.hpp>

#if !__has_include(<cuda_runtime_api.h>)
#error "shardkit: this needs the CUDA toolkit, not nvcc; link shardkit::cuda, or give its include folder with -I"
#endif
#include <cuda_runtime_api.h>

#include <cstdio>
#include <string>

namespace shardkit {

namespace detail {

/// " (device 0, stream 0x..., called at ...)", for the end of a message. `device`: -1 where it is not known. `stream`:
/// null where the call takes none.
[[gnu::cold]] inline std::string place_of_call(int device, const cudaStream_t* stream, const call_site& site) {
  std::string text = " (device " + (device < 0 ? std::string("unknown") : std::to_string(device));
  if (stream != nullptr) {
    char name[32] = "default stream";
    if (*stream != nullptr) std::snprintf(name, sizeof name, "stream %p", static_cast<void*>(*stream));
    text += std::string(", ") + name;
  }
  if (site.known())
    text += std::string(", called at ") + site.file + ":" + std::to_string(site.line) + " in " + site.function;
  return text + ")";
}

}  // namespace detail

/// A CUDA call failed. what() names the call, the code with its meaning, device, stream, and the place in the
/// program. An error of an earlier kernel or copy shows at a later call: CUDA reports those where it notices them.
class cuda_error : public transport_error {
 public:
  /// `device`: -1 where CUDA could not tell. `stream`: null where the call takes none.
  cuda_error(cudaError_t code, const char* call, int device, const cudaStream_t* stream, const call_site& site)
      : transport_error(compose(code, call, device, stream, site)), code_(code), device_(device) {}

  /// What CUDA returned.
  cudaError_t code() const noexcept { return code_; }
  /// The calling thread's current device; -1: CUDA could not tell.
  int device() const noexcept { return device_; }

 private:
  static std::string compose(cudaError_t code, const char* call, int device, const cudaStream_t* stream,
                             const call_site& site) {
    return std::string(call) + " failed: " + cudaGetErrorName(code) + " (" + std::to_string(static_cast<int>(code)) +
           "), " + cudaGetErrorString(code) + remedy(code) + detail::place_of_call(device, stream, site);
  }

  static const char* remedy(cudaError_t code) noexcept {
    switch (code) {
      case cudaErrorInsufficientDriver:
      case cudaErrorNoDevice: return "; no GPU can be used here: look for the driver with nvidia-smi";
      case cudaErrorMemoryAllocation: return "; free memory, or take smaller buffers";
      case cudaErrorInvalidResourceHandle:
        return "; a stream or event is used that was destroyed or belongs to another device than the current one";
      case cudaErrorIllegalAddress:
      case cudaErrorLaunchFailure:
        return "; an earlier kernel or copy went wrong: run the program under compute-sanitizer";
      case cudaErrorStreamCaptureUnsupported:
      case cudaErrorStreamCaptureInvalidated:
      case cudaErrorStreamCaptureImplicit:
        return "; a stream is being captured into a graph, and this call cannot be part of one";
      default: return "";
    }
  }

  cudaError_t code_;
  int device_;
};

namespace detail {

/// The calling thread's current device, or -1.
inline int device_or_unknown() noexcept {
  int device = -1;
  if (cudaGetDevice(&device) != cudaSuccess) device = -1;
  return device;
}

[[noreturn, gnu::cold, gnu::noinline]] inline void throw_cuda_error(cudaError_t code, const char* call,
                                                                    const cudaStream_t* stream, const call_site& site) {
  cuda_error failure(code, call, device_or_unknown(), stream, site);
  (void)cudaGetLastError();  // told here: the next check of a kernel launch must not find it again
  throw failure;
}

/// For destructors, which cannot throw: one line on standard error. At the end of a program, when the runtime is
/// already gone, there is nothing to tell.
inline void report_cuda_error(cudaError_t code, const char* call) noexcept {
  if (code == cudaSuccess || code == cudaErrorCudartUnloading) return;
  (void)cudaGetLastError();
  std::fprintf(stderr, "shardkit: %s failed: %s (device %d)\n", call, cudaGetErrorName(code), device_or_unknown());
}

}  // namespace detail

/// Throws cuda_error where `code` is not cudaSuccess:
///
///     cuda_check(cudaEventRecord(event, stream), "cudaEventRecord", stream, site);
inline void cuda_check(cudaError_t code, const char* call, cudaStream_t stream,
                       const call_site& site = call_site::current()) {
  if (code != cudaSuccess) detail::throw_cuda_error(code, call, &stream, site);
}
/// For a call that takes no stream.
inline void cuda_check(cudaError_t code, const char* call, const call_site& site = call_site::current()) {
  if (code != cudaSuccess) detail::throw_cuda_error(code, call, nullptr, site);
}

}  // namespace shardkit
