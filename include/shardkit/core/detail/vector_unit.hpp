// Which vector instructions this machine has, and vectors. Kernels are compiled for several units and chosen while
// running, so that no -march is needed.
#pragma once

#include <cstddef>

#if defined(__x86_64__)
#define SHARDKIT_AVX512 __attribute__((target("avx512f")))
#define SHARDKIT_AVX2 __attribute__((target("avx2,fma,f16c")))
#endif

namespace shardkit::detail {

enum class vector_unit { baseline, avx2, avx512 };

/// The best unit of this machine.
inline vector_unit best_vector_unit() noexcept {
#if defined(__x86_64__)
  static const vector_unit best =
      __builtin_cpu_supports("avx512f") ? vector_unit::avx512
      : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")
          ? vector_unit::avx2
          : vector_unit::baseline;
  return best;
#else
  return vector_unit::baseline;
#endif
}

/// Whether a machine with AVX-512 has the instructions of round_bfloats (simd_reduce.hpp).
inline bool rounds_bfloats() noexcept {
#if defined(__x86_64__)
  static const bool known =
      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  return known;
#else
  return false;
#endif
}

template <class T, std::size_t Bytes>
struct lanes_of {
  typedef T type __attribute__((vector_size(Bytes)));
  // May lie anywhere: a pair of bfloat16 is aligned as one of them.
  typedef T loose __attribute__((vector_size(Bytes), aligned(1), may_alias));
};
template <class T, std::size_t Bytes>
using lanes = typename lanes_of<T, Bytes>::type;
template <class T, std::size_t Bytes>
using loose_lanes = typename lanes_of<T, Bytes>::loose;

}  // namespace shardkit::detail
