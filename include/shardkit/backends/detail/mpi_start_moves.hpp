// The asynchronous forms of the collectives that only move elements. Each is one collective of MPI's, started: MPI
// carries them out in the order started, whatever the order in which the ranks wait for them. Nothing is started where
// no rank has elements.
#pragma once

#include <shardkit/backends/detail/mpi_moves.hpp>

#include <cstddef>

namespace shardkit::detail {

/// One side of MPI_Ialltoallw: what goes to, or comes from, each rank. Begins where the first part lies, so that the
/// two sides never begin at the same address: Open MPI 4.1 takes that for a call in place.
struct mpi_side {
#if SHARDKIT_MPI_LARGE_COUNTS
  using offset_type = MPI_Aint;
#else
  using offset_type = int;
#endif
  std::size_t first = 0;  ///< element of the buffer
  bool empty = true;
  mpi_count* counts;
  offset_type* offsets;  ///< in bytes from there
  MPI_Datatype* types;
};

#if !SHARDKIT_MPI_LARGE_COUNTS
/// The part as one element of a type of its own, for what ints cannot tell.
inline MPI_Datatype mpi_type_of_part(mpi_pending& pending, rank_part part, dtype type, std::size_t piece_bytes) {
  const mpi_cut cut(part.count, type, piece_bytes);
  int* lengths = pending.room<int>(cut.pieces);
  MPI_Aint* offsets = pending.room<MPI_Aint>(cut.pieces);
  for (std::size_t i = 0; i < cut.pieces; ++i) {
    lengths[i] = static_cast<int>(mpi_smaller(cut.each, part.count - i * cut.each));
    offsets[i] = static_cast<MPI_Aint>((part.offset + i * cut.each) * size_of(type));
  }
  MPI_Datatype whole = MPI_DATATYPE_NULL;
  mpi_check(MPI_Type_create_hindexed(static_cast<int>(cut.pieces), lengths, offsets, mpi_moving_type(type), &whole),
            "MPI_Type_create_hindexed");
  pending.keep(whole);
  mpi_check(MPI_Type_commit(&whole), "MPI_Type_commit");
  return whole;
}
#endif

/// Describes parts(r) for every rank r but this one; they ascend.
template <class Parts>
mpi_side mpi_describe_side(mpi_state& state, mpi_pending& pending, dtype type, Parts parts) {
  const std::size_t ranks = state.ranks();
  mpi_side side;
  side.counts = pending.room<mpi_count>(ranks);
  side.offsets = pending.room<mpi_side::offset_type>(ranks);
  side.types = pending.room<MPI_Datatype>(ranks);
  for (int rank = 0; rank < state.size; ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    rank_part part = rank == state.rank ? rank_part{} : parts(rank);
    side.types[r] = mpi_moving_type(type);
    side.counts[r] = 0;
    side.offsets[r] = 0;
    if (part.count == 0) continue;
    if (side.empty) side.first = part.offset;
    side.empty = false;
    part.offset -= side.first;
#if !SHARDKIT_MPI_LARGE_COUNTS
    if (!state.fits(part.offset + part.count, type)) {
      side.types[r] = mpi_type_of_part(pending, part, type, state.piece_bytes);
      side.counts[r] = 1;
      continue;
    }
#endif
    side.counts[r] = static_cast<mpi_count>(part.count);
    side.offsets[r] = static_cast<mpi_side::offset_type>(part.offset * size_of(type));
  }
  return side;
}

/// What mpi_move_pieces does, as one collective without limit of counts: sends outgoing(r) of `in` to every rank r and
/// receives incoming(r) of `out` from it.
template <class Outgoing, class Incoming>
void mpi_start_exchange(mpi_state& state, mpi_pending& pending, dtype type, const void* in, Outgoing outgoing,
                        void* out, Incoming incoming) {
  const rank_part given = outgoing(state.rank), kept = incoming(state.rank);
  if (kept.count != 0)
    host_space::copy(element_at(out, kept.offset, type), element_at(in, given.offset, type),
                     kept.count * size_of(type));
  const mpi_side sent = mpi_describe_side(state, pending, type, outgoing);
  const mpi_side received = mpi_describe_side(state, pending, type, incoming);
  const void* from = sent.empty ? nullptr : element_at(in, sent.first, type);
  void* to = received.empty ? nullptr : element_at(out, received.first, type);
  pending.transfer.collective("MPI_Ialltoallw", [&](MPI_Request* request) {
#if SHARDKIT_MPI_LARGE_COUNTS
    return MPI_Ialltoallw_c(from, sent.counts, sent.offsets, sent.types, to, received.counts, received.offsets,
                            received.types, state.comm, request);
#else
    return MPI_Ialltoallw(from, sent.counts, sent.offsets, sent.types, to, received.counts, received.offsets,
                          received.types, state.comm, request);
#endif
  });
}

/// Counts and displacements for MPI's unequal forms, as long as the call is under way.
struct mpi_table {
  mpi_table(mpi_state& state, mpi_pending& pending, const partition& layout)
      : counts(pending.room<int>(state.ranks())), displacements(pending.room<int>(state.ranks())) {
    for (int r = 0; r < state.size; ++r) {
      counts[r] = static_cast<int>(layout.count(r));
      displacements[r] = static_cast<int>(layout.offset(r));
    }
  }
  int* counts;
  int* displacements;
};

inline void mpi_start(mpi_state& state, mpi_pending& pending, const barrier_call&) {
  pending.transfer.collective("MPI_Ibarrier", [&](MPI_Request* request) { return MPI_Ibarrier(state.comm, request); });
}

/// In pieces with every library: MPI_Ibcast_c of MPICH 4.0 fails beyond 2^31 bytes.
inline void mpi_start(mpi_state& state, mpi_pending& pending, const broadcast_call& call) {
  const MPI_Datatype type = mpi_moving_type(call.type);
  const std::size_t each = state.piece_bytes / size_of(call.type);
  for (std::size_t done = 0; done < call.count; done += each)
    pending.transfer.collective("MPI_Ibcast", [&](MPI_Request* request) {
      return MPI_Ibcast(element_at(call.data, done, call.type), static_cast<int>(mpi_smaller(each, call.count - done)),
                        type, call.root, state.comm, request);
    });
}

// The gathers to all say MPI_IN_PLACE always: MPI wants that of all ranks or of none, and here it is each rank's own.

inline void mpi_start(mpi_state& state, mpi_pending& pending, const all_gather_call& call) {
  if (call.count == 0) return;
  if (!state.fits(call.count, call.type))
    return mpi_start_exchange(state, pending, call.type, call.in, mpi_one_part({0, call.count}), call.out,
                              parts_of_each(call.count));
  void* mine = element_at(call.out, state.index() * call.count, call.type);
  if (call.in != mine) host_space::copy(mine, call.in, call.count * size_of(call.type));
  pending.transfer.collective("MPI_Iallgather", [&](MPI_Request* request) {
    return MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, call.out, static_cast<int>(call.count),
                          mpi_moving_type(call.type), state.comm, request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const all_gather_uneven_call& call) {
  const partition& layout = *call.layout;
  if (layout.total() == 0) return;
  const std::size_t count = layout.count(state.rank);
  if (!state.fits(layout.total(), call.type))
    return mpi_start_exchange(state, pending, call.type, call.in, mpi_one_part({0, count}), call.out, parts_of(layout));
  void* mine = element_at(call.out, layout.offset(state.rank), call.type);
  if (call.in != mine) host_space::copy(mine, call.in, count * size_of(call.type));
  const mpi_table table(state, pending, layout);
  pending.transfer.collective("MPI_Iallgatherv", [&](MPI_Request* request) {
    return MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, call.out, table.counts, table.displacements,
                           mpi_moving_type(call.type), state.comm, request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const gather_call& call) {
  if (call.count == 0) return;
  const bool root = state.rank == call.root;
  if (!state.fits(call.count, call.type)) {
    const auto outgoing = mpi_part_of(call.root, {0, call.count});
    if (root)
      return mpi_start_exchange(state, pending, call.type, call.in, outgoing, call.out, parts_of_each(call.count));
    return mpi_start_exchange(state, pending, call.type, call.in, outgoing, call.out, mpi_no_parts());
  }
  const bool in_place = root && call.in == element_at(call.out, state.index() * call.count, call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  const int count = static_cast<int>(call.count);
  pending.transfer.collective("MPI_Igather", [&](MPI_Request* request) {
    return MPI_Igather(in_place ? MPI_IN_PLACE : call.in, count, type, call.out, count, type, call.root, state.comm,
                       request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const gather_uneven_call& call) {
  const bool root = state.rank == call.root;
  const partition& layout = *call.layout;
  if (layout.total() == 0) return;
  const std::size_t mine = layout.count(state.rank);
  if (!state.fits(layout.total(), call.type)) {
    const auto outgoing = mpi_part_of(call.root, {0, mine});
    if (root) return mpi_start_exchange(state, pending, call.type, call.in, outgoing, call.out, parts_of(layout));
    return mpi_start_exchange(state, pending, call.type, call.in, outgoing, call.out, mpi_no_parts());
  }
  const bool in_place = root && call.in == element_at(call.out, layout.offset(state.rank), call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  const mpi_table table(state, pending, layout);
  pending.transfer.collective("MPI_Igatherv", [&](MPI_Request* request) {
    return MPI_Igatherv(in_place ? MPI_IN_PLACE : call.in, static_cast<int>(mine), type, call.out, table.counts,
                        table.displacements, type, call.root, state.comm, request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const scatter_call& call) {
  if (call.count == 0) return;
  const bool root = state.rank == call.root;
  if (!state.fits(call.count, call.type)) {
    const auto incoming = mpi_part_of(call.root, {0, call.count});
    if (root)
      return mpi_start_exchange(state, pending, call.type, call.in, parts_of_each(call.count), call.out, incoming);
    return mpi_start_exchange(state, pending, call.type, call.in, mpi_no_parts(), call.out, incoming);
  }
  const bool in_place = root && call.out == element_at(call.in, state.index() * call.count, call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  const int count = static_cast<int>(call.count);
  pending.transfer.collective("MPI_Iscatter", [&](MPI_Request* request) {
    return MPI_Iscatter(call.in, count, type, in_place ? MPI_IN_PLACE : call.out, count, type, call.root, state.comm,
                        request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const scatter_uneven_call& call) {
  const bool root = state.rank == call.root;
  const partition& layout = *call.layout;
  if (layout.total() == 0) return;
  const std::size_t mine = layout.count(state.rank);
  if (!state.fits(layout.total(), call.type)) {
    const auto incoming = mpi_part_of(call.root, {0, mine});
    if (root) return mpi_start_exchange(state, pending, call.type, call.in, parts_of(layout), call.out, incoming);
    return mpi_start_exchange(state, pending, call.type, call.in, mpi_no_parts(), call.out, incoming);
  }
  const bool in_place = root && call.out == element_at(call.in, layout.offset(state.rank), call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  const mpi_table table(state, pending, layout);
  pending.transfer.collective("MPI_Iscatterv", [&](MPI_Request* request) {
    return MPI_Iscatterv(call.in, table.counts, table.displacements, type, in_place ? MPI_IN_PLACE : call.out,
                         static_cast<int>(mine), type, call.root, state.comm, request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const all_to_all_call& call) {
  if (call.count == 0) return;
  if (!state.fits(call.count, call.type))
    return mpi_start_exchange(state, pending, call.type, call.in, parts_of_each(call.count), call.out,
                              parts_of_each(call.count));
  const MPI_Datatype type = mpi_moving_type(call.type);
  const int count = static_cast<int>(call.count);
  pending.transfer.collective("MPI_Ialltoall", [&](MPI_Request* request) {
    return MPI_Ialltoall(call.in, count, type, call.out, count, type, state.comm, request);
  });
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const all_to_all_uneven_call& call) {
  mpi_start_exchange(state, pending, call.type, call.in, parts_of(*call.send_layout), call.out,
                     parts_of(*call.receive_layout));
}

}  // namespace shardkit::detail
