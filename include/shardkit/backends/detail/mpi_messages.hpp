// Sends and receives between two ranks.
#pragma once

#include <shardkit/backends/detail/mpi_reductions.hpp>

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

}  // namespace shardkit::detail
