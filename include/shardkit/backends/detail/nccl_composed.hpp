// The verbs that NCCL has not in every version, or not with unequal counts, from those it has.
//
// What consists of sends and receives goes in rounds: in round k every rank sends to the k-th rank after it and
// receives from the k-th before it, so that the ranks cut the rounds into groups at the same places.
#pragma once

#include <shardkit/backends/detail/nccl_calls.hpp>
#include <shardkit/core/detail/element_at.hpp>
#include <shardkit/core/detail/rank_parts.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace shardkit::detail {

/// `outgoing(r)` are the elements for rank r, `incoming(r)` those from it: an address and a count each.
template <class Call, class Outgoing, class Incoming>
void nccl_exchange(nccl_state& state, const Call& call, Outgoing outgoing, Incoming incoming) {
  const auto own_out = outgoing(state.rank);
  const auto own_in = incoming(state.rank);
  cuda_space::copy(own_in.first, own_out.first, own_in.second * size_of(call.type), nccl_where(call));
  constexpr int rounds = static_cast<int>(nccl_group_limit / 2);
  nccl_batch batch(state, nccl_group_limit);
  for (int k = 1; k < state.size; ++k) {
    const int to = (state.rank + k) % state.size, from = (state.rank - k + state.size) % state.size;
    const auto out = outgoing(to);
    const auto in = incoming(from);
    if (out.second != 0) batch.add(send_call{out.first, out.second, call.type, to, call.stream, call.site});
    if (in.second != 0) batch.add(recv_call{in.first, in.second, call.type, from, call.stream, call.site});
    if (k % rounds == 0) batch.close();
  }
  batch.close();
}

template <class Call, class Parts>
void nccl_gather(nccl_state& state, const Call& call, Parts parts) {
  const std::size_t own = parts(state.rank).count;
  nccl_exchange(
      state, call, [&](int to) { return std::pair<const void*, std::size_t>(call.in, to == call.root ? own : 0); },
      [&](int from) {
        if (state.rank != call.root) return std::pair<void*, std::size_t>(nullptr, 0);
        const auto [offset, count] = parts(from);
        return std::pair<void*, std::size_t>(element_at(call.out, offset, call.type), count);
      });
}
template <class Call, class Parts>
void nccl_scatter(nccl_state& state, const Call& call, Parts parts) {
  const std::size_t own = parts(state.rank).count;
  nccl_exchange(
      state, call,
      [&](int to) {
        if (state.rank != call.root) return std::pair<const void*, std::size_t>(nullptr, 0);
        const auto [offset, count] = parts(to);
        return std::pair<const void*, std::size_t>(element_at(call.in, offset, call.type), count);
      },
      [&](int from) { return std::pair<void*, std::size_t>(call.out, from == call.root ? own : 0); });
}
template <class Call, class ToEach, class FromEach>
void nccl_all_to_all(nccl_state& state, const Call& call, ToEach to_each, FromEach from_each) {
  nccl_exchange(
      state, call,
      [&](int to) {
        const auto [offset, count] = to_each(to);
        return std::pair<const void*, std::size_t>(element_at(call.in, offset, call.type), count);
      },
      [&](int from) {
        const auto [offset, count] = from_each(from);
        return std::pair<void*, std::size_t>(element_at(call.out, offset, call.type), count);
      });
}

// Each of the following makes one call from others. Counts that are equal take the equal-count call.

inline void nccl_compose(nccl_state& state, const gather_call& call) {
  if (call.count == 0) return;
  if (!nccl_has_native(state, call)) return nccl_gather(state, call, parts_of_each(call.count));
  state.check(nccl_enqueue_native(state, state.alive(), call), "ncclGather");
}
inline void nccl_compose(nccl_state& state, const scatter_call& call) {
  if (call.count == 0) return;
  if (!nccl_has_native(state, call)) return nccl_scatter(state, call, parts_of_each(call.count));
  state.check(nccl_enqueue_native(state, state.alive(), call), "ncclScatter");
}
inline void nccl_compose(nccl_state& state, const all_to_all_call& call) {
  if (call.count == 0) return;
  const auto parts = parts_of_each(call.count);
  if (!nccl_has_native(state, call)) return nccl_all_to_all(state, call, parts, parts);
  state.check(nccl_enqueue_native(state, state.alive(), call), "ncclAlltoAll");
}
inline void nccl_compose(nccl_state& state, const gather_uneven_call& call) {
  if (call.layout->uniform())
    return nccl_compose(
        state, gather_call{call.in, call.out, call.layout->count(0), call.type, call.root, call.stream, call.site});
  nccl_gather(state, call, parts_of(*call.layout));
}
inline void nccl_compose(nccl_state& state, const scatter_uneven_call& call) {
  if (call.layout->uniform())
    return nccl_compose(
        state, scatter_call{call.in, call.out, call.layout->count(0), call.type, call.root, call.stream, call.site});
  nccl_scatter(state, call, parts_of(*call.layout));
}
// A rank whose own counts are equal does not know those of the others.
inline void nccl_compose(nccl_state& state, const all_to_all_uneven_call& call) {
  nccl_all_to_all(state, call, parts_of(*call.send_layout), parts_of(*call.receive_layout));
}

/// What each rank has, broadcast by it to its place.
inline void nccl_list(nccl_state& state, nccl_batch& batch, const all_gather_uneven_call& call) {
  const partition& layout = *call.layout;
  for (int root = 0; root < state.size; ++root) {
    const nccl_elements moved = nccl_moved(call.type, layout.count(root));
    if (moved.count == 0) continue;
    char* const place = element_at(call.out, layout.offset(root), call.type);
    batch.add("ncclBroadcast", [&] {
      return state.api.broadcast(root == state.rank ? call.in : place, place, moved.count, moved.type, root,
                                 state.alive(), nccl_stream(call));
    });
  }
}
/// What each rank gets, reduced to it.
inline void nccl_list(nccl_state& state, nccl_batch& batch, const reduce_scatter_uneven_call& call) {
  const partition& layout = *call.layout;
  for (int root = 0; root < state.size; ++root)
    if (layout.count(root) != 0)
      batch.add(reduce_call{element_at(call.in, layout.offset(root), call.type),
                            root == state.rank ? call.out : nullptr, layout.count(root), call.type, call.op, nullptr,
                            root, call.stream, call.site});
}

}  // namespace shardkit::detail
