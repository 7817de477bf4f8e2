// A GEMM over cuBLASLt, on device memory; see gemm.hpp for the contract. Needs the CUDA toolkit, not nvcc.
//
//   buffer<std::byte, cuda_space> memory(32 << 20);
//   cublaslt_gemm gemm({.workspace = view_of(memory)});
//   up.forward(x, hidden, gemm, stream);
//
// The first call for a shape lets the library choose an algorithm; later ones look it up, and only enqueue. So run each
// shape once before it is captured into a CUDA graph.
#pragma once

#include <shardkit/tensor/cublas_error.hpp>  // first: names the component where there is no cuBLASLt

#include <shardkit/cuda/space.hpp>
#include <shardkit/tensor/detail/cublaslt_plan.hpp>
#include <shardkit/tensor/gemm.hpp>

#include <cublasLt.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace shardkit {

/// For one cublaslt_gemm.
struct cublaslt_options {
  /// Scratch memory, aligned to 256 bytes, for calls that bring none in gemm_args. Some shapes are faster with it; 32
  /// MiB is enough for all of them. It belongs to one stream at a time.
  view<std::byte, cuda_space> workspace = {};
  /// Multiplies f32 with the 10 fraction bits of TF32, several times as fast; sums stay in f32.
  bool tf32 = false;
};

/// Weights of 8-bit floats [out_features, in_features] with the scales that checkpoints hold beside them, for
/// activations that the engine has made 8-bit floats as well: y = (input_scale * x) (scale * values)^T, in Output.
/// Scales are single numbers in device memory that are read when the product runs; null is 1. A layer with such weights
/// takes x of Input; gated_mlp, within which nobody could convert, is written as its two layers.
template <class Element, class Output = bfloat16, class Input = Element>
struct f8_weights {
  using value_type = Output;  ///< of y, by which a layer is typed
  using input_type = Input;   ///< of x

  matrix_view<const Element, cuda_space> values;  ///< [out_features, in_features]
  const float* scale = nullptr;                   ///< of the values
  const float* input_scale = nullptr;             ///< of x

  /// Output features.
  std::size_t rows() const noexcept { return values.rows(); }
  /// Input features.
  std::size_t columns() const noexcept { return values.columns(); }
};

