// Sends and receives between two ranks, and groups of calls.
#pragma once

#include <shardkit/backends/detail/mpi_reductions.hpp>
#include <shardkit/comm/group.hpp>

#include <type_traits>
#include <variant>

namespace shardkit::detail {

inline void mpi_run(mpi_state& state, const send_call& call) {
  if (!state.fits(call.count, call.type)) [[unlikely]]
    return state.messages.run([&] {
      state.messages.send(state.comm, call.in, call.count, call.type, call.peer);
    });
  mpi_check(MPI_Send(call.in, static_cast<int>(call.count), mpi_moving_type(call.type), call.peer, 1, state.comm),
            "MPI_Send");
}

inline void mpi_run(mpi_state& state, const recv_call& call) {
  if (!state.fits(call.count, call.type)) [[unlikely]]
    return state.messages.run([&] {
      state.messages.receive(state.comm, call.out, call.count, call.type, call.peer);
    });
  MPI_Status status;
  const int code = MPI_Recv(call.out, static_cast<int>(call.count), mpi_moving_type(call.type), call.peer, MPI_ANY_TAG,
                            state.comm, &status);
  mpi_require_expected(code, status, {true, call.count, call.type, call.peer, 1}, "MPI_Recv");
}

inline void mpi_run(mpi_state& state, const send_recv_call& call) {
  state.messages.run([&] {
    state.messages.receive(state.comm, call.out, call.recv_count, call.type, call.from);
    state.messages.send(state.comm, call.in, call.send_count, call.type, call.to);
  });
}

/// The messages are all under way before the first collective, and the collectives take place in the order listed,
/// which is the same on all ranks: so none of the group waits for another.
inline void mpi_run(mpi_state& state, const group_call& group) {
  const auto for_each = [&](auto act) {
    for (std::size_t i = 0; i < group.count; ++i) std::visit(act, group.calls[i]);
  };
  state.messages.run([&] {
    for_each([&](const auto& call) {
      using type = std::decay_t<decltype(call)>;
      if constexpr (std::is_same_v<type, recv_call>)
        state.messages.receive(state.comm, call.out, call.count, call.type, call.peer);
      else if constexpr (std::is_same_v<type, send_recv_call>)
        state.messages.receive(state.comm, call.out, call.recv_count, call.type, call.from);
    });
    for_each([&](const auto& call) {
      using type = std::decay_t<decltype(call)>;
      if constexpr (std::is_same_v<type, send_call>)
        state.messages.send(state.comm, call.in, call.count, call.type, call.peer);
      else if constexpr (std::is_same_v<type, send_recv_call>)
        state.messages.send(state.comm, call.in, call.send_count, call.type, call.to);
    });
    for_each([&](const auto& call) {
      using type = std::decay_t<decltype(call)>;
      if constexpr (!std::is_same_v<type, send_call> && !std::is_same_v<type, recv_call> &&
                    !std::is_same_v<type, send_recv_call>)
        mpi_run(state, call);
    });
  });
}

}  // namespace shardkit::detail
