// The choice of an algorithm, which is a seal on what it was chosen for, and the product: summed in f32 in ascending k.
#include <double/cublaslt.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace shardkit_double::cublaslt {
namespace {

// What the chosen algorithm asks for where it may have that much.
constexpr std::uint64_t wanted_workspace = 4096;
constexpr std::uint64_t seal = 0x5ea1ed0f5a7e11ull;

std::size_t bytes_of(cudaDataType type) {
  switch (type) {
    case CUDA_R_32F: return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF: return 2;
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2: return 1;
    default: return 0;
  }
}
const char* name_of(cudaDataType type) {
  switch (type) {
    case CUDA_R_32F: return "f32";
    case CUDA_R_16F: return "f16";
    case CUDA_R_16BF: return "bf16";
    case CUDA_R_8F_E4M3: return "f8e4m3";
    case CUDA_R_8F_E5M2: return "f8e5m2";
    default: return "an unknown type";
  }
}
bool is_f8(cudaDataType type) { return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2; }

template <class Element>
float value_of(const std::byte* at) {
  Element element;
  std::memcpy(&element, at, sizeof element);
  return static_cast<float>(element);
}
float load(cudaDataType type, const std::byte* at) {
  switch (type) {
    case CUDA_R_16F: return value_of<__half>(at);
    case CUDA_R_16BF: return value_of<__nv_bfloat16>(at);
    case CUDA_R_8F_E4M3: return value_of<__nv_fp8_e4m3>(at);
    case CUDA_R_8F_E5M2: return value_of<__nv_fp8_e5m2>(at);
    default: return value_of<float>(at);
  }
}
void store(cudaDataType type, std::byte* at, float value) {
  const __half half = __float2half_rn(value);
  const __nv_bfloat16 bfloat = __float2bfloat16_rn(value);
  if (type == CUDA_R_16F) std::memcpy(at, &half, sizeof half);
  else if (type == CUDA_R_16BF) std::memcpy(at, &bfloat, sizeof bfloat);
  else std::memcpy(at, &value, sizeof value);
}
float rounded(cudaDataType type, float value) {
  std::byte bytes[sizeof value];
  store(type, bytes, value);
  return load(type, bytes);
}
/// Without the 13 fraction bits that TF32 lacks.
float as_tf32(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (std::isfinite(value)) bits = (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

/// Everything but where the operands are.
struct product {
  operation_desc op;
  layout a, b, c, d;

  bool a_is_transposed() const { return op.transpose_a == CUBLAS_OP_T; }
  bool b_is_transposed() const { return op.transpose_b == CUBLAS_OP_T; }
  std::uint64_t rows() const { return d.rows; }
  std::uint64_t columns() const { return d.columns; }
  std::uint64_t depth() const { return a_is_transposed() ? a.rows : a.columns; }
  bool has_bias() const { return op.epilogue == CUBLASLT_EPILOGUE_BIAS; }
  cudaDataType bias_type() const { return is_f8(a.type) && d.type == CUDA_R_32F ? CUDA_R_16BF : d.type; }
};

/// What is wrong with the product wherever its operands lie; empty: nothing.
std::string fault_of(const product& p) {
  const std::string types = std::string(name_of(p.a.type)) + " by " + name_of(p.b.type) + " into " + name_of(p.d.type);
  for (const std::int32_t transpose : {p.op.transpose_a, p.op.transpose_b})
    if (transpose != CUBLAS_OP_N && transpose != CUBLAS_OP_T) return "an unknown transposition";
  const std::uint64_t m = p.a_is_transposed() ? p.a.columns : p.a.rows,
                      depth_of_b = p.b_is_transposed() ? p.b.columns : p.b.rows,
                      n = p.b_is_transposed() ? p.b.rows : p.b.columns;
  if (p.rows() != m || p.columns() != n || p.depth() != depth_of_b || p.c.rows != m || p.c.columns != n)
    return "shapes that do not fit";
  const bool plain = p.a.type == p.b.type &&
                     (p.a.type == CUDA_R_32F || p.a.type == CUDA_R_16F || p.a.type == CUDA_R_16BF) &&
                     (p.d.type == p.a.type || p.d.type == CUDA_R_32F);
  const bool f8 = is_f8(p.a.type) && is_f8(p.b.type) && !(p.a.type == CUDA_R_8F_E5M2 && p.b.type == CUDA_R_8F_E5M2) &&
                  (p.d.type == CUDA_R_32F || p.d.type == CUDA_R_16F || p.d.type == CUDA_R_16BF);
  if ((!plain && !f8) || p.c.type != p.d.type) return "it does not multiply " + types;
  const bool tf32 = p.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && p.a.type == CUDA_R_32F;
  if ((p.op.compute != CUBLAS_COMPUTE_32F && !tf32) || p.op.scale != CUDA_R_32F)
    return "compute or scale type of " + types;
  if (p.op.epilogue != CUBLASLT_EPILOGUE_DEFAULT && !p.has_bias()) return "an epilogue that the double does not know";
  if (p.has_bias() && p.op.bias == nullptr) return "a bias that is null";
  if ((p.op.a_scale != nullptr || p.op.b_scale != nullptr) && !f8) return "scales of what is not 8-bit floats";
  if (!f8) return {};
  if (!p.a_is_transposed() || p.b_is_transposed()) return "8-bit floats other than transposed by not transposed";
  if (p.depth() % 16 != 0 || p.a.stride % 16 != 0 || p.b.stride % 16 != 0 || p.rows() * bytes_of(p.d.type) % 16 != 0 ||
      static_cast<std::size_t>(p.c.stride) * bytes_of(p.c.type) % 16 != 0 ||
      static_cast<std::size_t>(p.d.stride) * bytes_of(p.d.type) % 16 != 0)
    return "8-bit floats whose extents are no multiples of 16 bytes";
  return {};
}

/// Whether an algorithm may add parts of a sum in D's type. Then this one does.
bool sums_in_output(const preference& wish) {
  return (wish.reductions & (CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE)) != 0;
}

/// What an algorithm is chosen for, in the words of cublasLtMatmulAlgo_t; the last one holds the alignments.
cublasLtMatmulAlgo_t algorithm_of(const product& p, std::uint64_t workspace, const std::uint32_t (&alignment)[4],
                                  bool sums_in_output) {
  cublasLtMatmulAlgo_t made{};
  made.data[0] = seal + (sums_in_output ? 1 : 0);
  made.data[1] = p.rows() << 32 | p.columns();
  made.data[2] = p.depth() << 32 | static_cast<std::uint64_t>(p.op.transpose_a) << 16 |
                 static_cast<std::uint64_t>(p.op.transpose_b) << 12 | p.op.epilogue;
  made.data[3] = static_cast<std::uint64_t>(p.a.stride) << 32 | static_cast<std::uint64_t>(p.b.stride);
  made.data[4] = static_cast<std::uint64_t>(p.c.stride) << 32 | static_cast<std::uint64_t>(p.d.stride);
  made.data[5] = static_cast<std::uint64_t>(p.a.type) << 48 | static_cast<std::uint64_t>(p.b.type) << 32 |
                 static_cast<std::uint64_t>(p.d.type) << 16 | static_cast<std::uint64_t>(p.op.compute);
  made.data[6] = workspace;
  for (const std::uint32_t one : alignment) made.data[7] = made.data[7] << 16 | one;
  return made;
}

/// The product that the handles describe; reported, and null, where one is not alive.
bool find(product& p, cublasLtHandle_t library_handle, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
          cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, const char* function) {
  objects& o = everything();
  const library* const of = alive(o.libraries, library_handle, "cuBLASLt handle", function);
  const operation_desc* const found = alive(o.operations, op, "cuBLASLt matmul description", function);
  if (of == nullptr || found == nullptr) return false;
  if (of->device != this_thread().device) {
    report_found(report_kind::wrong_device, std::string(function) + " with a handle of device " +
                                                std::to_string(of->device) + " while device " +
                                                std::to_string(this_thread().device) + " is current");
    return false;
  }
  p.op = *found;
  const std::pair<layout*, cublasLtMatrixLayout_t> layouts[] = {{&p.a, a}, {&p.b, b}, {&p.c, c}, {&p.d, d}};
  for (const auto& [to, handle] : layouts) {
    const layout* const one = alive(o.layouts, handle, "cuBLASLt matrix layout", function);
    if (one == nullptr) return false;
    *to = *one;
  }
  return true;
}

cublasStatus_t choose(const product& p, const preference& wish, cublasLtMatmulHeuristicResult_t& result) {
  const std::string fault = fault_of(p);
  if (!fault.empty()) return refuse("cublasLtMatmulAlgoGetHeuristic", fault, CUBLAS_STATUS_NOT_SUPPORTED);
  if (is_f8(p.a.type) && all().compute_capability < 89) return CUBLAS_STATUS_NOT_SUPPORTED;
  for (const std::uint32_t alignment : wish.alignment)
    if (is_f8(p.a.type) && alignment < 16)
      return refuse("cublasLtMatmulAlgoGetHeuristic", "8-bit floats that are not aligned to 16 bytes",
                    CUBLAS_STATUS_NOT_SUPPORTED);
  result = {};
  result.workspaceSize = wish.workspace >= wanted_workspace ? wanted_workspace : 0;
  result.algo = algorithm_of(p, result.workspaceSize, wish.alignment, sums_in_output(wish));
  result.state = CUBLAS_STATUS_SUCCESS;
  result.wavesCount = 1;
  return CUBLAS_STATUS_SUCCESS;
}

struct places {
  const void* a;
  const void* b;
  const void* c;
  void* d;
  void* workspace;
  float alpha, beta;
  bool sums_in_output;
};

std::vector<float> loaded(const layout& of, const void* from, bool tf32) {
  const auto* const bytes = static_cast<const std::byte*>(storage(from));
  const std::size_t size = bytes_of(of.type);
  std::vector<float> values(of.rows * of.columns);
  for (std::uint64_t column = 0; column < of.columns; ++column)
    for (std::uint64_t row = 0; row < of.rows; ++row) {
      const float value = load(of.type, bytes + (column * static_cast<std::uint64_t>(of.stride) + row) * size);
      values[column * of.rows + row] = tf32 ? as_tf32(value) : value;
    }
  return values;
}

float scalar(const void* device) {
  return device == nullptr ? 1.0f : load(CUDA_R_32F, static_cast<std::byte*>(storage(device)));
}

void multiply(const product& p, const places& at) {
  for (const void* needed : {at.a, at.b, static_cast<const void*>(at.d)})
    if (storage(needed) == nullptr) return;  // freed meanwhile, which was reported
  const bool tf32 = p.op.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const std::vector<float> a = loaded(p.a, at.a, tf32), b = loaded(p.b, at.b, tf32);
  const std::vector<float> c = at.beta == 0 ? std::vector<float>() : loaded(p.c, at.c, false);
  const float factor = at.alpha * scalar(p.op.a_scale) * scalar(p.op.b_scale);
  const std::size_t a_step = p.a_is_transposed() ? 1 : p.a.rows, a_next = p.a_is_transposed() ? p.a.rows : 1;
  const std::size_t b_step = p.b_is_transposed() ? p.b.rows : 1, b_next = p.b_is_transposed() ? 1 : p.b.rows;
  auto* const d = static_cast<std::byte*>(storage(at.d));
  for (std::uint64_t column = 0; column < p.columns(); ++column)
    for (std::uint64_t row = 0; row < p.rows(); ++row) {
      float sum = 0;
      for (std::uint64_t k = 0; k < p.depth(); ++k) {
        if (at.sums_in_output && k == p.depth() / 2) sum = rounded(p.d.type, sum);
        sum += a[row * a_next + k * a_step] * b[column * b_next + k * b_step];
      }
      float value = factor * sum;
      if (at.beta != 0) value += at.beta * c[column * p.rows() + row];
      if (p.has_bias())
        value += load(p.bias_type(), static_cast<std::byte*>(storage(p.op.bias)) + row * bytes_of(p.bias_type()));
      store(p.d.type, d + (column * static_cast<std::uint64_t>(p.d.stride) + row) * bytes_of(p.d.type), value);
    }
}

access matrix(access_mode mode, const layout& of, const void* at) {
  const std::size_t size = bytes_of(of.type);
  return {mode, at, of.rows * size, of.columns, static_cast<std::size_t>(of.stride) * size};
}

/// What is wrong with the places, or with the algorithm for them; empty: nothing.
std::string fault_of(const product& p, const places& at, const cublasLtMatmulAlgo_t* algorithm,
                     std::size_t workspace_bytes) {
  if (at.a == nullptr || at.b == nullptr || at.c == nullptr || at.d == nullptr) return "a matrix that is null";
  if (algorithm == nullptr) return "no algorithm: each call would choose one anew";
  const std::uint64_t packed = algorithm->data[7];
  const std::uint32_t alignment[4] = {
      static_cast<std::uint32_t>(packed >> 48), static_cast<std::uint32_t>(packed >> 32 & 0xffff),
      static_cast<std::uint32_t>(packed >> 16 & 0xffff), static_cast<std::uint32_t>(packed & 0xffff)};
  const cublasLtMatmulAlgo_t fitting = algorithm_of(p, algorithm->data[6], alignment, algorithm->data[0] == seal + 1);
  if (std::memcmp(&fitting, algorithm, sizeof fitting) != 0) return "an algorithm that was chosen for another product";
  const void* const addresses[4] = {at.a, at.b, at.c, at.d};
  for (int i = 0; i < 4; ++i)
    if (reinterpret_cast<std::uintptr_t>(addresses[i]) % alignment[i] != 0)
      return "a matrix (" + std::string(1, "ABCD"[i]) + ") that is not aligned to " + std::to_string(alignment[i]) +
             " bytes, as it was said to be when the algorithm was chosen";
  if (workspace_bytes < algorithm->data[6])
    return "a workspace of " + std::to_string(workspace_bytes) + " bytes for an algorithm that needs " +
           std::to_string(algorithm->data[6]);
  if (workspace_bytes != 0 && reinterpret_cast<std::uintptr_t>(at.workspace) % 256 != 0)
    return "a workspace that is not aligned to 256 bytes";
  if (at.c == at.d && p.c.stride != p.d.stride) return "C and D at one place with different layouts";
  // No alignment is asked for, and there are kernels and GPUs that fault at less.
  if (p.has_bias() && reinterpret_cast<std::uintptr_t>(p.op.bias) % 16 != 0)
    return "a bias that is not aligned to 16 bytes";
  return {};
}

cublasStatus_t enqueue(const product& p, const places& at, std::size_t workspace_bytes, cudaStream_t stream) {
  operation op;
  op.name = "cublasLtMatmul";
  op.parameters = std::string(name_of(p.a.type)) + " by " + name_of(p.b.type) + ", alpha " + std::to_string(at.alpha) +
                  ", beta " + std::to_string(at.beta);
  op.accesses = {matrix(access_mode::read, p.a, at.a), matrix(access_mode::read, p.b, at.b)};
  if (at.beta != 0) op.accesses.push_back(matrix(access_mode::read, p.c, at.c));
  op.accesses.push_back(matrix(access_mode::write, p.d, at.d));
  if (p.has_bias()) op.accesses.push_back(reads(p.op.bias, p.rows() * bytes_of(p.bias_type())));
  for (const void* scale : {p.op.a_scale, p.op.b_scale})
    if (scale != nullptr) op.accesses.push_back(reads(scale, sizeof(float)));
  if (workspace_bytes != 0) op.accesses.push_back(writes(at.workspace, workspace_bytes));
  for (const access& one : op.accesses)
    if (memory_device(one.address) < 0)
      return refuse("cublasLtMatmul", shardkit_double::describe(one.address) + " is not device memory");
  op.run = [p, at] {
    multiply(p, at);
    return progress::done;
  };
  return shardkit_double::enqueue(stream, std::move(op)) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                        : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

extern "C" {

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t library, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wish, int asked,
                                              cublasLtMatmulHeuristicResult_t results[], int* found) {
  constexpr const char* name = "cublasLtMatmulAlgoGetHeuristic";
  return api(name, [&] {
    product p;
    if (!find(p, library, op, a, b, c, d, name)) return CUBLAS_STATUS_INVALID_VALUE;
    const preference* const of = alive(everything().preferences, wish, "cuBLASLt matmul preference", name);
    if (of == nullptr || asked < 1 || results == nullptr || found == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    *found = 0;
    const cublasStatus_t status = choose(p, *of, results[0]);
    if (status == CUBLAS_STATUS_SUCCESS) *found = 1;
    return status;
  });
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t library, cublasLtMatmulDesc_t op, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  constexpr const char* name = "cublasLtMatmul";
  return api(name, [&] {
    if (machine_error() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
    product p;
    if (!find(p, library, op, a_layout, b_layout, c_layout, d_layout, name)) return CUBLAS_STATUS_INVALID_VALUE;
    if (alpha == nullptr || beta == nullptr) return refuse(name, "alpha or beta that is null");
    const places at{a,
                    b,
                    c,
                    d,
                    workspace,
                    *static_cast<const float*>(alpha),
                    *static_cast<const float*>(beta),
                    algorithm != nullptr && algorithm->data[0] == seal + 1};
    std::string fault = fault_of(p);
    if (fault.empty()) fault = fault_of(p, at, algorithm, workspace_bytes);
    if (!fault.empty()) return refuse(name, fault);
    return enqueue(p, at, workspace_bytes, stream);
  });
}

}  // extern "C"
}  // namespace shardkit_double::cublaslt
