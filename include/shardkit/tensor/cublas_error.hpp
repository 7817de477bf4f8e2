// A cuBLASLt status as an error of the library's hierarchy.
#pragma once

#if !__has_include(<cublasLt.h>)
#error "shardkit: this needs cuBLASLt of the CUDA toolkit; link shardkit::cublaslt, or give its include folder with -I"
#endif
#include <shardkit/cuda/space.hpp>

#include <cublasLt.h>

#include <string>

namespace shardkit {

/// A cuBLASLt call failed. what() names the call, the status with its meaning, what was multiplied, device, stream, and
/// the place in the program.
class cublas_error : public transport_error {
 public:
  /// `what`: shapes and types in words, or empty where the call is not about one. `stream`: null where the call
  /// takes none.
  cublas_error(cublasStatus_t status, const char* call, const std::string& what, const cudaStream_t* stream,
               const call_site& site)
      : transport_error(compose(status, call, what, stream, site)), status_(status) {}

  /// What the library returned.
  cublasStatus_t status() const noexcept { return status_; }

 private:
  static std::string compose(cublasStatus_t status, const char* call, const std::string& what,
                             const cudaStream_t* stream, const call_site& site) {
    std::string text = std::string(call) + " failed: " + cublasLtGetStatusName(status) + " (" +
                       std::to_string(static_cast<int>(status)) + ")" + remedy(status);
    if (!what.empty()) text += "; " + what;
    return text + detail::place_of_call(detail::device_or_unknown(), stream, site);
  }

  static const char* remedy(cublasStatus_t status) noexcept {
    switch (status) {
      case CUBLAS_STATUS_NOT_INITIALIZED:
        return ", the library could not start: look for a GPU and its driver with nvidia-smi";
      case CUBLAS_STATUS_ALLOC_FAILED: return ", no memory was left for the library itself";
      case CUBLAS_STATUS_NOT_SUPPORTED:
        return ", this device has no algorithm for such a product: align pointers and row strides to 16 bytes, or give "
               "more workspace";
      case CUBLAS_STATUS_ARCH_MISMATCH: return ", this device cannot multiply these types";
      case CUBLAS_STATUS_EXECUTION_FAILED:
        return ", an earlier kernel or copy went wrong: run the program under compute-sanitizer";
      default: return "";
    }
  }

  cublasStatus_t status_;
};

}  // namespace shardkit
