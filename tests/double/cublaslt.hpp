// The inside of the cuBLASLt double: what its opaque handles stand for. Everything here is touched under the lock of
// the double (an `entry`, see runtime.hpp).
#pragma once

#include <double/state.hpp>

#include <cublasLt.h>

#include <cstdint>
#include <string>

namespace shardkit_double::cublaslt {

struct library {
  cublasLtHandle_t handle = nullptr;
  int device = 0;
};
/// A matrix by columns.
struct layout {
  cublasLtMatrixLayout_t handle = nullptr;
  cudaDataType type = CUDA_R_32F;
  std::uint64_t rows = 0, columns = 0;
  std::int64_t stride = 0;
};
struct operation_desc {
  cublasLtMatmulDesc_t handle = nullptr;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scale = CUDA_R_32F;
  std::int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  const void* a_scale = nullptr;
  const void* b_scale = nullptr;
};
struct preference {
  cublasLtMatmulPreference_t handle = nullptr;
  std::uint64_t workspace = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t alignment[4] = {256, 256, 256, 256};  ///< of A, B, C, D
};

struct objects {
  handle_table<library> libraries;
  handle_table<layout> layouts;
  handle_table<operation_desc> operations;
  handle_table<preference> preferences;
};
objects& everything();

/// Reports, and says what the call returns.
cublasStatus_t refuse(const char* function, const std::string& why,
                      cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE);

/// Runs one function of the API: lock, faults, state of the machine.
template <class Function>
cublasStatus_t api(const char* name, Function function, const void* caller = __builtin_return_address(0)) {
  entry call(name, caller);
  if (call.injected()) return static_cast<cublasStatus_t>(call.code());
  if (refuse_in_host_function(name) != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  return function();
}

/// The object behind a handle, or null with a report.
template <class Object>
Object* alive(const handle_table<Object>& of, const void* handle, const char* what, const char* function) {
  Object* const found = of.find(handle);
  if (found == nullptr) (void)bad_handle(handle, what, function);
  return found;
}

}  // namespace shardkit_double::cublaslt
