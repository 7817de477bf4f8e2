// Reductions in rank order, for whatever MPI does not reduce to the same bits: every rank receives the others'
// elements of its share, combines them in the order of the ranks, and hands the result on. In rounds, so that the
// scratch memory stays small whatever the count.
#pragma once

#include <shardkit/backends/detail/mpi_moves.hpp>

#include <cstddef>

namespace shardkit::detail {

/// Scratch memory of one round, over all ranks, in bytes; with many ranks at least a page for each.
inline constexpr std::size_t mpi_round_bytes = std::size_t{1} << 20;
inline constexpr std::size_t mpi_least_piece_bytes = 4096;
/// Up to so many bytes over all ranks, everything goes to every rank at once: one exchange instead of two.
inline constexpr std::size_t mpi_gathered_bytes = 16384;

/// Whether all ranks' elements are few enough to be gathered.
inline bool mpi_gathers_all(const mpi_state& state, std::size_t count, dtype type) noexcept {
  return count <= mpi_gathered_bytes / state.ranks() / size_of(type) && state.fits(count, type);
}

/// Combines the ranks' `count` elements, which lie one after the other.
template <class Call>
void mpi_combine_gathered(mpi_state& state, const Call& call, const void* gathered) {
  for (std::size_t r = 0; r < state.ranks(); ++r) state.inputs[r] = element_at(gathered, r * call.count, call.type);
  void* out = call.out;
  call.combine(call.op.kind, state.inputs.data(), state.size, &out, 1, call.count);
}

/// Rank r combines the ranks' parts(r) of `in`, a piece in each round. target(begin, room) says where the piece of this
/// rank that starts at element `begin` of its part goes: to the caller's memory, which may be where it comes from, or
/// to `room`, which is scratch. after_round(piece) follows on every rank; piece(r) is the piece of rank r.
template <class Call, class Parts, class Target, class AfterRound>
void mpi_reduce_parts(mpi_state& state, const Call& call, Parts parts, Target target, AfterRound after_round) {
  const std::size_t each = mpi_larger(mpi_least_piece_bytes, mpi_round_bytes / state.ranks()) / size_of(call.type);
  std::size_t longest = 0;
  for (int r = 0; r < state.size; ++r) longest = mpi_larger(longest, parts(r).count);
  // Room for a piece of every rank. Our own is read where it lies; its room is for the result.
  const std::size_t stride = mpi_smaller(each, longest);
  void* scratch = state.scratch(state.ranks() * stride * size_of(call.type));

  for (std::size_t begin = 0; begin < longest; begin += each) {
    const auto piece = [&](int rank) {
      const rank_part part = parts(rank);
      const std::size_t first = mpi_smaller(begin, part.count);
      return rank_part{part.offset + first, mpi_smaller(each, part.count - first)};
    };
    const rank_part mine = piece(state.rank);
    mpi_move_pieces(
        state, call.type, call.in, [&](int rank) { return rank == state.rank ? rank_part{} : piece(rank); }, scratch,
        [&](int rank) {
          return rank == state.rank ? rank_part{} : rank_part{static_cast<std::size_t>(rank) * stride, mine.count};
        });
    if (mine.count != 0) {
      for (std::size_t r = 0; r < state.ranks(); ++r) state.inputs[r] = element_at(scratch, r * stride, call.type);
      state.inputs[state.index()] = element_at(call.in, mine.offset, call.type);
      void* out = target(begin, element_at(scratch, state.index() * stride, call.type));
      call.combine(call.op.kind, state.inputs.data(), state.size, &out, 1, mine.count);
    }
    after_round(piece);
  }
}

inline void mpi_all_reduce_in_order(mpi_state& state, const all_reduce_call& call) {
  if (mpi_gathers_all(state, call.count, call.type)) {
    void* gathered = state.scratch(state.ranks() * call.count * size_of(call.type));
    mpi_run(state, all_gather_call{call.in, gathered, call.count, call.type, call.stream, call.site});
    return mpi_combine_gathered(state, call, gathered);
  }
  const partition shares = partition::balanced(call.count, state.size);
  void* mine = element_at(call.out, shares.offset(state.rank), call.type);
  mpi_reduce_parts(
      state, call, parts_of(shares), [&](std::size_t begin, void*) { return element_at(mine, begin, call.type); },
      [](const auto&) {});
  mpi_run(state, all_gather_uneven_call{mine, call.out, &shares, call.type, call.stream, call.site});
}

inline void mpi_reduce_in_order(mpi_state& state, const reduce_call& call) {
  const bool root = state.rank == call.root;
  if (mpi_gathers_all(state, call.count, call.type)) {
    void* gathered = root ? state.scratch(state.ranks() * call.count * size_of(call.type)) : nullptr;
    mpi_run(state, gather_call{call.in, gathered, call.count, call.type, call.root, call.stream, call.site});
    if (root) mpi_combine_gathered(state, call, gathered);
    return;
  }
  const partition shares = partition::balanced(call.count, state.size);
  const void* result = nullptr;
  mpi_reduce_parts(
      state, call, parts_of(shares),
      [&](std::size_t begin, void* spare) {
        // Elsewhere than on the root, the result stays in scratch until it is sent.
        void* where = root ? element_at(call.out, shares.offset(state.rank) + begin, call.type) : spare;
        result = where;
        return where;
      },
      [&](const auto& piece) {
        const std::size_t count = piece(state.rank).count;
        if (root)
          mpi_move_pieces(state, call.type, nullptr, mpi_no_parts(), call.out,
                          [&](int rank) { return rank == state.rank ? rank_part{} : piece(rank); });
        else mpi_move_pieces(state, call.type, result, mpi_part_of(call.root, {0, count}), nullptr, mpi_no_parts());
      });
}

/// `parts` are the ranks' ranges of `in`; `out` may be this rank's range itself.
template <class Call, class Parts>
void mpi_reduce_scatter_in_order(mpi_state& state, const Call& call, Parts parts) {
  mpi_reduce_parts(
      state, call, parts, [&](std::size_t begin, void*) { return element_at(call.out, begin, call.type); },
      [](const auto&) {});
}

}  // namespace shardkit::detail
