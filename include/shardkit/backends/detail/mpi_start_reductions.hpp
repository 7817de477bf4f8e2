// The asynchronous forms of the reducing collectives. Every message is known to MPI from the start, so that a call
// needs no rank to come back before it waits. Therefore what MPI does not reduce to the same bits is gathered whole, in
// memory of the pending call (size * count elements), and combined in rank order at completion.
#pragma once

#include <shardkit/backends/detail/mpi_start_moves.hpp>

#include <cstddef>

namespace shardkit::detail {

/// What MPI gets to read of a reduction in place: a copy. MPI_IN_PLACE is avoided: MPI wants it of all ranks or of
/// none, Open MPI 4.1 then takes slower ways, and MPICH 4.0 crashes over it in a reduce to another root than rank 0.
template <class Call>
const void* mpi_apart(mpi_pending& pending, const Call& call, bool in_place) {
  if (!in_place) return call.in;
  const std::size_t bytes = call.count * size_of(call.type);
  void* copy = pending.room<std::byte>(bytes);
  host_space::copy(copy, call.in, bytes);
  return copy;
}

/// Room for `count` elements of every rank, to be combined at `out` at completion.
template <class Call>
void* mpi_room_to_combine(mpi_state& state, mpi_pending& pending, const Call& call, std::size_t count) {
  void* gathered = pending.room<std::byte>(state.ranks() * count * size_of(call.type));
  pending.finish_with(mpi_finish{call.combine, call.op.kind, gathered, call.out, count, call.type}, state.size);
  return gathered;
}

/// Where MPI has left a result at `from`, to be completed at the call's `out`.
template <class Call>
void mpi_finish_at(mpi_state& state, mpi_pending& pending, const Call& call, void* from, std::size_t count) {
  if (from != call.out || call.op.kind == reduction_kind::average)
    pending.finish_with(mpi_finish{nullptr, call.op.kind, from, call.out, count, call.type}, state.size);
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const all_reduce_call& call) {
  if (!mpi_reduces_exactly(call.type, call.op)) {
    void* gathered = mpi_room_to_combine(state, pending, call, call.count);
    return mpi_start(state, pending, all_gather_call{call.in, gathered, call.count, call.type, call.stream, call.site});
  }
  const void* in = mpi_apart(pending, call, call.in == call.out);
  const MPI_Datatype type = mpi_reducing_type(call);
  const MPI_Op operation = mpi_operation(call);
  mpi_finish_at(state, pending, call, call.out, call.count);
#if SHARDKIT_MPI_LARGE_COUNTS
  if (!state.fits(call.count, call.type))
    return pending.transfer.collective("MPI_Iallreduce_c", [&](MPI_Request* request) {
      return MPI_Iallreduce_c(in, call.out, static_cast<MPI_Count>(call.count), type, operation, state.comm, request);
    });
#endif
  const std::size_t each = state.piece_bytes / size_of(call.type);
  for (std::size_t done = 0; done < call.count; done += each)
    pending.transfer.collective("MPI_Iallreduce", [&](MPI_Request* request) {
      return MPI_Iallreduce(element_at(in, done, call.type), element_at(call.out, done, call.type),
                            static_cast<int>(mpi_smaller(each, call.count - done)), type, operation, state.comm,
                            request);
    });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const reduce_call& call) {
  const bool root = state.rank == call.root;
  if (!mpi_reduces_exactly(call.type, call.op)) {
    void* gathered = root ? mpi_room_to_combine(state, pending, call, call.count) : nullptr;
    return mpi_start(state, pending,
                     gather_call{call.in, gathered, call.count, call.type, call.root, call.stream, call.site});
  }
  const void* in = mpi_apart(pending, call, root && call.in == call.out);
  if (root) mpi_finish_at(state, pending, call, call.out, call.count);
  const std::size_t each = state.piece_bytes / size_of(call.type);
  for (std::size_t done = 0; done < call.count; done += each)
    pending.transfer.collective("MPI_Ireduce", [&](MPI_Request* request) {
      return MPI_Ireduce(element_at(in, done, call.type), root ? element_at(call.out, done, call.type) : nullptr,
                         static_cast<int>(mpi_smaller(each, call.count - done)), mpi_reducing_type(call),
                         mpi_operation(call), call.root, state.comm, request);
    });
}

/// Every rank gets its part from all others, and combines it.
template <class Call, class Parts>
void mpi_start_reduce_scatter_in_order(mpi_state& state, mpi_pending& pending, const Call& call, Parts parts) {
  const std::size_t mine = parts(state.rank).count;
  void* gathered = mpi_room_to_combine(state, pending, call, mine);
  mpi_start_exchange(state, pending, call.type, call.in, parts, gathered, parts_of_each(mine));
}

/// Where MPI is to put its result: MPI's own form in place would overwrite the whole input.
template <class Call>
void* mpi_scattered(mpi_state& state, mpi_pending& pending, const Call& call, rank_part mine) {
  const bool in_place = call.out == element_at(call.in, mine.offset, call.type);
  void* out = in_place ? pending.room<std::byte>(mine.count * size_of(call.type)) : call.out;
  mpi_finish_at(state, pending, call, out, mine.count);
  return out;
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const reduce_scatter_call& call) {
  if (call.count == 0) return;
  const auto parts = parts_of_each(call.count);
  if (!mpi_reduces_exactly(call.type, call.op) || !state.fits(call.count * state.ranks(), call.type))
    return mpi_start_reduce_scatter_in_order(state, pending, call, parts);
  void* out = mpi_scattered(state, pending, call, parts(state.rank));
  pending.transfer.collective("MPI_Ireduce_scatter_block", [&](MPI_Request* request) {
    return MPI_Ireduce_scatter_block(call.in, out, static_cast<int>(call.count), mpi_reducing_type(call),
                                     mpi_operation(call), state.comm, request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const reduce_scatter_uneven_call& call) {
  const partition& layout = *call.layout;
  if (layout.total() == 0) return;
  const auto parts = parts_of(layout);
  if (!mpi_reduces_exactly(call.type, call.op) || !state.fits(layout.total(), call.type))
    return mpi_start_reduce_scatter_in_order(state, pending, call, parts);
  void* out = mpi_scattered(state, pending, call, parts(state.rank));
  const mpi_table table(state, pending, layout);
  pending.transfer.collective("MPI_Ireduce_scatter", [&](MPI_Request* request) {
    return MPI_Ireduce_scatter(call.in, out, table.counts, mpi_reducing_type(call), mpi_operation(call), state.comm,
                               request);
  });
}

}  // namespace shardkit::detail