/// Multiplies f32, f16 and bf16, and 8-bit floats into one of these; sums are kept in f32. Bias and residual cost no
/// kernel of their own; a bias that is not aligned to 16 bytes is copied to the workspace first. Belongs to the device
/// that is current when it is made, and to one thread at a time: make one for each rank. Waits for nothing; allocates
/// only where it meets a shape for the first time.
///
/// Throws cublas_error where the library refuses, usage_error where the arguments are wrong. 8-bit floats need a device
/// of compute capability 8.9 (Ada, Hopper and later), in_features and row strides that are multiples of 16 bytes, rows
/// of y likewise, and pointers aligned to 16 bytes: cut their partitions with a granularity of 16.
class cublaslt_gemm {
 public:
  explicit cublaslt_gemm(cublaslt_options options = {}, call_site site = call_site::current()) : options_(options) {
    cuda_check(cudaGetDevice(&device_), "cudaGetDevice", site);
    int major = 0, minor = 0;
    cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_), "cudaDeviceGetAttribute",
               site);
    cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device_), "cudaDeviceGetAttribute",
               site);
    capability_ = 10 * major + minor;
    require_workspace(options_.workspace, site);
    if (const cublasStatus_t status = cublasLtCreate(&library_); status != CUBLAS_STATUS_SUCCESS)
      throw cublas_error(status, "cublasLtCreate", {}, nullptr, site);
  }
  cublaslt_gemm(cublaslt_gemm&& other) noexcept
      : options_(other.options_),
        device_(other.device_),
        capability_(other.capability_),
        plans_(std::move(other.plans_)),
        library_(std::exchange(other.library_, nullptr)) {}
  cublaslt_gemm& operator=(cublaslt_gemm&&) = delete;
  /// What was enqueued still runs.
  ~cublaslt_gemm() {
    plans_.clear();
    if (library_ != nullptr) (void)cublasLtDestroy(library_);
  }

  template <class T>
  void operator()(matrix_view<const detail::as_given_t<T>, cuda_space> x,
                  matrix_view<const detail::as_given_t<T>, cuda_space> weights, matrix_view<T, cuda_space> y,
                  const gemm_args<detail::as_given_t<T>, cuda_space>& args, at<cuda_space> where = {}) {
    static_assert(is_output<T>,
                  "shardkit: cublaslt_gemm multiplies f32, f16 and bf16; 8-bit floats are given as f8_weights");
    multiply(x, weights, y, nullptr, nullptr, args, where);
  }

  template <class Element, class T, class Input>
  void operator()(matrix_view<const detail::as_given_t<Input>, cuda_space> x,
                  const f8_weights<Element, T, Input>& weights, matrix_view<detail::as_given_t<T>, cuda_space> y,
                  const gemm_args<detail::as_given_t<T>, cuda_space>& args, at<cuda_space> where = {}) {
    static_assert(is_f8<Element> && is_f8<Input> && is_output<T>,
                  "shardkit: f8_weights are 8-bit floats, multiplied by 8-bit floats into f32, f16 or bf16");
    static_assert(dtype_of<Element> == dtype::f8e4m3 || dtype_of<Input> == dtype::f8e4m3,
                  "shardkit: cuBLASLt does not multiply f8e5m2 by f8e5m2; one of the two has to be f8e4m3");
    multiply(x, weights.values, y, weights.input_scale, weights.scale, args, where);
  }

  /// Shapes whose algorithms are known.
  std::size_t shapes() const noexcept { return plans_.size(); }

 private:
  template <class T>
  static constexpr bool is_output =
      dtype_of<T> == dtype::f32 || dtype_of<T> == dtype::f16 || dtype_of<T> == dtype::bf16;
  template <class T>
  static constexpr bool is_f8 = dtype_of<T> == dtype::f8e4m3 || dtype_of<T> == dtype::f8e5m2;

  /// Beyond so many shapes all are forgotten: an engine whose prompts have all lengths does not fill the memory.
  static constexpr std::size_t most_shapes = 4096;

  template <class Input, class Element, class T>
  void multiply(matrix_view<const Input, cuda_space> x, matrix_view<const Element, cuda_space> weights,
                matrix_view<T, cuda_space> y, const float* x_scale, const float* weights_scale,
                const gemm_args<T, cuda_space>& args, const at<cuda_space>& where) {
    if (y.empty()) return;
    require_fit("x", x, y.rows(), weights.columns(), where.site);
    require_fit("weights", weights, y.columns(), x.columns(), where.site);
    require_fit("the residual", args.residual, y.rows(), y.columns(), where.site);
    if (args.bias.data() != nullptr)
      require_fit("the bias", matrix_view<const T, cuda_space>(args.bias.data(), 1, args.bias.size()), 1, y.columns(),
                  where.site);
    const bool has_residual = args.residual.data() != nullptr;
    const float beta = has_residual ? 1.0f : static_cast<float>(args.beta);
    if (has_residual && static_cast<float>(args.beta) != 0)
      throw wrong("residual and beta",
                  "both were given, and one matrix can be added; put their sum into y, with beta = 1", where.site);
    if (x.columns() == 0) return add_nothing(y, args, where);
    view<std::byte, cuda_space> workspace = args.workspace.empty() ? options_.workspace : args.workspace;
    require_workspace(workspace, where.site);
    T* const bias_copy = room_for_bias(args.bias, workspace, where.site);
    const T* const bias = bias_copy != nullptr ? bias_copy : args.bias.data();
    const matrix_view<const T, cuda_space> addend = has_residual ? args.residual : matrix_view<const T, cuda_space>(y);
    const detail::product_operands operands{.x = x.data(),
                                            .weights = weights.data(),
                                            .addend = addend.data(),
                                            .y = y.data(),
                                            .bias = bias,
                                            .x_scale = x_scale,
                                            .weights_scale = weights_scale,
                                            .alpha = static_cast<float>(args.alpha),
                                            .beta = beta};
    const detail::product_kind kind{.rows = y.rows(),
                                    .out_features = y.columns(),
                                    .in_features = x.columns(),
                                    .x_stride = x.row_stride(),
                                    .weights_stride = weights.row_stride(),
                                    .addend_stride = addend.row_stride(),
                                    .y_stride = y.row_stride(),
                                    .workspace_bytes = workspace.size(),
                                    .x_alignment = alignment(x.data()),
                                    .weights_alignment = alignment(weights.data()),
                                    .addend_alignment = alignment(addend.data()),
                                    .y_alignment = alignment(y.data()),
                                    .bias_alignment = bias == nullptr ? 0 : alignment(bias),
                                    .x = dtype_of<Input>,
                                    .weights = dtype_of<Element>,
                                    .y = dtype_of<T>,
                                    .x_scaled = x_scale != nullptr,
                                    .weights_scaled = weights_scale != nullptr,
                                    .tf32 = options_.tf32 && std::is_same_v<Element, T> && dtype_of<T> == dtype::f32};
    detail::cublaslt_plan& plan = plan_for(kind, operands, where);
    if (bias_copy != nullptr) cuda_space::copy(bias_copy, args.bias.data(), args.bias.bytes(), where);
    plan.run(library_, kind, operands, workspace.data(), where);
  }

  /// The library may read a bias by 16 bytes, wherever it lies. For one that lies off: room at the start of the
  /// workspace, of which the rest remains. Otherwise null.
  template <class T>
  static T* room_for_bias(view<const T, cuda_space> bias, view<std::byte, cuda_space>& workspace,
                          const call_site& site) {
    if (alignment(bias.data()) >= 16) return nullptr;
    const std::size_t taken = (bias.bytes() + 255) / 256 * 256;
    if (workspace.size() < taken)
      throw wrong("the bias",
                  "it is not aligned to 16 bytes, and the workspace of " + std::to_string(workspace.size()) +
                      " bytes has no room for a copy, which needs " + std::to_string(taken),
                  site);
    T* const room = reinterpret_cast<T*>(workspace.data());
    workspace = {workspace.data() + taken, workspace.size() - taken};
    return room;
  }

  detail::cublaslt_plan& plan_for(const detail::product_kind& kind, const detail::product_operands& operands,
                                  const at<cuda_space>& where) {
    int device = 0;
    cuda_check(cudaGetDevice(&device), "cudaGetDevice", where.stream.handle, where.site);
    if (device != device_)
      throw wrong("the device",
                  "it was made on device " + std::to_string(device_) + " and is called on device " +
                      std::to_string(device) + "; make one for each device",
                  where.site);
    auto known = plans_.find(kind);
    if (known == plans_.end()) {
      require_possible(kind, where.site);
      if (plans_.size() == most_shapes) plans_.clear();
      known = plans_.emplace(kind, detail::cublaslt_plan(library_, kind, operands, where)).first;
    }
    return known->second;
  }

  /// A product of no columns: only copies and fills, since the library takes no empty matrices.
  template <class T>
  static void add_nothing(matrix_view<T, cuda_space> y, const gemm_args<T, cuda_space>& args,
                          const at<cuda_space>& where) {
    const bool has_bias = args.bias.data() != nullptr, has_residual = args.residual.data() != nullptr;
    const float beta = static_cast<float>(args.beta);
    if ((has_bias && (has_residual || beta != 0)) || (beta != 0 && beta != 1))
      throw wrong("a product of no columns",
                  "it would need a kernel to combine bias, residual and beta; add them yourself", where.site);
    if (has_residual) return copy(y, args.residual, where);
    if (beta == 1) return;
    if (!has_bias) return fill_zero(y, where);
    for (std::size_t m = 0; m < y.rows(); ++m)
      cuda_space::copy(y.row(m).data(), args.bias.data(), args.bias.bytes(), where);
  }

  void require_possible(const detail::product_kind& of, const call_site& site) const {
    constexpr std::size_t most = std::numeric_limits<std::int32_t>::max();
    for (const std::size_t extent :
         {of.rows, of.out_features, of.in_features, of.x_stride, of.weights_stride, of.addend_stride, of.y_stride})
      if (extent > most)
        throw wrong(in_words(of), "an extent does not fit into 31 bits; cut the product into smaller ones", site);
    if (of.x != dtype::f8e4m3 && of.x != dtype::f8e5m2) return;
    if (capability_ < 89)
      throw unsupported_error("cublaslt_gemm: device " + std::to_string(device_) + " of compute capability " +
                              std::to_string(capability_ / 10) + "." + std::to_string(capability_ % 10) +
                              " does not multiply 8-bit floats, which needs 8.9 (Ada, Hopper and later); keep the "
                              "weights in bf16");
    if (of.y == dtype::f32 && of.bias_alignment != 0)
      throw wrong(in_words(of),
                  "8-bit floats with an f32 result take no f32 bias; let the result be bf16 or f16, or add "
                  "the bias after the product",
                  site);
    const std::size_t y_size = size_of(of.y);
    const bool fits = of.in_features % 16 == 0 && of.x_stride % 16 == 0 && of.weights_stride % 16 == 0 &&
                      of.out_features * y_size % 16 == 0 && of.addend_stride * y_size % 16 == 0 &&
                      of.y_stride * y_size % 16 == 0 && of.x_alignment >= 16 && of.weights_alignment >= 16 &&
                      of.addend_alignment >= 16 && of.y_alignment >= 16;
    if (!fits)
      throw wrong(in_words(of),
                  "8-bit floats need in_features, row strides and rows of y that are multiples of 16 bytes, "
                  "and pointers aligned to 16 bytes; cut the partition with a granularity of 16",
                  site);
  }

  template <class T>
  static void require_fit(const char* what, matrix_view<const T, cuda_space> given, std::size_t rows,
                          std::size_t columns, const call_site& site) {
    if (given.data() != nullptr && (given.rows() != rows || given.columns() != columns))
      throw wrong(what,
                  "[" + std::to_string(given.rows()) + ", " + std::to_string(given.columns()) +
                      "], and the other operands need [" + std::to_string(rows) + ", " + std::to_string(columns) + "]",
                  site);
  }

  static void require_workspace(view<std::byte, cuda_space> workspace, const call_site& site) {
    if (!workspace.empty() && alignment(workspace.data()) < 256)
      throw wrong("the workspace", "it is not aligned to 256 bytes; a buffer<std::byte, cuda_space> is", site);
  }

  static usage_error wrong(const std::string& what, const std::string& why, const call_site& site) {
    std::string text = "cublaslt_gemm: " + what + ": " + why;
    if (site.known())
      text += std::string(" (called at ") + site.file + ":" + std::to_string(site.line) + " in " + site.function + ")";
    return usage_error(text);
  }

  /// The largest power of two up to 256 that divides the address.
  static std::uint32_t alignment(const void* address) noexcept {
    return std::uint32_t{1} << std::countr_zero(reinterpret_cast<std::uintptr_t>(address) | 256u);
  }

  cublaslt_options options_;
  int device_ = 0;
  int capability_ = 0;
  std::unordered_map<detail::product_kind, detail::cublaslt_plan, detail::hash_of_product_kind> plans_;
  cublasLtHandle_t library_ = nullptr;
};

}  // namespace shardkit
