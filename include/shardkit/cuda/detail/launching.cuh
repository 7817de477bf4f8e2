// What the kernels of this folder have in common: how element types are computed with, and how a kernel is launched.
// For nvcc alone.
#pragma once

#if !defined(__CUDACC__)
#error "shardkit: CUDA kernels need nvcc; include .cuh files from .cu sources only"
#endif

#include <shardkit/core/detail/simd_reduce.hpp>
#include <shardkit/cuda/space.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace shardkit::detail {

// 16-bit floats are computed in float and rounded once, to nearest even, as on the host. CUDA's own types too.
template <class T>
inline constexpr bool is_half = std::is_same_v<T, float16> || std::is_same_v<T, __half>;
template <class T>
inline constexpr bool is_bfloat = std::is_same_v<T, bfloat16> || std::is_same_v<T, __nv_bfloat16>;
template <class T>
using computed = std::conditional_t<is_half<T> || is_bfloat<T>, float, T>;

template <class To, class From>
__host__ __device__ To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <class T>
__host__ __device__ computed<T> widen(const T& x) {
  if constexpr (is_half<T>) return __half2float(same_bits<__half>(x));
  else if constexpr (is_bfloat<T>) return __bfloat162float(same_bits<__nv_bfloat16>(x));
  else return x;
}
template <class T>
__host__ __device__ T narrow(computed<T> x) {
  if constexpr (is_half<T>) return same_bits<T>(__float2half_rn(x));
  else if constexpr (is_bfloat<T>) return same_bits<T>(__float2bfloat16_rn(x));
  else return x;
}

/// Enqueues one kernel; `name` appears in the error where CUDA refuses it.
template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, const at<cuda_space>& where,
            const Arguments&... arguments) {
  const auto call = [&](Parameters... values) {
    void* addresses[] = {static_cast<void*>(&values)...};
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, addresses, 0, where.stream.handle);
  };
  cuda_check(call(arguments...), name, where.stream.handle, where.site);
}

/// body(row, column) for every cell of a matrix.
template <class Body>
__global__ void over_cells(Body body, std::size_t rows, std::size_t columns) {
  for (std::size_t row = blockIdx.y; row < rows; row += gridDim.y)
    for (std::size_t column = blockIdx.x * std::size_t{blockDim.x} + threadIdx.x; column < columns;
         column += std::size_t{gridDim.x} * blockDim.x)
      body(row, column);
}

template <class Body>
void launch_over_cells(const char* name, const Body& body, std::size_t rows, std::size_t columns,
                       const at<cuda_space>& where) {
  if (rows == 0 || columns == 0) return;
  constexpr std::size_t most_blocks = 65535, threads = 256;  // the limit of a grid's second extent
  const dim3 grid(static_cast<unsigned>(std::min((columns + threads - 1) / threads, most_blocks)),
                  static_cast<unsigned>(std::min(rows, most_blocks)));
  launch(name, &over_cells<Body>, grid, dim3(threads), where, body, rows, columns);
}

}  // namespace shardkit::detail
