// The objects of cuBLASLt: libraries, layouts, descriptions, preferences. They are host memory, and leak as such.
#include <double/cublaslt.hpp>

#include <cstring>
#include <memory>

namespace shardkit_double::cublaslt {
namespace {

template <class Object, class Handle>
cublasStatus_t destroy(handle_table<Object>& of, Handle handle, const char* what, const char* function) {
  if (alive(of, handle, what, function) == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  of.remove(handle);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Object, class Handle>
cublasStatus_t create(handle_table<Object>& in, Handle* handle, Object object) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  auto made = std::make_unique<Object>(object);
  made->handle = static_cast<Handle>(const_cast<void*>(new_handle()));
  *handle = made->handle;
  in.add(std::move(made));
  return CUBLAS_STATUS_SUCCESS;
}

template <class Object>
void forget(handle_table<Object>& all_of, const char* what) {
  if (!all_of.all().empty())
    report_found(report_kind::leak, std::to_string(all_of.all().size()) + " " + what + " of cuBLASLt never destroyed");
  all_of.clear();
}

template <class Value>
cublasStatus_t assign(Value& to, const void* from, std::size_t bytes, const char* function) {
  if (from == nullptr || bytes != sizeof(Value))
    return refuse(function,
                  "a value of " + std::to_string(bytes) + " bytes in place of " + std::to_string(sizeof(Value)));
  std::memcpy(&to, from, sizeof(Value));
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

objects& everything() {
  static auto& the = *[] {
    at_reset([] {
      forget(everything().libraries, "handles");
      forget(everything().layouts, "matrix layouts");
      forget(everything().operations, "matmul descriptions");
      forget(everything().preferences, "matmul preferences");
    });
    return new objects;
  }();
  return the;
}

cublasStatus_t refuse(const char* function, const std::string& why, cublasStatus_t status) {
  report_found(report_kind::bad_argument, std::string(function) + ": " + why);
  return status;
}

extern "C" {

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH: return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR: return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR: return "CUBLAS_STATUS_LICENSE_ERROR";
  }
  return "an unknown status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return api("cublasLtCreate", [&] {
    if (machine_error() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (refuse_in_capture("cublasLtCreate") != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    return create(everything().libraries, handle, {nullptr, this_thread().device});
  });
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return api("cublasLtDestroy",
             [&] { return destroy(everything().libraries, handle, "cuBLASLt handle", "cublasLtDestroy"); });
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* handle, cudaDataType type, std::uint64_t rows,
                                          std::uint64_t columns, std::int64_t stride) {
  return api("cublasLtMatrixLayoutCreate", [&] {
    if (rows == 0 || columns == 0 || stride < static_cast<std::int64_t>(rows) || rows > 0x7fffffff ||
        columns > 0x7fffffff)
      return refuse("cublasLtMatrixLayoutCreate", std::to_string(rows) + " rows, " + std::to_string(columns) +
                                                      " columns, " + std::to_string(stride) +
                                                      " from one column to the next");
    return create(everything().layouts, handle, {nullptr, type, rows, columns, stride});
  });
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t handle) {
  return api("cublasLtMatrixLayoutDestroy", [&] {
    return destroy(everything().layouts, handle, "cuBLASLt matrix layout", "cublasLtMatrixLayoutDestroy");
  });
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* handle, cublasComputeType_t compute, cudaDataType scale) {
  return api("cublasLtMatmulDescCreate", [&] {
    operation_desc made;
    made.compute = compute;
    made.scale = scale;
    return create(everything().operations, handle, made);
  });
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t handle) {
  return api("cublasLtMatmulDescDestroy", [&] {
    return destroy(everything().operations, handle, "cuBLASLt matmul description", "cublasLtMatmulDescDestroy");
  });
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  constexpr const char* name = "cublasLtMatmulDescSetAttribute";
  return api(name, [&] {
    operation_desc* const of = alive(everything().operations, handle, "cuBLASLt matmul description", name);
    if (of == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
      case CUBLASLT_MATMUL_DESC_TRANSA: return assign(of->transpose_a, value, bytes, name);
      case CUBLASLT_MATMUL_DESC_TRANSB: return assign(of->transpose_b, value, bytes, name);
      case CUBLASLT_MATMUL_DESC_EPILOGUE: return assign(of->epilogue, value, bytes, name);
      case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return assign(of->bias, value, bytes, name);
      case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return assign(of->a_scale, value, bytes, name);
      case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return assign(of->b_scale, value, bytes, name);
      default: return refuse(name, "the double does not know attribute " + std::to_string(attribute));
    }
  });
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* handle) {
  return api("cublasLtMatmulPreferenceCreate", [&] { return create(everything().preferences, handle, preference()); });
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t handle) {
  return api("cublasLtMatmulPreferenceDestroy", [&] {
    return destroy(everything().preferences, handle, "cuBLASLt matmul preference", "cublasLtMatmulPreferenceDestroy");
  });
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  constexpr const char* name = "cublasLtMatmulPreferenceSetAttribute";
  return api(name, [&] {
    preference* const of = alive(everything().preferences, handle, "cuBLASLt matmul preference", name);
    if (of == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
      case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return assign(of->workspace, value, bytes, name);
      case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return assign(of->reductions, value, bytes, name);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return assign(of->alignment[0], value, bytes, name);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return assign(of->alignment[1], value, bytes, name);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return assign(of->alignment[2], value, bytes, name);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return assign(of->alignment[3], value, bytes, name);
      default: return refuse(name, "the double does not know attribute " + std::to_string(attribute));
    }
  });
}

}  // extern "C"
}  // namespace shardkit_double::cublaslt
