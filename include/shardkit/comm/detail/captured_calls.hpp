// What one rank has captured into graphs through checked<B>, as the ranks compare it before a replay: the calls in
// their order, those that progress together as one step.
#pragma once

#include <shardkit/comm/detail/checking.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit::detail {

struct captured_call {
  static constexpr std::int64_t everyone = -1;

  std::uint64_t step = 0;                         ///< the messages of a group share one; every collective has its own
  std::uint64_t receives = 0;                     ///< 1: a receive
  std::int64_t peer = everyone;                   ///< of a message
  std::uint64_t bits = 0;                         ///< the fingerprint
  std::vector<std::uint64_t> to_each, from_each;  ///< of an uneven all_to_all: elements, by rank
  std::string text;                               ///< in words, with the call site
};

class captured_list {
 public:
  std::vector<captured_call> calls;

  template <class Call>
  void note(const Call& call) {
    ++step_;
    if constexpr (std::is_same<Call, group_call>::value) {
      for (std::size_t i = 0; i < call.count; ++i)
        visit([&, this](const auto& one) { this->note_messages(one); }, call.calls[i]);
      for (std::size_t i = 0; i < call.count; ++i)
        visit(
            [&, this](const auto& one) {
              if constexpr (!is_message<std::decay_t<decltype(one)>>) this->note(one);
            },
            call.calls[i]);
    } else if constexpr (is_message<Call>) {
      note_messages(call);
    } else {
      captured_call one{step_, 0, captured_call::everyone, fingerprint(call), {}, {}, describe_at(call)};
      if constexpr (std::is_same<Call, all_to_all_uneven_call>::value)
        for (int rank = 0; rank < call.send_layout->parts(); ++rank) {
          one.to_each.push_back(call.send_layout->count(rank));
          one.from_each.push_back(call.receive_layout->count(rank));
        }
      calls.push_back(std::move(one));
    }
  }

  control_lane::blob packed() const {
    control_lane::blob bytes;
    const auto put = [&](const void* data, std::size_t size) {
      const char* const first = static_cast<const char*>(data);
      bytes.insert(bytes.end(), first, first + size);
    };
    for (const captured_call& one : calls) {
      const std::uint64_t sizes[] = {one.to_each.size(), one.text.size()};
      for (const void* field : {static_cast<const void*>(&one.step), static_cast<const void*>(&one.receives),
                                static_cast<const void*>(&one.peer), static_cast<const void*>(&one.bits)})
        put(field, sizeof(std::uint64_t));
      put(sizes, sizeof sizes);
      for (const auto* counts : {&one.to_each, &one.from_each})
        put(counts->data(), counts->size() * sizeof(std::uint64_t));
      put(one.text.data(), one.text.size());
    }
    return bytes;
  }
  /// Of `size` bytes that a peer has packed. Throws transport_error where they are no such list.
  static captured_list unpacked(const char* bytes, std::size_t size) {
    captured_list list;
    const char* const end = bytes + size;
    const auto require = [&](std::uint64_t items, std::size_t each) {
      if (items > static_cast<std::size_t>(end - bytes) / each)
        throw transport_error("a list of captured calls arrived that ends in the middle of a call");
    };
    const auto take = [&](void* to, std::size_t count) {
      require(count, 1);
      if (count != 0) std::memcpy(to, bytes, count);
      bytes += count;
    };
    while (bytes != end) {
      captured_call one;
      std::uint64_t sizes[2];
      for (void* field : {static_cast<void*>(&one.step), static_cast<void*>(&one.receives),
                          static_cast<void*>(&one.peer), static_cast<void*>(&one.bits)})
        take(field, sizeof(std::uint64_t));
      take(sizes, sizeof sizes);
      for (auto* counts : {&one.to_each, &one.from_each}) {
        require(sizes[0], sizeof(std::uint64_t));
        counts->resize(sizes[0]);
        take(counts->data(), sizes[0] * sizeof(std::uint64_t));
      }
      require(sizes[1], 1);
      one.text.resize(sizes[1]);
      take(&one.text[0], sizes[1]);
      list.calls.push_back(std::move(one));
    }
    return list;
  }

 private:
  template <class Call>
  void note_messages(const Call& call) {
    if constexpr (std::is_same<Call, send_call>::value) note_one(call, false, call.peer, call.count);
    if constexpr (std::is_same<Call, recv_call>::value) note_one(call, true, call.peer, call.count);
    if constexpr (std::is_same<Call, send_recv_call>::value) {
      note_one(call, false, call.to, call.send_count);
      note_one(call, true, call.from, call.recv_count);
    }
  }
  template <class Call>
  void note_one(const Call& call, bool receives, int peer, std::size_t count) {
    const std::uint64_t bits = fingerprint(send_call{nullptr, count, call.type, 0, nullptr, {}});
    calls.push_back({step_, receives ? 1u : 0u, peer, bits, {}, {}, describe_at(call)});
  }

