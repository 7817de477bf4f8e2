// The rank-ordered reduction as a kernel: reads every rank's elements once, combines them in rank order, and writes the
// result to one place or to several, with the bits of the host's ordered_reduce. For nvcc alone.
//
// It is what nccl_options::ordered_reduce asks for, and, over pointers to the buffers of GPUs that reach each other,
// cuda_thread_options::ordered_reduce: an all-reduce in one step.
#pragma once

#include <shardkit/cuda/detail/launching.cuh>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

namespace shardkit {
namespace detail {

/// Where the inputs of a reduction lie: side by side, or each somewhere.
struct ordered_inputs {
  static constexpr int most = 128;  // they travel as parameters of the kernel

  const void* each[most];
  const char* blocks;  // not null: input r is at blocks + r * stride
  std::size_t stride;
  int count;

  template <class T>
  __host__ __device__ const T* input(int rank) const {
    return static_cast<const T*>(blocks != nullptr ? static_cast<const void*>(blocks + rank * stride) : each[rank]);
  }
};

/// Where its results go, each to the same elements.
struct ordered_outputs {
  void* each[ordered_inputs::most];
  int count;
};

/// A combination known when the kernel is compiled: the one that has to keep up with memory.
template <reduction_kind Kind>
struct fixed_combination {
  template <class A>
  __host__ __device__ A operator()(A a, A b) const {
    return combine_one<Kind>(a, b);
  }
};
/// Any other: all threads take the same branch.
struct any_combination {
  reduction_kind kind;

  template <class A>
  __host__ __device__ A operator()(A a, A b) const {
    switch (kind) {
      case reduction_kind::product: return combine_one<reduction_kind::product>(a, b);
      case reduction_kind::minimum: return combine_one<reduction_kind::minimum>(a, b);
      case reduction_kind::maximum: return combine_one<reduction_kind::maximum>(a, b);
      default: break;
    }
    if constexpr (std::is_integral_v<A>) {
      switch (kind) {
        case reduction_kind::bit_and: return combine_one<reduction_kind::bit_and>(a, b);
        case reduction_kind::bit_or: return combine_one<reduction_kind::bit_or>(a, b);
        case reduction_kind::bit_xor: return combine_one<reduction_kind::bit_xor>(a, b);
        default: break;
      }
    }
    return combine_one<reduction_kind::sum>(a, b);
  }
};

template <class T, class Combination>
struct ordered_reduce_body {
  using wide = computed<T>;
  static constexpr int lanes = 16 / sizeof(T);  // elements of one load

  ordered_inputs in;
  ordered_outputs out;
  Combination combine;
  int divisor;  // 1, or the number of ranks for an average

  __host__ __device__ T finish(wide value) const {
    if constexpr (std::is_floating_point_v<wide>) {
      if (divisor != 1) value /= static_cast<wide>(divisor);
    }
    return narrow<T>(value);
  }

  __host__ __device__ void element(std::size_t i) const {
    wide value = widen(in.input<T>(0)[i]);
    for (int rank = 1; rank < in.count; ++rank) value = combine(value, widen(in.input<T>(rank)[i]));
    for (int to = 0; to < out.count; ++to) static_cast<T*>(out.each[to])[i] = finish(value);
  }

