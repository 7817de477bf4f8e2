// How checked<B> compares calls. Each rank tells its peers what it is about to do by records on the control lane: a
// collective to all, a message to its receiver, and to a sender that a receive waits for it. Records of one rank
// arrive in order; collectives and messages are matched apart, as the calls themselves are.
#pragma once

#include <shardkit/comm/complete.hpp>
#include <shardkit/comm/control.hpp>
#include <shardkit/comm/describe.hpp>
#include <shardkit/comm/fingerprint.hpp>

#include <cstdint>
#include <cstring>
#include <deque>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// A call in words, with its call site.
template <class Call>
std::string describe_at(const Call& call) {
  std::string text = describe(call);
  if (call.site.known()) text += std::string(" at ") + call.site.file + ":" + std::to_string(call.site.line);
  return text;
}

[[noreturn, gnu::cold, gnu::noinline]] inline void reject_misaligned(const char* buffer, dtype type) {
  throw usage_error(sentence() << buffer << " begins at an address that is no multiple of the " << size_of(type)
                               << " bytes of a " << name_of(type) << "; align the buffer");
}
inline void require_aligned(const char* buffer, const void* begin, dtype type) {
  if (reinterpret_cast<std::uintptr_t>(begin) % size_of(type) != 0) reject_misaligned(buffer, type);
}
template <class Call>
auto require_aligned_in(const Call& call, int) -> decltype(void(call.in)) {
  require_aligned("in", call.in, call.type);
}
template <class Call>
void require_aligned_in(const Call&, long) {}
template <class Call>
auto require_aligned_out(const Call& call, int) -> decltype(void(call.out)) {
  require_aligned("out", call.out, call.type);
}
template <class Call>
auto require_aligned_out(const Call& call, int) -> decltype(void(call.data)) {
  require_aligned("the buffer", call.data, call.type);
}
template <class Call>
void require_aligned_out(const Call&, long) {}

/// What a rank is about to do.
struct call_record {
  enum class kind : std::uint64_t { collective, message, awaiting };

  struct plain {
    kind what = kind::collective;
    std::uint64_t number = 0;    ///< among the collectives, or the messages from one rank to the other; from 1
    std::uint64_t bits = 0;      ///< the fingerprint
    std::uint64_t for_peer = 0;  ///< elements that an uneven all_to_all sends to the reader
    std::uint64_t waits = 0;     ///< whether the sender of a message may wait for its receive
  };

  plain fields;
  std::string text;  ///< in words, with the call site

  control_lane::blob packed() const {
    control_lane::blob bytes(sizeof fields + text.size());
    std::memcpy(bytes.data(), &fields, sizeof fields);
    if (!text.empty()) std::memcpy(bytes.data() + sizeof fields, text.data(), text.size());
    return bytes;
  }
  static call_record unpacked(const control_lane::blob& bytes) {
    call_record record;
    if (bytes.size() < sizeof fields)
      throw transport_error("a fingerprint of " + std::to_string(bytes.size()) + " bytes arrived: too short");
    std::memcpy(&record.fields, bytes.data(), sizeof fields);
    record.text.assign(bytes.data() + sizeof fields, bytes.size() - sizeof fields);
    return record;
  }
};

/// The records that one rank has sent and received.
class call_records {
 public:
  using kind = call_record::kind;

  call_records(int rank, int size) : rank_(rank), peers_(static_cast<std::size_t>(size)) {}

