// Sends and receives between two ranks.
#pragma once

#include <shardkit/backends/detail/mpi_reductions.hpp>

namespace shardkit::detail {

template <>
struct mpi_plain<send_call> {
  static constexpr const char* function = "MPI_Send";
  static bool suffices(const mpi_state& state, const send_call& call) noexcept {
    return state.fits(call.count, call.type);
  }
  [[gnu::always_inline]] static int perform(mpi_state& state, const send_call& call) noexcept {
    return MPI_Send(call.in, static_cast<int>(call.count), mpi_moving_type(call.type), call.peer, 1, state.comm);
  }
};
inline void mpi_run(mpi_state& state, const send_call& call) {
  if (state.fits(call.count, call.type)) return mpi_run_plainly(state, call);
  state.messages.run([&] { state.messages.send(state.comm, call.in, call.count, call.type, call.peer); });
}

inline void mpi_run(mpi_state& state, const recv_call& call) {
  if (!state.fits(call.count, call.type)) [[unlikely]]
    return state.messages.run([&] { state.messages.receive(state.comm, call.out, call.count, call.type, call.peer); });
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
