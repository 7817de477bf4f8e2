// Element types and reductions as NCCL names them, and which reductions NCCL does as the library defines them.
#pragma once

#include <shardkit/core/dtype.hpp>
#include <shardkit/core/reduction.hpp>

#include <nccl.h>

#include <cstddef>

namespace shardkit::detail {

/// Elements that are moved and not combined. NCCL lacks some of our types: those travel as bytes.
struct nccl_elements {
  ncclDataType_t type;
  std::size_t count;
};

constexpr nccl_elements nccl_moved(dtype type, std::size_t count) noexcept {
  switch (type) {
    case dtype::f64: return {ncclFloat64, count};
    case dtype::f32: return {ncclFloat32, count};
    case dtype::f16: return {ncclFloat16, count};
    case dtype::bf16: return {ncclBfloat16, count};
    case dtype::i64: return {ncclInt64, count};
    case dtype::u64: return {ncclUint64, count};
    case dtype::i32: return {ncclInt32, count};
    case dtype::u32: return {ncclUint32, count};
    case dtype::i8: return {ncclInt8, count};
    default: return {ncclUint8, count * size_of(type)};
  }
}

/// How a reduction reaches NCCL.
struct nccl_reduction {
  enum class kind {
    native,    ///< by NCCL's own operation
    extremes,  ///< NCCL has the operation, but loses NaN and the sign of zero
    f8,        ///< NCCL's own from 2.24 on
    ordered,   ///< not at all: gathered, then combined by a kernel in rank order
  };
  kind how;
  ncclDataType_t type;
  ncclRedOp_t op;
};

/// bool is a byte of 0 or 1, for which bit_and is the minimum and bit_or the maximum.
constexpr nccl_reduction nccl_reduced(dtype type, reduction op) noexcept {
  using kind = nccl_reduction::kind;
  const bool extreme = op.kind == reduction_kind::minimum || op.kind == reduction_kind::maximum;
  kind how = kind::native;
  if (type == dtype::f8e4m3 || type == dtype::f8e5m2) how = extreme ? kind::ordered : kind::f8;
  else if (is_floating(type) && extreme) how = kind::extremes;
  if (type == dtype::i16 || type == dtype::u16) how = kind::ordered;
  ncclRedOp_t native = ncclSum;
  switch (op.kind) {
    case reduction_kind::sum: break;
    case reduction_kind::product: native = ncclProd; break;
    case reduction_kind::minimum: native = ncclMin; break;
    case reduction_kind::maximum: native = ncclMax; break;
    case reduction_kind::average: native = ncclAvg; break;
    case reduction_kind::bit_and:
    case reduction_kind::bit_or:
      if (type != dtype::boolean) how = kind::ordered;
      native = op.kind == reduction_kind::bit_and ? ncclMin : ncclMax;
      break;
    case reduction_kind::bit_xor: how = kind::ordered; break;
  }
  if (op.by_rank) how = kind::ordered;
#if NCCL_VERSION_CODE >= 22400
  if (type == dtype::f8e4m3) return {how, ncclFloat8e4m3, native};
  if (type == dtype::f8e5m2) return {how, ncclFloat8e5m2, native};
#endif
  return {how, nccl_moved(type, 1).type, native};
}

}  // namespace shardkit::detail
