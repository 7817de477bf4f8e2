// 8-bit floats of an engine's own: CUDA's, with a dtype.
#pragma once

#include <shardkit/core/dtype.hpp>

#include <cuda_fp8.h>

struct e4m3 : __nv_fp8_e4m3 {
  using __nv_fp8_e4m3::__nv_fp8_e4m3;
};
struct e5m2 : __nv_fp8_e5m2 {
  using __nv_fp8_e5m2::__nv_fp8_e5m2;
};
inline bool operator==(const e4m3& a, const e4m3& b) { return a.__x == b.__x; }
inline bool operator==(const e5m2& a, const e5m2& b) { return a.__x == b.__x; }
template <>
struct shardkit::dtype_traits<e4m3> {
  static constexpr dtype value = dtype::f8e4m3;
};
template <>
struct shardkit::dtype_traits<e5m2> {
  static constexpr dtype value = dtype::f8e5m2;
};
