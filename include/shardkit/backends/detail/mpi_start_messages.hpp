// The asynchronous forms of sends and receives, and groups of calls.
#pragma once

#include <shardkit/backends/detail/mpi_start_reductions.hpp>
#include <shardkit/comm/group.hpp>

#include <cstddef>
#include <type_traits>
#include <variant>

namespace shardkit::detail {

inline void mpi_start(mpi_state& state, mpi_pending& pending, const send_call& call) {
  pending.transfer.send(state.comm, call.in, call.count, call.type, call.peer);
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const recv_call& call) {
  pending.transfer.receive(state.comm, call.out, call.count, call.type, call.peer);
}

inline void mpi_start(mpi_state& state, mpi_pending& pending, const send_recv_call& call) {
  pending.transfer.receive(state.comm, call.out, call.recv_count, call.type, call.from);
  pending.transfer.send(state.comm, call.in, call.send_count, call.type, call.to);
}

/// All calls are under way at once: the receives before the sends, so that messages have a place to go to, and the
/// collectives in the order listed, which is the same on all ranks.
inline void mpi_start(mpi_state& state, mpi_pending& pending, const group_call& group) {
  const auto for_each = [&](auto act) {
    for (std::size_t i = 0; i < group.count; ++i) std::visit(act, group.calls[i]);
  };
  for_each([&](const auto& call) {
    using type = std::decay_t<decltype(call)>;
    if constexpr (std::is_same_v<type, recv_call>)
      pending.transfer.receive(state.comm, call.out, call.count, call.type, call.peer);
    else if constexpr (std::is_same_v<type, send_recv_call>)
      pending.transfer.receive(state.comm, call.out, call.recv_count, call.type, call.from);
  });
  for_each([&](const auto& call) {
    using type = std::decay_t<decltype(call)>;
    if constexpr (std::is_same_v<type, send_call>)
      pending.transfer.send(state.comm, call.in, call.count, call.type, call.peer);
    else if constexpr (std::is_same_v<type, send_recv_call>)
      pending.transfer.send(state.comm, call.in, call.send_count, call.type, call.to);
  });
  for_each([&](const auto& call) {
    if constexpr (!is_message<std::decay_t<decltype(call)>>) mpi_start(state, pending, call);
  });
}

}  // namespace shardkit::detail