  // 16 bytes of every rank; four ranks' loads are under way at once. An output may be one of the inputs.
  __host__ __device__ void vector(std::size_t v) const {
    T elements[lanes];
    wide values[lanes];
    const uint4 first = reinterpret_cast<const uint4*>(in.input<T>(0))[v];
    __builtin_memcpy(elements, &first, sizeof first);
    for (int i = 0; i < lanes; ++i) values[i] = widen(elements[i]);
    constexpr int ahead = 4;
    for (int rank = 1; rank < in.count; rank += ahead) {
      uint4 loaded[ahead];
#pragma unroll
      for (int k = 0; k < ahead; ++k)
        if (rank + k < in.count) loaded[k] = reinterpret_cast<const uint4*>(in.input<T>(rank + k))[v];
#pragma unroll
      for (int k = 0; k < ahead; ++k) {
        if (rank + k >= in.count) break;
        __builtin_memcpy(elements, &loaded[k], sizeof loaded[k]);
        for (int i = 0; i < lanes; ++i) values[i] = combine(values[i], widen(elements[i]));
      }
    }
    for (int i = 0; i < lanes; ++i) elements[i] = finish(values[i]);
    uint4 result;
    __builtin_memcpy(&result, elements, sizeof result);
    for (int to = 0; to < out.count; ++to) static_cast<uint4*>(out.each[to])[v] = result;
  }
};

/// The first `vectors` * 16 bytes by vectors, the rest of the `count` elements one by one.
template <class Body>
__global__ void __launch_bounds__(512) over_elements(Body body, std::size_t vectors, std::size_t count) {
  const std::size_t thread = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x;
  const std::size_t threads = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t v = thread; v < vectors; v += threads) body.vector(v);
  for (std::size_t i = vectors * Body::lanes + thread; i < count; i += threads) body.element(i);
}

template <class T, class Combination>
void launch_ordered_reduce(const ordered_inputs& in, const ordered_outputs& out, std::size_t count, Combination combine,
                           int divisor, const at<cuda_space>& where) {
  using body = ordered_reduce_body<T, Combination>;
  const auto aligned = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  bool by_vectors = std::all_of(out.each, out.each + out.count, aligned);
  for (int rank = 0; rank < in.count; ++rank) by_vectors = by_vectors && aligned(in.input<char>(rank));
  const std::size_t vectors = by_vectors ? count / body::lanes : 0;
  const std::size_t steps = std::max(vectors, count - vectors * body::lanes);
  constexpr std::size_t threads = 512, most_blocks = 4096;
  const dim3 grid(static_cast<unsigned>(std::min((steps + threads - 1) / threads, most_blocks)));
  launch("ordered_reduce<<<>>>", &over_elements<body>, grid, dim3(threads), where, body{in, out, combine, divisor},
         vectors, count);
}

template <class T>
void launch_ordered_reduce(reduction_kind kind, const ordered_inputs& in, const ordered_outputs& out, std::size_t count,
                           const at<cuda_space>& where) {
  if constexpr (std::is_floating_point_v<computed<T>>) {
    if (kind == reduction_kind::sum || kind == reduction_kind::average)
      return launch_ordered_reduce<T>(in, out, count, fixed_combination<reduction_kind::sum>(),
                                      kind == reduction_kind::average ? in.count : 1, where);
  }
  launch_ordered_reduce<T>(in, out, count, any_combination{kind}, 1, where);
}

inline void launch_ordered_reduce(reduction_kind kind, dtype type, const ordered_inputs& in, const ordered_outputs& out,
                                  std::size_t count, const at<cuda_space>& where) {
  require_reducible(type, kind);
  if (count == 0) return;
  switch (type) {
    case dtype::f64: return launch_ordered_reduce<double>(kind, in, out, count, where);
    case dtype::f32: return launch_ordered_reduce<float>(kind, in, out, count, where);
    case dtype::f16: return launch_ordered_reduce<float16>(kind, in, out, count, where);
    case dtype::bf16: return launch_ordered_reduce<bfloat16>(kind, in, out, count, where);
    case dtype::i64: return launch_ordered_reduce<std::int64_t>(kind, in, out, count, where);
    case dtype::i32: return launch_ordered_reduce<std::int32_t>(kind, in, out, count, where);
    case dtype::i16: return launch_ordered_reduce<std::int16_t>(kind, in, out, count, where);
    case dtype::i8: return launch_ordered_reduce<std::int8_t>(kind, in, out, count, where);
    case dtype::u64: return launch_ordered_reduce<std::uint64_t>(kind, in, out, count, where);
    case dtype::u32: return launch_ordered_reduce<std::uint32_t>(kind, in, out, count, where);
    case dtype::u16: return launch_ordered_reduce<std::uint16_t>(kind, in, out, count, where);
    default: return launch_ordered_reduce<std::uint8_t>(kind, in, out, count, where);  // bool is a byte of 0 or 1
  }
}

}  // namespace detail

/// outputs[k][i] = inputs[0][i] op inputs[1][i] op ... for i < count, in this order, and every k. Inputs and outputs
/// are memory that the current device can read and write, its own or a peer's; an output may be one of the inputs.
/// 16-bit floats are accumulated in f32 and rounded once. One pass with loads of 16 bytes where every pointer is a
/// multiple of 16. Its address is a cuda_thread_options::ordered_reduce.
///
/// Only enqueues. Throws usage_error for more inputs or outputs than a kernel takes, unsupported_error for a reduction
/// that is not defined for the type, cuda_error.
inline void cuda_ordered_reduce(reduction_kind kind, dtype type, const void* const* inputs, int input_count,
                                void* const* outputs, int output_count, std::size_t count, at<cuda_space> where = {}) {
  constexpr int most = detail::ordered_inputs::most;
  if (input_count < 1 || input_count > most || output_count < 1 || output_count > most)
    throw usage_error("an ordered reduction of " + std::to_string(input_count) + " buffers into " +
                      std::to_string(output_count) + "; it takes 1 to " + std::to_string(most) +
                      ", or any number of inputs side by side");
  detail::ordered_inputs in{};
  std::copy(inputs, inputs + input_count, in.each);
  in.count = input_count;
  detail::ordered_outputs out{};
  std::copy(outputs, outputs + output_count, out.each);
  out.count = output_count;
  detail::launch_ordered_reduce(kind, type, in, out, count, where);
}

/// The same with one output, for inputs that lie side by side: input r at in + r * count elements. Its address is a
/// nccl_options::ordered_reduce.
inline void cuda_ordered_reduce_blocks(reduction_kind kind, dtype type, const void* in, int ranks, void* out,
                                       std::size_t count, cudaStream_t stream) {
  detail::ordered_inputs inputs{};
  inputs.blocks = static_cast<const char*>(in);
  inputs.stride = count * size_of(type);
  inputs.count = ranks;
  detail::ordered_outputs outputs{};
  outputs.each[0] = out;
  outputs.count = 1;
  detail::launch_ordered_reduce(kind, type, inputs, outputs, count, stream);
}

}  // namespace shardkit
