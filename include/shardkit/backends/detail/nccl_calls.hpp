// The verbs that NCCL has itself, each enqueued by one call; what a group of them needs.
#pragma once

#include <shardkit/backends/detail/nccl_state.hpp>
#include <shardkit/backends/detail/nccl_types.hpp>
#include <shardkit/comm/group.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace shardkit::detail {

/// At most so many operations in one group of NCCL's.
inline constexpr std::size_t nccl_group_limit = 1024;

template <class Call>
cudaStream_t nccl_stream(const Call& call) noexcept {
  return static_cast<cudaStream_t>(call.stream);
}
template <class Call>
at<cuda_space> nccl_where(const Call& call) noexcept {
  return {nccl_stream(call), call.site};
}

template <class Call>
inline constexpr bool nccl_combines = std::is_same_v<Call, reduce_call> || std::is_same_v<Call, all_reduce_call> ||
                                      std::is_same_v<Call, reduce_scatter_call>;

// Each enqueues one call, or lists it in the open group. Not for reductions that NCCL does not do, nor for no elements.

[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm, const barrier_call& call) {
  return state.api.all_reduce(state.word(), state.word(), 1, ncclInt32, ncclSum, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm,
                                                        const broadcast_call& call) {
  const nccl_elements moved = nccl_moved(call.type, call.count);
  return state.api.broadcast(call.data, call.data, moved.count, moved.type, call.root, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm, const reduce_call& call) {
  const nccl_reduction how = nccl_reduced(call.type, call.op);
  return state.api.reduce(call.in, call.out, call.count, how.type, how.op, call.root, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm,
                                                        const all_reduce_call& call) {
  const nccl_reduction how = nccl_reduced(call.type, call.op);
  return state.api.all_reduce(call.in, call.out, call.count, how.type, how.op, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm,
                                                        const reduce_scatter_call& call) {
  const nccl_reduction how = nccl_reduced(call.type, call.op);
  return state.api.reduce_scatter(call.in, call.out, call.count, how.type, how.op, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm,
                                                        const all_gather_call& call) {
  const nccl_elements moved = nccl_moved(call.type, call.count);
  return state.api.all_gather(call.in, call.out, moved.count, moved.type, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm, const send_call& call) {
  const nccl_elements moved = nccl_moved(call.type, call.count);
  return state.api.send(call.in, moved.count, moved.type, call.peer, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue(nccl_state& state, ncclComm_t comm, const recv_call& call) {
  const nccl_elements moved = nccl_moved(call.type, call.count);
  return state.api.recv(call.out, moved.count, moved.type, call.peer, comm, nccl_stream(call));
}

// The same for calls of 2.28, which older libraries lack, ...

[[gnu::always_inline]] inline bool nccl_has_native(const nccl_state& state, const gather_call&) noexcept {
  return state.api.gather != &nccl_lacks_rooted;
}
[[gnu::always_inline]] inline bool nccl_has_native(const nccl_state& state, const scatter_call&) noexcept {
  return state.api.scatter != &nccl_lacks_rooted;
}
[[gnu::always_inline]] inline bool nccl_has_native(const nccl_state& state, const all_to_all_call&) noexcept {
  return state.api.all_to_all != &nccl_lacks_all_to_all;
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue_native(nccl_state& state, ncclComm_t comm,
                                                               const gather_call& call) {
  const nccl_elements moved = nccl_moved(call.type, call.count);
  return state.api.gather(call.in, call.out, moved.count, moved.type, call.root, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue_native(nccl_state& state, ncclComm_t comm,
                                                               const scatter_call& call) {
  const nccl_elements moved = nccl_moved(call.type, call.count);
  return state.api.scatter(call.in, call.out, moved.count, moved.type, call.root, comm, nccl_stream(call));
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue_native(nccl_state& state, ncclComm_t comm,
                                                               const all_to_all_call& call) {
  const nccl_elements moved = nccl_moved(call.type, call.count);
  return state.api.all_to_all(call.in, call.out, moved.count, moved.type, comm, nccl_stream(call));
}

// ... and for a send_recv, which is one group where neither message is empty.

[[gnu::always_inline]] inline bool nccl_has_native(const nccl_state&, const send_recv_call& call) noexcept {
  return call.send_count != 0 && call.recv_count != 0;
}
[[gnu::always_inline]] inline ncclResult_t nccl_enqueue_native(nccl_state& state, ncclComm_t comm,
                                                               const send_recv_call& call) {
  const nccl_api& api = state.api;
  const nccl_elements out = nccl_moved(call.type, call.send_count), in = nccl_moved(call.type, call.recv_count);
  const ncclResult_t started = api.group_start();
  if (started != ncclSuccess) [[unlikely]]
    return started;
  const ncclResult_t sent = api.send(call.in, out.count, out.type, call.to, comm, nccl_stream(call));
  const ncclResult_t received = api.recv(call.out, in.count, in.type, call.from, comm, nccl_stream(call));
  const ncclResult_t ended = api.group_end();  // also where something went wrong
  static_assert(ncclSuccess == 0);
  if ((sent | received | ended) == 0) [[likely]]
    return ncclSuccess;
  for (const ncclResult_t listed : {sent, received})
    if (listed != ncclSuccess && listed != ncclInProgress) return listed;
  return ended;
}

template <class Call, class = void>
struct nccl_has : std::false_type {};
template <class Call>
struct nccl_has<Call,
                std::void_t<decltype(nccl_enqueue(std::declval<nccl_state&>(), nullptr, std::declval<const Call&>()))>>
    : std::true_type {};
/// Calls that NCCL may have.
template <class Call, class = void>
struct nccl_may_have : std::false_type {};
template <class Call>
struct nccl_may_have<
    Call, std::void_t<decltype(nccl_has_native(std::declval<const nccl_state&>(), std::declval<const Call&>()))>>
    : std::true_type {};

/// Whether a call has nothing to do.
template <class Call>
[[gnu::always_inline]] inline bool nccl_is_empty(const Call& call) {
  if constexpr (std::is_same_v<Call, barrier_call>) return false;
  else return call.count == 0;
}

/// Whether NCCL combines so itself, with the library's meaning.
[[gnu::always_inline]] inline bool nccl_combines_natively(const nccl_state& state, dtype type, reduction op) {
  const nccl_reduction::kind how = nccl_reduced(type, op).how;
  if (op.by_rank) return false;
  if (how == nccl_reduction::kind::native) [[likely]]
    return true;
  switch (how) {
    case nccl_reduction::kind::extremes: return state.launch->options.native_extremes;
    case nccl_reduction::kind::f8: return NCCL_VERSION_CODE >= 22400 && state.launch->version >= 22400;
    default: return false;
  }
}

/// Whether there is a communicator and something to do, by one comparison: a communicator's address is above every
/// count that memory can hold, and null is above none.
[[gnu::always_inline]] inline bool nccl_is_ready(ncclComm_t comm, std::size_t count) noexcept {
  return count - 1 < reinterpret_cast<std::uintptr_t>(comm);
}

/// Whether a call on `comm`, which may be null, is one of NCCL's without more ado.
template <class Call>
[[gnu::always_inline]] inline bool nccl_suffices(const nccl_state& state, ncclComm_t comm, const Call& call) {
  if constexpr (nccl_combines<Call>)
    if (call.op.by_rank || nccl_reduced(call.type, call.op).how != nccl_reduction::kind::native) return false;
  if constexpr (std::is_same_v<Call, send_recv_call>) {
    return nccl_is_ready(comm, call.send_count) && call.recv_count != 0;
  } else if constexpr (std::is_same_v<Call, barrier_call>) {
    return comm != nullptr;
  } else {
    if constexpr (is_message<Call>)
      if (call.peer == state.rank) return false;
    return nccl_is_ready(comm, call.count);
  }
}

/// Operations that go to NCCL as groups, of as many as a group takes. Between `add` and `close` nothing may throw, so
/// a result that is not a success closes the group before it is told.
class nccl_batch {
 public:
  nccl_batch(nccl_state& state, std::size_t limit) : state_(state), comm_(state.alive()), limit_(limit) {}
  nccl_batch(const nccl_batch&) = delete;
  nccl_batch& operator=(const nccl_batch&) = delete;
  ~nccl_batch() {
    if (open_) (void)state_.api.group_end();  // something threw, and the launch has failed
  }

  template <class Call>
  void add(const Call& call) {
    add(Call::name, [&, this] { return nccl_enqueue(state_, comm_, call); });
  }
  template <class Enqueue>
  void add(const char* name, Enqueue enqueue) {
    if (listed_ == limit_) close();
    if (!open_) {
      state_.check(state_.api.group_start(), "ncclGroupStart");
      open_ = true;
    }
    ++listed_;
    const ncclResult_t result = enqueue();
    if (result == ncclSuccess || result == ncclInProgress) [[likely]]
      return;
    open_ = false;
    (void)state_.api.group_end();
    state_.conclude(result, comm_, name);
  }
  /// Enqueues what is listed.
  void close() {
    listed_ = 0;
    if (!open_) return;
    open_ = false;
    state_.check(state_.api.group_end(), "ncclGroupEnd");
  }

 private:
  nccl_state& state_;
  const ncclComm_t comm_;
  const std::size_t limit_;
  std::size_t listed_ = 0;
  bool open_ = false;
};

}  // namespace shardkit::detail
