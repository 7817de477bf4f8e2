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

constexpr nccl_elements nccl_find_moved(dtype type) noexcept {
  switch (type) {
    case dtype::f64: return {ncclFloat64, 1};
    case dtype::f32: return {ncclFloat32, 1};
    case dtype::f16: return {ncclFloat16, 1};
    case dtype::bf16: return {ncclBfloat16, 1};
    case dtype::i64: return {ncclInt64, 1};
    case dtype::u64: return {ncclUint64, 1};
    case dtype::i32: return {ncclInt32, 1};
    case dtype::u32: return {ncclUint32, 1};
    case dtype::i8: return {ncclInt8, 1};
    default: return {ncclUint8, size_of(type)};
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
constexpr nccl_reduction nccl_find_reduced(dtype type, reduction_kind op) noexcept {
  using kind = nccl_reduction::kind;
  const bool extreme = op == reduction_kind::minimum || op == reduction_kind::maximum;
  kind how = kind::native;
  if (type == dtype::f8e4m3 || type == dtype::f8e5m2) how = extreme ? kind::ordered : kind::f8;
  else if (is_floating(type) && extreme) how = kind::extremes;
  if (type == dtype::i16 || type == dtype::u16) how = kind::ordered;
  ncclRedOp_t native = ncclSum;
  switch (op) {
    case reduction_kind::sum: break;
    case reduction_kind::product: native = ncclProd; break;
    case reduction_kind::minimum: native = ncclMin; break;
    case reduction_kind::maximum: native = ncclMax; break;
    case reduction_kind::average: native = ncclAvg; break;
    case reduction_kind::bit_and:
    case reduction_kind::bit_or:
      if (type != dtype::boolean) how = kind::ordered;
      native = op == reduction_kind::bit_and ? ncclMin : ncclMax;
      break;
    case reduction_kind::bit_xor: how = kind::ordered; break;
  }
#if NCCL_VERSION_CODE >= 22400
  if (type == dtype::f8e4m3) return {how, ncclFloat8e4m3, native};
  if (type == dtype::f8e5m2) return {how, ncclFloat8e5m2, native};
#endif
  return {how, nccl_find_moved(type).type, native};
}

// Looked up, where the compiler does not know type and reduction anyway: a call is to cost a handful of instructions.
struct nccl_tables {
  static constexpr std::size_t types = 15, kinds = 8;
  nccl_elements moved[types];
  nccl_reduction reduced[types * kinds];

  constexpr nccl_tables() noexcept : moved(), reduced() {
    for (std::size_t type = 0; type < types; ++type) {
      moved[type] = nccl_find_moved(static_cast<dtype>(type));
      for (std::size_t kind = 0; kind < kinds; ++kind)
        reduced[type * kinds + kind] = nccl_find_reduced(static_cast<dtype>(type), static_cast<reduction_kind>(kind));
    }
  }
};
static_assert(static_cast<std::size_t>(dtype::boolean) + 1 == nccl_tables::types);
static_assert(static_cast<std::size_t>(reduction_kind::bit_xor) + 1 == nccl_tables::kinds);
inline constexpr nccl_tables nccl_table;

[[gnu::always_inline]] inline nccl_elements nccl_moved(dtype type, std::size_t count) noexcept {
  const nccl_elements& one = nccl_table.moved[static_cast<std::size_t>(type)];
  return {one.type, count * one.count};
}
/// Of the kind alone: by_rank is the caller's to see.
[[gnu::always_inline]] inline const nccl_reduction& nccl_reduced(dtype type, reduction op) noexcept {
  return nccl_table.reduced[static_cast<std::size_t>(type) * nccl_tables::kinds + static_cast<std::size_t>(op.kind)];
}

}  // namespace shardkit::detail