  /// Tells all peers; returns the number of the collective. `to_peer(rank)` is call_record::for_peer, and
  /// `from_peer(rank)` what the peer's has to be.
  template <class ToPeer, class FromPeer>
  std::uint64_t announce_collective(control_lane& lane, std::uint64_t bits, const std::string& text,
                                    const call_site& site, ToPeer to_peer, FromPeer from_peer) {
    ++collectives_;
    mine_.push_back({{{kind::collective, collectives_, bits, 0, 0}, text}, {}});
    for (int peer = 0; peer < size(); ++peer) mine_.back().from_peers.push_back(from_peer(peer));
    call_record record = mine_.back().record;
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank_) continue;
      record.fields.for_peer = to_peer(peer);
      lane.post(peer, control_topic::fingerprint, record.packed(), site);
    }
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank_ && !at(peer).early.empty()) {
        const call_record theirs = std::move(at(peer).early.front());
        at(peer).early.pop_front();
        match_collective(peer, theirs);
      }
    forget_compared();
    return collectives_;
  }
  void announce_send(control_lane& lane, int peer, std::uint64_t bits, const std::string& text, bool waits,
                     const call_site& site) {
    const call_record record{{kind::message, ++at(peer).sent, bits, 0, waits ? 1u : 0u}, text};
    if (peer == rank_) take(peer, record.packed());
    else lane.post(peer, control_topic::fingerprint, record.packed(), site);
  }
  /// Returns the number of the message.
  std::uint64_t expect_message(int peer, std::uint64_t bits, const std::string& text) {
    peer_records& from = at(peer);
    from.expected.push_back({{kind::message, ++from.expecting, bits, 0, 0}, text});
    match_messages(peer);
    return from.expecting;
  }
  /// Tells the sender that this rank makes no other call until the message has come.
  void announce_waiting(control_lane& lane, int peer, std::uint64_t number, const std::string& text,
                        const call_site& site) {
    lane.post(peer, control_topic::fingerprint, call_record{{kind::awaiting, number, 0, 0, 0}, text}.packed(), site);
  }

  /// Compares what has arrived; throws mismatch_error.
  void receive(control_lane& lane) {
    for (int peer = 0; peer < size(); ++peer)
      while (peer != rank_ && lane.poll(peer, control_topic::fingerprint, received_)) take(peer, received_);
  }
  void take(int peer, const control_lane::blob& bytes) {
    call_record record = call_record::unpacked(bytes);
    peer_records& from = at(peer);
    switch (record.fields.what) {
      case kind::collective:
        if (record.fields.number != ++from.announced)
          throw usage_error("fingerprints come out of order: the program posts on their topic of the control lane");
        if (record.fields.number > collectives_) return from.early.push_back(std::move(record));
        match_collective(peer, record);
        return forget_compared();
      case kind::message:
        record.fields.number = from.announced;  // what it came after
        from.messages.push_back(std::move(record));
        return match_messages(peer);
      case kind::awaiting: from.awaiting = std::move(record);
    }
  }

  /// A rank whose record of this collective has not come; -1 where all have.
  int absent_from(std::uint64_t collective) const {
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank_ && peers_[static_cast<std::size_t>(peer)].compared < collective) return peer;
    return -1;
  }
  bool has_come(int peer, std::uint64_t message) const {
    return peers_[static_cast<std::size_t>(peer)].matched >= message;
  }

  /// For a rank that makes no other call before its `collective` is over: throws mismatch_error where a peer is, before
  /// it comes to that, in a send or receive that this rank has no part in yet. Neither would ever end.
  void require_no_message_first(std::uint64_t collective, const std::string& text) {
    for (int peer = 0; peer < size(); ++peer) {
      for (const call_record& message : at(peer).messages)
        if (message.fields.waits != 0 && message.fields.number < collective) differ(peer, text, message.text);
      if (peer != rank_ && at(peer).compared < collective) require_not_awaited(peer, text);
    }
  }
  /// The same for a receive from `peer`, which may itself be waiting for a message of this rank.
  void require_not_awaited(int peer, const std::string& text) {
    const peer_records& from = at(peer);
    if (from.awaiting.fields.number > from.sent) differ(peer, text, from.awaiting.text);
  }

 private:
  struct own_collective {
    call_record record;
    std::vector<std::uint64_t> from_peers;
  };
  struct peer_records {
    std::uint64_t announced = 0;       // its collectives: those it has told of, ...
    std::deque<call_record> early;     // ... the ones of them that this rank has not come to, ...
    std::uint64_t compared = 0;        // ... and the others
    std::uint64_t sent = 0;            // messages to it
    std::uint64_t expecting = 0;       // messages from it: receives made here, ...
    std::deque<call_record> expected;  // ... those that no message has come for, ...
    std::deque<call_record> messages;  // ... messages that no receive has been made for, ...
    std::uint64_t matched = 0;         // ... and pairs
    call_record awaiting;              // the last message of this rank that it has waited for
  };

  int size() const noexcept { return static_cast<int>(peers_.size()); }
  peer_records& at(int peer) { return peers_[static_cast<std::size_t>(peer)]; }

  void match_collective(int peer, const call_record& theirs) {
    const std::uint64_t first = mine_.front().record.fields.number;
    const own_collective& own = mine_[static_cast<std::size_t>(theirs.fields.number - first)];
    if (own.record.fields.bits != theirs.fields.bits) differ(peer, own.record.text, theirs.text);
    const std::uint64_t expected = own.from_peers[static_cast<std::size_t>(peer)];
    if (theirs.fields.for_peer != expected)
      differ(peer, own.record.text + " expecting " + std::to_string(expected) + " elements",
             theirs.text + " sending " + std::to_string(theirs.fields.for_peer));
    ++at(peer).compared;
  }
  void forget_compared() {
    while (!mine_.empty() && absent_from(mine_.front().record.fields.number) < 0) mine_.pop_front();
  }
  void match_messages(int peer) {
    peer_records& from = at(peer);
    while (!from.expected.empty() && !from.messages.empty()) {
      const call_record own = std::move(from.expected.front()), theirs = std::move(from.messages.front());
      from.expected.pop_front();
      from.messages.pop_front();
      if (own.fields.bits != theirs.fields.bits) differ(peer, own.text, theirs.text);
      ++from.matched;
    }
  }

  [[noreturn, gnu::cold, gnu::noinline]] void differ(int peer, const std::string& own,
                                                     const std::string& theirs) const {
    throw mismatch_error(mismatch_text(rank_, own, peer, theirs));
  }

  int rank_;
  std::uint64_t collectives_ = 0;    // announced by this rank
  std::deque<own_collective> mine_;  // of those, the ones that some rank has not come to
  std::vector<peer_records> peers_;
  control_lane::blob received_;
};

}  // namespace shardkit::detail
