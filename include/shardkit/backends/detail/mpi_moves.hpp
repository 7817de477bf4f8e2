// The collectives that only move elements: one MPI call where the counts fit, else pieces sent and received.
#pragma once

#include <shardkit/backends/detail/mpi_state.hpp>
#include <shardkit/comm/calls.hpp>
#include <shardkit/core/detail/rank_parts.hpp>

#include <cstddef>

namespace shardkit::detail {

/// The same part for every rank, or for one rank alone.
inline auto mpi_one_part(rank_part part) noexcept {
  return [part](int) { return part; };
}
inline auto mpi_part_of(int only, rank_part part) noexcept {
  return [only, part](int rank) { return rank == only ? part : rank_part{}; };
}
inline auto mpi_no_parts() noexcept {
  return [](int) { return rank_part{}; };
}

/// Sends outgoing(r) of `in` to every rank r and receives incoming(r) of `out` from it, in pieces of any size and
/// number. Both sides know each other's counts; nothing is sent for zero.
template <class Outgoing, class Incoming>
void mpi_move_pieces(mpi_state& state, dtype type, const void* in, Outgoing outgoing, void* out, Incoming incoming) {
  const MPI_Comm comm = state.inner();
  const rank_part given = outgoing(state.rank), kept = incoming(state.rank);
  if (kept.count != 0)
    host_space::copy(element_at(out, kept.offset, type), element_at(in, given.offset, type),
                     kept.count * size_of(type));
  state.pieces.run([&] {
    for (int peer = 0; peer < state.size; ++peer) {
      const rank_part part = incoming(peer);
      if (peer != state.rank && part.count != 0)
        state.pieces.receive(comm, element_at(out, part.offset, type), part.count, type, peer);
    }
    // Every rank starts with its successor, so that they do not all send to the same one first.
    for (int step = 1; step < state.size; ++step) {
      const int peer = (state.rank + step) % state.size;
      const rank_part part = outgoing(peer);
      if (part.count != 0) state.pieces.send(comm, element_at(in, part.offset, type), part.count, type, peer);
    }
  });
}

template <>
struct mpi_plain<barrier_call> {
  static constexpr const char* function = "MPI_Barrier";
  static bool suffices(const mpi_state&, const barrier_call&) noexcept { return true; }
  [[gnu::always_inline]] static int perform(mpi_state& state, const barrier_call&) noexcept {
    return MPI_Barrier(state.comm);
  }
};
inline void mpi_run(mpi_state& state, const barrier_call& call) { mpi_run_plainly(state, call); }

template <>
struct mpi_plain<broadcast_call> {
  static constexpr const char* function = "MPI_Bcast";
  static bool suffices(const mpi_state& state, const broadcast_call& call) noexcept {
    return state.fits(call.count, call.type);
  }
  [[gnu::always_inline]] static int perform(mpi_state& state, const broadcast_call& call) noexcept {
    return MPI_Bcast(call.data, static_cast<int>(call.count), mpi_moving_type(call.type), call.root, state.comm);
  }
};
inline void mpi_run(mpi_state& state, const broadcast_call& call) {
  if (state.fits(call.count, call.type)) return mpi_run_plainly(state, call);
#if SHARDKIT_MPI_LARGE_COUNTS
  mpi_check(
      MPI_Bcast_c(call.data, static_cast<MPI_Count>(call.count), mpi_moving_type(call.type), call.root, state.comm),
      "MPI_Bcast_c");
#else
  const std::size_t each = state.piece_bytes / size_of(call.type);
  for (std::size_t done = 0; done < call.count; done += each)
    mpi_check(MPI_Bcast(element_at(call.data, done, call.type), static_cast<int>(mpi_smaller(each, call.count - done)),
                        mpi_moving_type(call.type), call.root, state.comm),
              "MPI_Bcast");
#endif
}

template <>
struct mpi_plain<all_gather_call> {
  static constexpr const char* function = "MPI_Allgather";
  static bool suffices(const mpi_state& state, const all_gather_call& call) noexcept {
    return state.fits(call.count, call.type);
  }
  [[gnu::always_inline]] static int perform(mpi_state& state, const all_gather_call& call) noexcept {
    const bool in_place = call.in == element_at(call.out, state.index() * call.count, call.type);
    const MPI_Datatype type = mpi_moving_type(call.type);
    const int count = static_cast<int>(call.count);
    return MPI_Allgather(in_place ? MPI_IN_PLACE : call.in, count, type, call.out, count, type, state.comm);
  }
};
inline void mpi_run(mpi_state& state, const all_gather_call& call) {
  if (state.fits(call.count, call.type)) return mpi_run_plainly(state, call);
  mpi_move_pieces(state, call.type, call.in, mpi_one_part({0, call.count}), call.out, parts_of_each(call.count));
}

inline void mpi_run(mpi_state& state, const all_gather_uneven_call& call) {
  const partition& layout = *call.layout;
  const std::size_t mine = layout.count(state.rank);
  if (!state.fits(layout.total(), call.type))
    return mpi_move_pieces(state, call.type, call.in, mpi_one_part({0, mine}), call.out, parts_of(layout));
  const bool in_place = call.in == element_at(call.out, layout.offset(state.rank), call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  state.tabulate(layout);
  mpi_check(MPI_Allgatherv(in_place ? MPI_IN_PLACE : call.in, static_cast<int>(mine), type, call.out, state.counts(),
                           state.displacements(), type, state.comm),
            "MPI_Allgatherv");
}

inline void mpi_run(mpi_state& state, const gather_call& call) {
  const bool root = state.rank == call.root;
  if (!state.fits(call.count, call.type)) {
    const auto outgoing = mpi_part_of(call.root, {0, call.count});
    if (root) return mpi_move_pieces(state, call.type, call.in, outgoing, call.out, parts_of_each(call.count));
    return mpi_move_pieces(state, call.type, call.in, outgoing, call.out, mpi_no_parts());
  }
  const bool in_place = root && call.in == element_at(call.out, state.index() * call.count, call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  const int count = static_cast<int>(call.count);
  mpi_check(MPI_Gather(in_place ? MPI_IN_PLACE : call.in, count, type, call.out, count, type, call.root, state.comm),
            "MPI_Gather");
}

inline void mpi_run(mpi_state& state, const gather_uneven_call& call) {
  const bool root = state.rank == call.root;
  const partition& layout = *call.layout;
  const std::size_t mine = layout.count(state.rank);
  if (!state.fits(layout.total(), call.type)) {
    const auto outgoing = mpi_part_of(call.root, {0, mine});
    if (root) return mpi_move_pieces(state, call.type, call.in, outgoing, call.out, parts_of(layout));
    return mpi_move_pieces(state, call.type, call.in, outgoing, call.out, mpi_no_parts());
  }
  const bool in_place = root && call.in == element_at(call.out, layout.offset(state.rank), call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  state.tabulate(layout);
  mpi_check(MPI_Gatherv(in_place ? MPI_IN_PLACE : call.in, static_cast<int>(mine), type, call.out, state.counts(),
                        state.displacements(), type, call.root, state.comm),
            "MPI_Gatherv");
}

inline void mpi_run(mpi_state& state, const scatter_call& call) {
  const bool root = state.rank == call.root;
  if (!state.fits(call.count, call.type)) {
    const auto incoming = mpi_part_of(call.root, {0, call.count});
    if (root) return mpi_move_pieces(state, call.type, call.in, parts_of_each(call.count), call.out, incoming);
    return mpi_move_pieces(state, call.type, call.in, mpi_no_parts(), call.out, incoming);
  }
  const bool in_place = root && call.out == element_at(call.in, state.index() * call.count, call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  const int count = static_cast<int>(call.count);
  mpi_check(MPI_Scatter(call.in, count, type, in_place ? MPI_IN_PLACE : call.out, count, type, call.root, state.comm),
            "MPI_Scatter");
}

inline void mpi_run(mpi_state& state, const scatter_uneven_call& call) {
  const bool root = state.rank == call.root;
  const partition& layout = *call.layout;
  const std::size_t mine = layout.count(state.rank);
  if (!state.fits(layout.total(), call.type)) {
    const auto incoming = mpi_part_of(call.root, {0, mine});
    if (root) return mpi_move_pieces(state, call.type, call.in, parts_of(layout), call.out, incoming);
    return mpi_move_pieces(state, call.type, call.in, mpi_no_parts(), call.out, incoming);
  }
  const bool in_place = root && call.out == element_at(call.in, layout.offset(state.rank), call.type);
  const MPI_Datatype type = mpi_moving_type(call.type);
  state.tabulate(layout);
  mpi_check(MPI_Scatterv(call.in, state.counts(), state.displacements(), type, in_place ? MPI_IN_PLACE : call.out,
                         static_cast<int>(mine), type, call.root, state.comm),
            "MPI_Scatterv");
}

inline void mpi_run(mpi_state& state, const all_to_all_call& call) {
  if (!state.fits(call.count, call.type))
    return mpi_move_pieces(state, call.type, call.in, parts_of_each(call.count), call.out, parts_of_each(call.count));
  const MPI_Datatype type = mpi_moving_type(call.type);
  const int count = static_cast<int>(call.count);
  mpi_check(MPI_Alltoall(call.in, count, type, call.out, count, type, state.comm), "MPI_Alltoall");
}

/// Always in pieces: whether MPI_Alltoallv's int displacements suffice is not the same on every rank, and it sends
/// and receives in the same way.
inline void mpi_run(mpi_state& state, const all_to_all_uneven_call& call) {
  mpi_move_pieces(state, call.type, call.in, parts_of(*call.send_layout), call.out, parts_of(*call.receive_layout));
}

}  // namespace shardkit::detail
