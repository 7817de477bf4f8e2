// Several calls as one. First all messages, then the collectives in the order listed; the two never share a group of
// NCCL's, because NCCL runs them one after the other in an order of its own, which differed where ranks list
// different messages.
#pragma once

#include <shardkit/backends/detail/nccl_ordered.hpp>
#include <shardkit/comm/group.hpp>

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <type_traits>

namespace shardkit::detail {

/// The messages of a group, in groups of NCCL's of as many as those take. Both ends of a message put it into the same
/// round: by how many went the same way between the two ranks before it, and where there are very many ranks by their
/// distance. So no round waits for a later one.
class nccl_messages {
 public:
  nccl_messages(nccl_state& state, const group_call& group) : state_(state), group_(group), notes_(state.notes) {
    const auto ranks = static_cast<std::size_t>(state.size);
    notes_.messages.clear();
    notes_.sent.assign(ranks, 0);
    notes_.received.assign(ranks, 0);
    for (std::size_t i = 0; i < group.count; ++i) visit([&, this](const auto& call) { note(call, i); }, group.calls[i]);
  }

  void enqueue() {
    auto& all = notes_.messages;
    if (std::any_of(all.begin(), all.end(), [](const auto& one) { return one.round != 0; }))
      std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        return std::make_tuple(a.round, a.position, !a.sends) < std::make_tuple(b.round, b.position, !b.sends);
      });
    nccl_batch batch(state_, nccl_group_limit);
    std::size_t round = 0;
    for (const auto& one : all) {
      if (one.round != round) batch.close();
      round = one.round;
      visit([&, this](const auto& call) { add(batch, call, one.sends); }, group_.calls[one.position]);
    }
    batch.close();
  }

 private:
  template <class Call>
  void note(const Call& call, std::size_t position) {
    if constexpr (std::is_same_v<Call, send_call>) note_one(position, true, call.peer, call.count);
    if constexpr (std::is_same_v<Call, recv_call>) note_one(position, false, call.peer, call.count);
    if constexpr (std::is_same_v<Call, send_recv_call>) {
      note_one(position, true, call.to, call.send_count);
      note_one(position, false, call.from, call.recv_count);
    }
  }
  void note_one(std::size_t position, bool sends, int peer, std::size_t count) {
    if (count == 0) return;
    constexpr std::size_t pairs = nccl_group_limit / 2;
    const auto ranks = static_cast<std::size_t>(state_.size);
    std::size_t& before = (sends ? notes_.sent : notes_.received)[static_cast<std::size_t>(peer)];
    std::size_t round = before++;
    if (ranks <= pairs) {
      round /= pairs / ranks;
    } else {
      const int ahead = sends ? peer - state_.rank : state_.rank - peer;
      const auto distance = static_cast<std::size_t>(ahead < 0 ? ahead + state_.size : ahead);
      round = round * ((ranks + pairs - 1) / pairs) + distance / pairs;
    }
    notes_.messages.push_back({round, position, sends});
  }

  template <class Call>
  void add(nccl_batch& batch, const Call& call, bool sends) {
    if constexpr (std::is_same_v<Call, send_call> || std::is_same_v<Call, recv_call>) batch.add(call);
    if constexpr (std::is_same_v<Call, send_recv_call>) {
      if (sends) batch.add(send_call{call.in, call.send_count, call.type, call.to, call.stream, call.site});
      else batch.add(recv_call{call.out, call.recv_count, call.type, call.from, call.stream, call.site});
    }
  }

  nccl_state& state_;
  const group_call& group_;
  nccl_group_notes& notes_;
};

/// What NCCL lacks for a call, if anything: checked for all calls of a group before the first is enqueued.
template <class Call>
void nccl_require(const nccl_state& state, const Call& call) {
  if constexpr (nccl_combines<Call> || std::is_same_v<Call, reduce_scatter_uneven_call>)
    if (state.size > 1 && !nccl_combines_natively(state, call.type, call.op))
      nccl_require_ordered(state, call.type, call.op, nccl_where(call));
}

/// A collective, listed in the batch where NCCL has it, else by itself after what is listed. Checked before.
template <class Call>
void nccl_collect(nccl_state& state, nccl_batch& batch, const Call& call) {
  if constexpr (nccl_combines<Call>) {
    if (nccl_is_empty(call)) return;
    if (!nccl_combines_natively(state, call.type, call.op)) {
      batch.close();
      if (state.size == 1) return nccl_copy_single(call, call.count);
      return nccl_combine(state, call);
    }
    batch.add(call);
  } else if constexpr (std::is_same_v<Call, reduce_scatter_uneven_call>) {
    const bool native = nccl_combines_natively(state, call.type, call.op);
    if (call.layout->uniform())
      return nccl_collect(state, batch,
                          reduce_scatter_call{call.in, call.out, call.layout->count(0), call.type, call.op, nullptr,
                                              call.stream, call.site});
    if (native) return nccl_list(state, batch, call);
    batch.close();
    nccl_combine(state, call);
  } else if constexpr (std::is_same_v<Call, all_gather_uneven_call>) {
    if (!call.layout->uniform()) return nccl_list(state, batch, call);
    nccl_collect(state, batch,
                 all_gather_call{call.in, call.out, call.layout->count(0), call.type, call.stream, call.site});
  } else if constexpr (nccl_has<Call>::value) {
    if (!nccl_is_empty(call)) batch.add(call);
  } else {
    batch.close();
    nccl_compose(state, call);
  }
}

/// Any calls as one.
inline void nccl_run_group(nccl_state& state, const group_call& group) {
  for (std::size_t i = 0; i < group.count; ++i)
    visit([&](const auto& call) { nccl_require(state, call); }, group.calls[i]);
  nccl_messages(state, group).enqueue();
  nccl_batch batch(state, nccl_group_limit);
  for (std::size_t i = 0; i < group.count; ++i)
    visit(
        [&](const auto& call) {
          if constexpr (!is_message<std::decay_t<decltype(call)>>) nccl_collect(state, batch, call);
        },
        group.calls[i]);
  batch.close();
}

/// One call that is not simply NCCL's own.
template <class Call>
void nccl_run_composed(nccl_state& state, const Call& call) {
  nccl_require(state, call);
  if constexpr (std::is_same_v<Call, send_recv_call>) {
    const any_call one = call;
    nccl_messages(state, group_call{&one, 1, call.stream, call.site}).enqueue();
  } else {
    nccl_batch batch(state, nccl_group_limit);
    nccl_collect(state, batch, call);
    batch.close();
  }
}

}  // namespace shardkit::detail
