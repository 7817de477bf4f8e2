// What cuBLASLt is told of one kind of product, and the algorithm that it chose for it: the inside of cublaslt_gemm.
//
// The library thinks in columns. Row-major y [M, N] = x [M, K] weights^T [N, K] is, by columns, D [N, M] = A^T B with
// the weights as A [K, N] and x as B [K, M]: "TN", the form in which all devices multiply 8-bit floats too. N is thus
// its number of rows, along which its bias goes.
#pragma once

#include <shardkit/core/dtype.hpp>
#include <shardkit/tensor/cublas_error.hpp>

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace shardkit::detail {

/// All that the choice of an algorithm depends on. Strides in elements, alignments in bytes.
struct product_kind {
  std::size_t rows, out_features, in_features;
  std::size_t x_stride, weights_stride, addend_stride, y_stride;
  std::size_t workspace_bytes;
  std::uint32_t x_alignment, weights_alignment, addend_alignment, y_alignment;
  std::uint32_t bias_alignment;  ///< 0: no bias
  dtype x, weights, y;
  bool x_scaled, weights_scaled, tf32;

  friend bool operator==(const product_kind&, const product_kind&) = default;
};

struct hash_of_product_kind {
  std::size_t operator()(const product_kind& of) const noexcept {
    std::uint64_t hash = 0;
    const auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 0x9e3779b97f4a7c15u, hash ^= hash >> 29; };
    mix(of.rows), mix(of.out_features), mix(of.in_features);
    mix(of.x_stride), mix(of.weights_stride), mix(of.addend_stride), mix(of.y_stride);
    mix(of.workspace_bytes);
    // Alignments are powers of two of at most 256: sums of multiples keep them apart.
    mix(of.x_alignment + 1024ull * of.weights_alignment + (1ull << 20) * of.addend_alignment +
        (1ull << 30) * of.y_alignment + (1ull << 40) * of.bias_alignment);
    mix(static_cast<std::uint64_t>(of.x) | static_cast<std::uint64_t>(of.weights) << 8 |
        static_cast<std::uint64_t>(of.y) << 16 | static_cast<std::uint64_t>(of.x_scaled) << 24 |
        static_cast<std::uint64_t>(of.weights_scaled) << 25 | static_cast<std::uint64_t>(of.tf32) << 26);
    return static_cast<std::size_t>(hash);
  }
};

/// For messages.
inline std::string in_words(const product_kind& of) {
  std::string text = std::string("y ") + name_of(of.y) + " [" + std::to_string(of.rows) + ", " +
                     std::to_string(of.out_features) + "] = x " + name_of(of.x) + " [" + std::to_string(of.rows) +
                     ", " + std::to_string(of.in_features) + "] times weights " + name_of(of.weights) + " [" +
                     std::to_string(of.out_features) + ", " + std::to_string(of.in_features) + "]";
  if (of.x_stride != of.in_features || of.weights_stride != of.in_features || of.y_stride != of.out_features)
    text += ", row strides " + std::to_string(of.y_stride) + ", " + std::to_string(of.x_stride) + ", " +
            std::to_string(of.weights_stride);
  return text + ", workspace of " + std::to_string(of.workspace_bytes) + " bytes";
}

inline void cublas_check(cublasStatus_t status, const char* call, const product_kind& kind,
                         const at<cuda_space>& where) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw cublas_error(status, call, in_words(kind), &where.stream.handle, where.site);
}

inline cudaDataType_t cuda_type(dtype type) noexcept {
  switch (type) {
    case dtype::f16: return CUDA_R_16F;
    case dtype::bf16: return CUDA_R_16BF;
    case dtype::f8e4m3: return CUDA_R_8F_E4M3;
    case dtype::f8e5m2: return CUDA_R_8F_E5M2;
    default: return CUDA_R_32F;
  }
}

/// Where the operands of one product lie. Null: there is none.
struct product_operands {
  const void* x;
  const void* weights;
  const void* addend;  ///< is multiplied by beta; y itself, or a matrix of its shape
  void* y;
  const void* bias;
  const float* x_scale;
  const float* weights_scale;
  float alpha, beta;
};

