// <mpi.h> without its C++ bindings, and shardkit's element types and reductions in MPI's terms.
#pragma once

#ifndef OMPI_SKIP_MPICXX
#define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#define MPICH_SKIP_MPICXX 1
#endif
#if !__has_include(<mpi.h>)
#error "shardkit: this needs MPI; link shardkit::mpi, compile with mpicxx, or install libopenmpi-dev"
#endif
#include <mpi.h>

/// Whether MPI's functions for counts beyond int (MPI_Bcast_c and its like) are used; they came with MPI 4. May be set
/// for a library that has them without saying so, or has them broken.
#ifndef SHARDKIT_MPI_LARGE_COUNTS
#define SHARDKIT_MPI_LARGE_COUNTS (MPI_VERSION >= 4)
#endif

#include <shardkit/core/reduction.hpp>

#include <string>

namespace shardkit::detail {

#if SHARDKIT_MPI_LARGE_COUNTS
using mpi_count = MPI_Count;
#else
using mpi_count = int;
#endif

// Without <algorithm>, which costs more than what they are used in.
template <class T>
constexpr T mpi_smaller(T a, T b) noexcept {
  return b < a ? b : a;
}
template <class T>
constexpr T mpi_larger(T a, T b) noexcept {
  return a < b ? b : a;
}

/// Throws what MPI reported about one of its functions.
[[noreturn, gnu::cold, gnu::noinline]] inline void mpi_throw(int code, const char* function) {
  char text[MPI_MAX_ERROR_STRING + 1] = {};
  int length = 0, kind = code;
  MPI_Error_string(code, text, &length);
  MPI_Error_class(code, &kind);
  const std::string reason = std::string(function) + ": " + text;
  if (kind == MPI_ERR_TRUNCATE) throw mismatch_error(reason + "; a peer sends more than this rank receives");
  throw transport_error(reason);
}
inline void mpi_check(int code, const char* function) {
  if (code != MPI_SUCCESS) [[unlikely]]
    mpi_throw(code, function);
}

/// Moves elements of this size without looking at them.
inline MPI_Datatype mpi_moving_type(dtype type) noexcept {
  switch (size_of(type)) {
    case 8: return MPI_UINT64_T;
    case 4: return MPI_UINT32_T;
    case 2: return MPI_UINT16_T;
    default: return MPI_UINT8_T;
  }
}

/// Whether MPI's own reduction gives all ranks the same bits and, where the order is to be fixed, those of rank order:
/// - Sums and products of f32 and f64 are combined in one tree, with operands swapped at most. Floating minimum and
///   maximum depend on the order (signs of zero, NaN), and 16-bit floats are unknown to MPI.
/// - Integers do not depend on the order, but the libraries get some wrong: Open MPI 4.1 saturates sums of 8 and 16
///   bits, MPICH 4.0 compares unsigned numbers as signed ones.
constexpr bool mpi_reduces_exactly(dtype type, reduction op) noexcept {
  const bool extreme = op.kind == reduction_kind::minimum || op.kind == reduction_kind::maximum;
  if (op.kind >= reduction_kind::bit_and || type == dtype::boolean) return true;
  if (type == dtype::f32 || type == dtype::f64) return !op.by_rank && !extreme;
  if (type == dtype::i32 || type == dtype::i64) return true;
  if (type == dtype::u32 || type == dtype::u64) return !extreme;
  return false;
}

/// The type to reduce with, where mpi_reduces_exactly. Only the order of integers looks at their sign; everything
/// else is unsigned, which wraps around by definition.
template <class Call>
[[gnu::always_inline]] inline MPI_Datatype mpi_reducing_type(const Call& call) noexcept {
  if (call.type == dtype::f64) return MPI_DOUBLE;
  if (call.type == dtype::f32) return MPI_FLOAT;
  if (call.op.kind == reduction_kind::minimum || call.op.kind == reduction_kind::maximum) {
    if (call.type == dtype::i64) return MPI_INT64_T;
    if (call.type == dtype::i32) return MPI_INT32_T;
  }
  return mpi_moving_type(call.type);
}

/// An average is summed by MPI and divided here; bools are bytes of 0 or 1.
template <class Call>
[[gnu::always_inline]] inline MPI_Op mpi_operation(const Call& call) noexcept {
  switch (call.op.kind) {
    case reduction_kind::sum:
    case reduction_kind::average: return MPI_SUM;
    case reduction_kind::product: return MPI_PROD;
    case reduction_kind::minimum: return call.type == dtype::boolean ? MPI_BAND : MPI_MIN;
    case reduction_kind::maximum: return call.type == dtype::boolean ? MPI_BOR : MPI_MAX;
    case reduction_kind::bit_and: return MPI_BAND;
    case reduction_kind::bit_or: return MPI_BOR;
    case reduction_kind::bit_xor: return MPI_BXOR;
  }
  return MPI_OP_NULL;
}

inline const char* mpi_name_of_thread_level(int level) noexcept {
  if (level == MPI_THREAD_SINGLE) return "MPI_THREAD_SINGLE";
  if (level == MPI_THREAD_FUNNELED) return "MPI_THREAD_FUNNELED";
  return level == MPI_THREAD_SERIALIZED ? "MPI_THREAD_SERIALIZED" : "MPI_THREAD_MULTIPLE";
}

/// Destructors may run after MPI has ended.
inline bool mpi_is_running() noexcept {
  int initialized = 0, finalized = 0;
  return MPI_Initialized(&initialized) == MPI_SUCCESS && initialized != 0 && MPI_Finalized(&finalized) == MPI_SUCCESS &&
         finalized == 0;
}

}  // namespace shardkit::detail
