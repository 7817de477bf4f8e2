// The reducing collectives: MPI's own where it gives all ranks the same bits, else in rank order.
#pragma once

#include <shardkit/backends/detail/mpi_ordered.hpp>

#include <cstddef>

namespace shardkit::detail {

/// An average is MPI's sum divided here.
template <class Call>
void mpi_finish_average(const mpi_state& state, const Call& call, void* out, std::size_t count) {
  if (call.op.kind == reduction_kind::average) mpi_divide(call.type, out, count, state.size);
}

inline void mpi_run(mpi_state& state, const reduce_call& call) {
  if (!mpi_reduces_exactly(call.type, call.op)) return mpi_reduce_in_order(state, call);
  // MPI_IN_PLACE is avoided: MPICH 4.0 crashes over it where the root is not rank 0. Its place is taken by a copy, for
  // which the pieces are kept short on all ranks.
  const std::size_t each = mpi_smaller(state.piece_bytes, mpi_round_bytes) / size_of(call.type);
  const bool root = state.rank == call.root, in_place = root && call.in == call.out;
  for (std::size_t done = 0; done < call.count; done += each) {
    const std::size_t n = mpi_smaller(each, call.count - done);
    const void* in = element_at(call.in, done, call.type);
    if (in_place) {
      void* copy = state.scratch(n * size_of(call.type));
      host_space::copy(copy, in, n * size_of(call.type));
      in = copy;
    }
    mpi_check(MPI_Reduce(in, root ? element_at(call.out, done, call.type) : nullptr, static_cast<int>(n),
                         mpi_reducing_type(call), mpi_operation(call), call.root, state.comm),
              "MPI_Reduce");
  }
  if (root) mpi_finish_average(state, call, call.out, call.count);
}

/// Everything but the one call of ordinary size.
inline void mpi_all_reduce_otherwise(mpi_state& state, const all_reduce_call& call) {
  if (!mpi_reduces_exactly(call.type, call.op)) return mpi_all_reduce_in_order(state, call);
#if SHARDKIT_MPI_LARGE_COUNTS
  mpi_check(MPI_Allreduce_c(call.in == call.out ? MPI_IN_PLACE : call.in, call.out, static_cast<MPI_Count>(call.count),
                            mpi_reducing_type(call), mpi_operation(call), state.comm),
            "MPI_Allreduce_c");
#else
  const std::size_t each = state.piece_bytes / size_of(call.type);
  for (std::size_t done = 0; done < call.count; done += each)
    mpi_check(
        MPI_Allreduce(call.in == call.out ? MPI_IN_PLACE : element_at(call.in, done, call.type),
                      element_at(call.out, done, call.type), static_cast<int>(mpi_smaller(each, call.count - done)),
                      mpi_reducing_type(call), mpi_operation(call), state.comm),
        "MPI_Allreduce");
#endif
  mpi_finish_average(state, call, call.out, call.count);
}

template <>
struct mpi_plain<all_reduce_call> {
  static constexpr const char* function = "MPI_Allreduce";
  static bool suffices(const mpi_state& state, const all_reduce_call& call) noexcept {
    return mpi_reduces_exactly(call.type, call.op) && call.op.kind != reduction_kind::average &&
           state.fits(call.count, call.type);
  }
  [[gnu::always_inline]] static int perform(mpi_state& state, const all_reduce_call& call) noexcept {
    return MPI_Allreduce(call.in == call.out ? MPI_IN_PLACE : call.in, call.out, static_cast<int>(call.count),
                         mpi_reducing_type(call), mpi_operation(call), state.comm);
  }
};
inline void mpi_run(mpi_state& state, const all_reduce_call& call) {
  if (mpi_plain<all_reduce_call>::suffices(state, call)) return mpi_run_plainly(state, call);
  mpi_all_reduce_otherwise(state, call);
}

/// Whether the ranks' ranges are few and short enough for MPI's own call. The same answer on every rank; longer ones
/// go in rounds whoever combines them, which needs no second buffer where a rank's call is in place.
inline bool mpi_scatters_at_once(const mpi_state& state, std::size_t longest, std::size_t total, dtype type) noexcept {
  return longest <= mpi_round_bytes / size_of(type) && state.fits(total, type);
}

/// Calls reduce(out). In place the result goes through scratch, because MPI defines in place otherwise: it would
/// overwrite the whole input.
template <class Call, class Reduce>
void mpi_reduce_scatter_at_once(mpi_state& state, const Call& call, rank_part mine, Reduce reduce) {
  const bool in_place = call.out == element_at(call.in, mine.offset, call.type);
  const std::size_t bytes = mine.count * size_of(call.type);
  void* out = in_place ? state.scratch(bytes) : call.out;
  reduce(out);
  mpi_finish_average(state, call, out, mine.count);
  host_space::copy(call.out, out, bytes);
}

inline void mpi_run(mpi_state& state, const reduce_scatter_call& call) {
  const auto parts = parts_of_each(call.count);
  if (!mpi_reduces_exactly(call.type, call.op) ||
      !mpi_scatters_at_once(state, call.count, call.count * state.ranks(), call.type))
    return mpi_reduce_scatter_in_order(state, call, parts);
  mpi_reduce_scatter_at_once(state, call, parts(state.rank), [&](void* out) {
    mpi_check(MPI_Reduce_scatter_block(call.in, out, static_cast<int>(call.count), mpi_reducing_type(call),
                                       mpi_operation(call), state.comm),
              "MPI_Reduce_scatter_block");
  });
}

inline void mpi_run(mpi_state& state, const reduce_scatter_uneven_call& call) {
  const partition& layout = *call.layout;
  const auto parts = parts_of(layout);
  if (!mpi_reduces_exactly(call.type, call.op) ||
      !mpi_scatters_at_once(state, layout.padded_count(), layout.total(), call.type))
    return mpi_reduce_scatter_in_order(state, call, parts);
  state.tabulate(layout);
  mpi_reduce_scatter_at_once(state, call, parts(state.rank), [&](void* out) {
    mpi_check(
        MPI_Reduce_scatter(call.in, out, state.counts(), mpi_reducing_type(call), mpi_operation(call), state.comm),
        "MPI_Reduce_scatter");
  });
}

}  // namespace shardkit::detail
