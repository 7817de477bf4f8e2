// What a call on device memory reads and writes on this rank, cut into rounds that fit into staging memory: parts (one
// for each rank, or a single one), of each of which a round takes the next `each` elements. All ranks cut alike.
#pragma once

#include <shardkit/backends/detail/mpi_moves.hpp>
#include <shardkit/cuda/space.hpp>

#include <algorithm>
#include <cstddef>

namespace shardkit::detail {

/// One side of a call: nothing, or parts of a buffer.
struct mpi_cuda_side {
  void* data = nullptr;
  int parts = 0;
  std::size_t count = 0;              ///< of each part where they are equal
  const partition* layout = nullptr;  ///< else

  rank_part part(int r) const noexcept {
    if (layout != nullptr) return {layout->offset(r), layout->count(r)};
    return {static_cast<std::size_t>(r) * count, count};
  }
  /// Of part r, in a round.
  rank_part piece(int r, std::size_t round, std::size_t each) const noexcept {
    const rank_part whole = part(r);
    const std::size_t first = std::min(round * each, whole.count);
    return {whole.offset + first, std::min(each, whole.count - first)};
  }
  std::size_t longest() const noexcept {
    std::size_t most = 0;
    for (int r = 0; r < parts; ++r) most = std::max(most, part(r).count);
    return most;
  }
  /// Elements of a round, over all parts.
  std::size_t elements(std::size_t round, std::size_t each) const noexcept {
    std::size_t all = 0;
    for (int r = 0; r < parts; ++r) all += piece(r, round, each).count;
    return all;
  }
};

/// Both sides of a call.
struct mpi_cuda_sides {
  mpi_cuda_side in, out;
  dtype type = dtype::u8;
  std::size_t shares = 1;       ///< pieces that a round holds on the rank that holds most
  std::size_t longest = 0;      ///< part of any rank that this one has to do with
  bool in_among_out = false;    ///< the piece that is read lies at its place among those that are written
  bool even_if_empty = false;   ///< there is a round even where there are no elements
  bool follows_stream = false;  ///< nothing is read, but the call comes after what the stream holds
};

inline mpi_cuda_side mpi_cuda_one(const void* data, std::size_t count) noexcept {
  return {const_cast<void*>(data), 1, count, nullptr};
}
inline mpi_cuda_side mpi_cuda_equal(const void* data, int ranks, std::size_t count) noexcept {
  return {const_cast<void*>(data), ranks, count, nullptr};
}
inline mpi_cuda_side mpi_cuda_unequal(const void* data, const partition& layout) noexcept {
  return {const_cast<void*>(data), layout.parts(), 0, &layout};
}

inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state&, const barrier_call&) noexcept {
  mpi_cuda_sides sides;
  sides.even_if_empty = sides.follows_stream = true;
  return sides;
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const broadcast_call& call) noexcept {
  const mpi_cuda_side whole = mpi_cuda_one(call.data, call.count);
  const bool root = state.rank == call.root;
  return {root ? whole : mpi_cuda_side{}, root ? mpi_cuda_side{} : whole, call.type, 1, call.count};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const reduce_call& call) noexcept {
  const bool root = state.rank == call.root;
  return {mpi_cuda_one(call.in, call.count), root ? mpi_cuda_one(call.out, call.count) : mpi_cuda_side{}, call.type, 2,
          call.count};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state&, const all_reduce_call& call) noexcept {
  return {mpi_cuda_one(call.in, call.count), mpi_cuda_one(call.out, call.count), call.type, 2, call.count};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const all_gather_call& call) noexcept {
  return {mpi_cuda_one(call.in, call.count),
          mpi_cuda_equal(call.out, state.size, call.count),
          call.type,
          state.ranks(),
          call.count,
          true};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const all_gather_uneven_call& call) noexcept {
  const mpi_cuda_side all = mpi_cuda_unequal(call.out, *call.layout);
  return {mpi_cuda_one(call.in, call.layout->count(state.rank)), all, call.type, state.ranks(), all.longest(), true};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const gather_call& call) noexcept {
  const bool root = state.rank == call.root;
  return {mpi_cuda_one(call.in, call.count), root ? mpi_cuda_equal(call.out, state.size, call.count) : mpi_cuda_side{},
          call.type, state.ranks() + 1, call.count};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const gather_uneven_call& call) noexcept {
  const bool root = state.rank == call.root;
  const mpi_cuda_side all = mpi_cuda_unequal(call.out, *call.layout);
  return {mpi_cuda_one(call.in, call.layout->count(state.rank)), root ? all : mpi_cuda_side{}, call.type,
          state.ranks() + 1, all.longest()};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const scatter_call& call) noexcept {
  const bool root = state.rank == call.root;
  return {root ? mpi_cuda_equal(call.in, state.size, call.count) : mpi_cuda_side{}, mpi_cuda_one(call.out, call.count),
          call.type, state.ranks() + 1, call.count};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const scatter_uneven_call& call) noexcept {
  const bool root = state.rank == call.root;
  const mpi_cuda_side all = mpi_cuda_unequal(call.in, *call.layout);
  return {root ? all : mpi_cuda_side{}, mpi_cuda_one(call.out, call.layout->count(state.rank)), call.type,
          state.ranks() + 1, all.longest()};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const reduce_scatter_call& call) noexcept {
  return {mpi_cuda_equal(call.in, state.size, call.count), mpi_cuda_one(call.out, call.count), call.type,
          state.ranks() + 1, call.count};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const reduce_scatter_uneven_call& call) noexcept {
  const mpi_cuda_side all = mpi_cuda_unequal(call.in, *call.layout);
  return {all, mpi_cuda_one(call.out, call.layout->count(state.rank)), call.type, state.ranks() + 1, all.longest()};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const all_to_all_call& call) noexcept {
  return {mpi_cuda_equal(call.in, state.size, call.count), mpi_cuda_equal(call.out, state.size, call.count), call.type,
          2 * state.ranks(), call.count};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state& state, const all_to_all_uneven_call& call) noexcept {
  const mpi_cuda_side in = mpi_cuda_unequal(call.in, *call.send_layout);
  const mpi_cuda_side out = mpi_cuda_unequal(call.out, *call.receive_layout);
  return {in, out, call.type, 2 * state.ranks(), std::max(in.longest(), out.longest())};
}
// Messages are there even where they are empty.
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state&, const send_call& call) noexcept {
  return {mpi_cuda_one(call.in, call.count), {}, call.type, 1, call.count, false, true};
}
inline mpi_cuda_sides mpi_cuda_sides_of(const mpi_state&, const recv_call& call) noexcept {
  return {{}, mpi_cuda_one(call.out, call.count), call.type, 1, call.count, false, true};
}

/// Enqueues the copies of a round between the device and `staging`, where the pieces lie one after the other.
/// Neighbours on both sides go in one copy.
inline void mpi_cuda_copy_round(const mpi_cuda_side& side, dtype type, std::size_t round, std::size_t each,
                                std::byte* staging, bool to_device, at<cuda_space> where) {
  std::size_t packed = 0;
  rank_part run;
  const auto flush = [&] {
    void* const device = element_at(side.data, run.offset, type);
    void* const host = element_at(staging, packed - run.count, type);
    cuda_space::copy(to_device ? device : host, to_device ? host : device, run.count * size_of(type), where);
  };
  for (int r = 0; r < side.parts; ++r) {
    const rank_part piece = side.piece(r, round, each);
    if (piece.count == 0) continue;
    if (run.offset + run.count != piece.offset) {
      if (run.count != 0) flush();
      run = {piece.offset, 0};
    }
    run.count += piece.count;
    packed += piece.count;
  }
  if (run.count != 0) flush();
}

}  // namespace shardkit::detail
