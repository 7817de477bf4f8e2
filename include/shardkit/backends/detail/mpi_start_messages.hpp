// The asynchronous forms of sends and receives, and groups of calls.
#pragma once

#include <shardkit/backends/detail/mpi_start_reductions.hpp>
#include <shardkit/comm/group.hpp>

#include <cstddef>
#include <type_traits>

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

template <class Call>
void mpi_start_receives(mpi_state& state, mpi_pending& pending, const Call& call) {
  if constexpr (std::is_same_v<Call, recv_call>) mpi_start(state, pending, call);
  else if constexpr (std::is_same_v<Call, send_recv_call>)
    pending.transfer.receive(state.comm, call.out, call.recv_count, call.type, call.from);
}
template <class Call>
void mpi_start_sends(mpi_state& state, mpi_pending& pending, const Call& call) {
  if constexpr (std::is_same_v<Call, send_call>) mpi_start(state, pending, call);
  else if constexpr (std::is_same_v<Call, send_recv_call>)
    pending.transfer.send(state.comm, call.in, call.send_count, call.type, call.to);
}

/// All calls are under way at once: the receives before the sends, so that messages have a place to go to, and the
/// collectives in the order listed, which is the same on all ranks. A template, so that only programs with groups
/// compile it.
template <class Group, std::enable_if_t<std::is_same_v<Group, group_call>, int> = 0>
void mpi_start(mpi_state& state, mpi_pending& pending, const Group& group) {
  enum class part { receives, sends, collectives };
  for (const part now : {part::receives, part::sends, part::collectives})
    for (std::size_t i = 0; i < group.count; ++i)
      visit(
          [&](const auto& call) {
            if (now == part::receives) return mpi_start_receives(state, pending, call);
            if (now == part::sends) return mpi_start_sends(state, pending, call);
            if constexpr (!is_message<std::decay_t<decltype(call)>>) mpi_start(state, pending, call);
          },
          group.calls[i]);
}

}  // namespace shardkit::detail