class cublaslt_plan {
 public:
  /// Asks for the algorithm. Host work only, some of it slow, and allocates.
  cublaslt_plan(cublasLtHandle_t library, const product_kind& kind, const product_operands& of,
                const at<cuda_space>& where) {
    const cublasComputeType_t compute = kind.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    cublasLtMatmulDesc_t operation = nullptr;
    cublas_check(cublasLtMatmulDescCreate(&operation, compute, CUDA_R_32F), "cublasLtMatmulDescCreate", kind, where);
    operation_.reset(operation);
    set(CUBLASLT_MATMUL_DESC_TRANSA, std::int32_t{CUBLAS_OP_T}, kind, where);
    if (kind.bias_alignment != 0)
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, std::uint32_t{CUBLASLT_EPILOGUE_BIAS}, kind, where);
    point_to(of, kind, where);
    weights_ = layout(kind.weights, kind.in_features, kind.out_features, kind.weights_stride, kind, where);
    x_ = layout(kind.x, kind.in_features, kind.rows, kind.x_stride, kind, where);
    addend_ = layout(kind.y, kind.out_features, kind.rows, kind.addend_stride, kind, where);
    y_ = layout(kind.y, kind.out_features, kind.rows, kind.y_stride, kind, where);
    choose(library, kind, where);
  }

  /// Enqueues the product; the operands are of the kind that the plan was made for.
  void run(cublasLtHandle_t library, const product_kind& kind, const product_operands& of, void* workspace,
           const at<cuda_space>& where) {
    if (kind.bias_alignment != 0 || kind.x_scaled || kind.weights_scaled) point_to(of, kind, where);
    cublas_check(cublasLtMatmul(library, operation_.get(), &of.alpha, of.weights, weights_.get(), of.x, x_.get(),
                                &of.beta, of.addend, addend_.get(), of.y, y_.get(), &algorithm_, workspace,
                                workspace_bytes_, where.stream.handle),
                 "cublasLtMatmul", kind, where);
  }

 private:
  template <auto Destroy>
  struct destroy {
    template <class Object>
    void operator()(Object* object) const noexcept {
      (void)Destroy(object);  // it frees host memory, nothing else
    }
  };
  using layout_ptr = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, destroy<cublasLtMatrixLayoutDestroy>>;

  template <class Value>
  void set(cublasLtMatmulDescAttributes_t attribute, const Value& value, const product_kind& kind,
           const at<cuda_space>& where) {
    cublas_check(cublasLtMatmulDescSetAttribute(operation_.get(), attribute, &value, sizeof value),
                 "cublasLtMatmulDescSetAttribute", kind, where);
  }
  void point_to(const product_operands& of, const product_kind& kind, const at<cuda_space>& where) {
    if (of.bias != nullptr) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, of.bias, kind, where);
    if (of.weights_scale != nullptr) set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, of.weights_scale, kind, where);
    if (of.x_scale != nullptr) set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, of.x_scale, kind, where);
  }

  static layout_ptr layout(dtype type, std::size_t length, std::size_t columns, std::size_t stride,
                           const product_kind& kind, const at<cuda_space>& where) {
    cublasLtMatrixLayout_t made = nullptr;
    cublas_check(cublasLtMatrixLayoutCreate(&made, cuda_type(type), length, columns, static_cast<std::int64_t>(stride)),
                 "cublasLtMatrixLayoutCreate", kind, where);
    return layout_ptr(made);
  }

  void choose(cublasLtHandle_t library, const product_kind& kind, const at<cuda_space>& where) {
    cublasLtMatmulPreference_t made = nullptr;
    cublas_check(cublasLtMatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate", kind, where);
    const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, destroy<cublasLtMatmulPreferenceDestroy>> preference(made);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      cublas_check(cublasLtMatmulPreferenceSetAttribute(made, attribute, &value, sizeof value),
                   "cublasLtMatmulPreferenceSetAttribute", kind, where);
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kind.workspace_bytes});
    // Parts of a sum are kept in f32, never in y's type.
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kind.weights_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kind.x_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kind.addend_alignment);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kind.y_alignment);
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    cublas_check(cublasLtMatmulAlgoGetHeuristic(library, operation_.get(), weights_.get(), x_.get(), addend_.get(),
                                                y_.get(), made, 1, &best, &found),
                 "cublasLtMatmulAlgoGetHeuristic", kind, where);
    cublas_check(found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : best.state, "cublasLtMatmulAlgoGetHeuristic", kind, where);
    algorithm_ = best.algo;
    workspace_bytes_ = best.workspaceSize;
  }

  std::unique_ptr<cublasLtMatmulDescOpaque_t, destroy<cublasLtMatmulDescDestroy>> operation_;
  layout_ptr weights_, x_, addend_, y_;
  cublasLtMatmulAlgo_t algorithm_{};
  std::size_t workspace_bytes_ = 0;
};

}  // namespace shardkit::detail