  std::uint64_t step_ = 0;
};

/// The lists of all ranks, replayed side by side: every rank is in one step, and leaves it when all of it has met its
/// counterparts. Throws mismatch_error, the same on every rank, where two that meet differ or where nobody gets on.
class replayed_lists {
 public:
  explicit replayed_lists(std::vector<captured_list> all) {
    const auto size = static_cast<std::int64_t>(all.size());
    for (captured_list& list : all) {
      for (const captured_call& one : list.calls)
        if (one.peer < captured_call::everyone || one.peer >= size ||
            (!one.to_each.empty() && one.to_each.size() != all.size()))
          throw transport_error("a list of captured calls arrived with a rank that there is not");
      ranks_.push_back({std::move(list.calls), {}, 0, 0});
    }
    for (one_rank& rank : ranks_) rank.enter(0);
  }

  void run() {
    while (meet_collectives() || meet_messages()) {
    }
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      if (!ranks_[rank].is_over()) stuck(rank);
  }

 private:
  struct one_rank {
    std::vector<captured_call> calls;
    std::vector<bool> met;
    std::size_t first, last;  // of the step

    bool is_over() const noexcept { return first == calls.size(); }
    bool in_collective() const noexcept { return !is_over() && calls[first].peer == captured_call::everyone; }
    void enter(std::size_t at) {
      met.resize(calls.size());
      for (first = last = at; last < calls.size() && calls[last].step == calls[first].step;) ++last;
    }
    /// The first call of this step, from `at` on, that still waits for its counterpart; `last` where there is none.
    std::size_t waiting(std::size_t at) const {
      while (at < last && met[at]) ++at;
      return at;
    }
  };

  bool meet_collectives() {
    if (!std::all_of(ranks_.begin(), ranks_.end(), [](const one_rank& one) { return one.in_collective(); }))
      return false;
    for (std::size_t a = 0; a < ranks_.size(); ++a)
      for (std::size_t b = 0; b < ranks_.size(); ++b) {
        const captured_call &one = current(a), &other = current(b);
        if (one.bits != other.bits || one.to_each.size() != other.from_each.size()) differ(a, one.text, b, other.text);
        if (one.to_each.empty() || one.to_each[b] == other.from_each[a]) continue;
        differ(a, one.text + " sending " + std::to_string(one.to_each[b]) + " elements", b,
               other.text + " expecting " + std::to_string(other.from_each[a]));
      }
    for (one_rank& one : ranks_) one.enter(one.last);
    return true;
  }

  bool meet_messages() {
    bool progress = false;
    for (std::size_t from = 0; from < ranks_.size(); ++from) {
      one_rank& sender = ranks_[from];
      if (sender.is_over() || sender.in_collective()) continue;
      for (std::size_t i = sender.waiting(sender.first); i < sender.last; i = sender.waiting(i + 1)) {
        const captured_call& message = sender.calls[i];
        if (message.receives != 0) continue;
        const auto to = static_cast<std::size_t>(message.peer);
        one_rank& receiver = ranks_[to];
        std::size_t k = receiver.waiting(receiver.first);
        while (k < receiver.last && !(receiver.calls[k].receives != 0 && is_rank(receiver.calls[k].peer, from)))
          k = receiver.waiting(k + 1);
        if (k == receiver.last) continue;
        if (message.bits != receiver.calls[k].bits) differ(from, message.text, to, receiver.calls[k].text);
        sender.met[i] = receiver.met[k] = true;
        progress = true;
      }
    }
    for (one_rank& one : ranks_)
      if (!one.is_over() && !one.in_collective() && one.waiting(one.first) == one.last) one.enter(one.last);
    return progress;
  }

  // A rank that waits for ever, and what the one does that it waits for.
  [[noreturn]] void stuck(std::size_t rank) const {
    const one_rank& one = ranks_[rank];
    const captured_call& waits = one.calls[one.waiting(one.first)];
    std::size_t other = 0;
    if (waits.peer != captured_call::everyone) other = static_cast<std::size_t>(waits.peer);
    else
      while (ranks_[other].in_collective()) ++other;
    const one_rank& peer = ranks_[other];
    differ(rank, waits.text, other, peer.is_over() ? "nothing more" : peer.calls[peer.waiting(peer.first)].text);
  }
  const captured_call& current(std::size_t rank) const { return ranks_[rank].calls[ranks_[rank].first]; }
  static bool is_rank(std::int64_t peer, std::size_t rank) { return static_cast<std::size_t>(peer) == rank; }
  [[noreturn, gnu::cold, gnu::noinline]] static void differ(std::size_t rank, const std::string& text,
                                                            std::size_t other, const std::string& other_text) {
    throw mismatch_error("nothing was launched: in what they have captured, " +
                         mismatch_text(static_cast<int>(rank), text, static_cast<int>(other), other_text));
  }

  std::vector<one_rank> ranks_;
};

}  // namespace shardkit::detail
