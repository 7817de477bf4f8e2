// A round of a call on device memory as MPI gets it: the host backend's started call, on staging memory.
#pragma once

#include <shardkit/backends/detail/mpi_cuda_sides.hpp>
#include <shardkit/backends/detail/mpi_start_messages.hpp>
#include <shardkit/core/ordered_reduce.hpp>

#include <cstddef>
#include <string>
#include <type_traits>

namespace shardkit::detail {

/// What combines elements on the host; the calls of device communicators come without.
inline reduce_function mpi_cuda_combination(dtype type) {
  constexpr reduce_function combinations[] = {ordered_reduce_of<dtype::f64>(),
                                              ordered_reduce_of<dtype::f32>(),
                                              ordered_reduce_of<dtype::f16>(),
                                              ordered_reduce_of<dtype::bf16>(),
                                              nullptr,
                                              nullptr,
                                              ordered_reduce_of<dtype::i64>(),
                                              ordered_reduce_of<dtype::i32>(),
                                              ordered_reduce_of<dtype::i16>(),
                                              ordered_reduce_of<dtype::i8>(),
                                              ordered_reduce_of<dtype::u64>(),
                                              ordered_reduce_of<dtype::u32>(),
                                              ordered_reduce_of<dtype::u16>(),
                                              ordered_reduce_of<dtype::u8>(),
                                              ordered_reduce_of<dtype::boolean>()};
  static_assert(static_cast<std::size_t>(dtype::f8e5m2) == 5 && static_cast<std::size_t>(dtype::i64) == 6);
  const reduce_function found = combinations[static_cast<std::size_t>(type)];
  if (found == nullptr)
    throw unsupported_error(std::string("the host, which combines elements for MPI, does not reduce ") + name_of(type) +
                            "; convert to bf16 first");
  return found;
}

/// A round that has been read to `in`, and is to be written from `out`.
struct mpi_cuda_round {
  std::byte* in;
  std::byte* out;
  std::size_t number, each;
  std::size_t of;  ///< rounds of the call
};

/// Where the piece of each rank lies in staging memory: one after the other, asked for in order.
class mpi_cuda_packed {
 public:
  mpi_cuda_packed(const mpi_cuda_side& side, const mpi_cuda_round& round) noexcept : side_(side), round_(round) {}
  rank_part operator()(int rank) const noexcept {
    if (rank < next_) offset_ = 0, next_ = 0;
    for (; next_ < rank; ++next_) offset_ += side_.piece(next_, round_.number, round_.each).count;
    return {offset_, side_.piece(rank, round_.number, round_.each).count};
  }

 private:
  const mpi_cuda_side& side_;
  const mpi_cuda_round& round_;
  mutable std::size_t offset_ = 0;
  mutable int next_ = 0;
};

/// Sends outgoing(r) and receives incoming(r) as messages; this rank's own piece is copied where both sides name it.
/// Ranks may differ in how many rounds they take part in.
template <class Outgoing, class Incoming>
void mpi_cuda_post_pieces(mpi_state& state, mpi_pending& pending, dtype type, const void* in, Outgoing outgoing,
                          void* out, Incoming incoming) {
  for (int rank = 0; rank < state.size; ++rank) {
    const rank_part part = incoming(rank);
    if (part.count == 0) continue;
    void* const to = element_at(out, part.offset, type);
    if (rank != state.rank) pending.transfer.receive(state.inner(), to, part.count, type, rank);
    else host_space::copy(to, element_at(in, outgoing(rank).offset, type), part.count * size_of(type));
  }
  for (int rank = 0; rank < state.size; ++rank) {
    const rank_part part = outgoing(rank);
    if (rank != state.rank && part.count != 0)
      pending.transfer.send(state.inner(), element_at(in, part.offset, type), part.count, type, rank);
  }
}

/// Hands one round of a call to MPI.
template <class Call>
void mpi_cuda_post(mpi_state& state, mpi_pending& pending, const mpi_cuda_sides& sides, const mpi_cuda_round& round,
                   Call call) {
  const mpi_cuda_packed in(sides.in, round), out(sides.out, round);
  // Of calls whose parts are all alike.
  const auto alike = [&] { return sides.in.parts != 0 ? in(0).count : out(0).count; };
  if constexpr (std::is_same_v<Call, barrier_call>) {
    mpi_start(state, pending, call);
  } else if constexpr (std::is_same_v<Call, send_call>) {
    const std::size_t count = in(0).count;
    if (round.of == 1) pending.transfer.send(state.comm, round.in, count, call.type, call.peer);
    else pending.transfer.send(state.comm, round.in, mpi_cut::one_of(round.of, count), count, call.type, call.peer);
  } else if constexpr (std::is_same_v<Call, recv_call>) {
    const std::size_t count = out(0).count;
    if (round.of == 1) pending.transfer.receive(state.comm, round.out, count, call.type, call.peer);
    else pending.transfer.receive(state.comm, round.out, mpi_cut::one_of(round.of, count), count, call.type, call.peer);
  } else if constexpr (std::is_same_v<Call, broadcast_call>) {
    call.count = alike();
    call.data = sides.in.parts != 0 ? round.in : round.out;
    mpi_start(state, pending, call);
  } else if constexpr (std::is_same_v<Call, all_to_all_uneven_call>) {
    mpi_cuda_post_pieces(state, pending, call.type, round.in, in, round.out, out);
  } else {
    call.in = round.in;
    call.out = round.out;
    if constexpr (std::is_same_v<Call, reduce_call> || std::is_same_v<Call, all_reduce_call> ||
                  std::is_same_v<Call, reduce_scatter_call> || std::is_same_v<Call, reduce_scatter_uneven_call>)
      call.combine = mpi_cuda_combination(call.type);
    if constexpr (requires { call.count; }) {
      call.count = alike();
      mpi_start(state, pending, call);
    } else if (round.of == 1) {
      mpi_start(state, pending, call);
    } else if constexpr (std::is_same_v<Call, all_gather_uneven_call>) {
      mpi_cuda_post_pieces(
          state, pending, call.type, round.out, [&](int) { return out(state.rank); }, round.out,
          [&](int rank) { return rank == state.rank ? rank_part{} : out(rank); });
    } else if constexpr (std::is_same_v<Call, gather_uneven_call>) {
      mpi_cuda_post_pieces(state, pending, call.type, round.in, mpi_part_of(call.root, in(0)), round.out,
                           [&](int rank) { return sides.out.parts == 0 ? rank_part{} : out(rank); });
    } else if constexpr (std::is_same_v<Call, scatter_uneven_call>) {
      mpi_cuda_post_pieces(
          state, pending, call.type, round.in, [&](int rank) { return sides.in.parts == 0 ? rank_part{} : in(rank); },
          round.out, mpi_part_of(call.root, out(0)));
    } else {
      static_assert(std::is_same_v<Call, reduce_scatter_uneven_call>);
      mpi_start_reduce_scatter_in_order(state, pending, call, in);
    }
  }
}

}  // namespace shardkit::detail
