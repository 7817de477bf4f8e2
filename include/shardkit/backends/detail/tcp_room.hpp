// A rank's end of one communicator over TCP. Every call is one round: at its start a rank posts what the others need of
// it, and it is complete once what this rank needs has arrived; reductions are combined in rank order on arrival. So a
// started call needs no further help of this rank for its peers to go on.
#pragma once

#include <shardkit/backends/detail/tcp_link.hpp>
#include <shardkit/comm/describe.hpp>
#include <shardkit/comm/fingerprint.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit::detail {

class tcp_operation;

struct tcp_room : std::enable_shared_from_this<tcp_room> {
  tcp_room(std::shared_ptr<tcp_link> shared, std::uint64_t communicator, std::vector<int> launch_ranks, int own_rank)
      : link(std::move(shared)),
        number(communicator),
        members(std::move(launch_ranks)),
        rank(own_rank),
        size(static_cast<int>(members.size())) {
    const auto held = link->acquire();
    mailbox = link->mailbox(number);
  }
  tcp_room(const tcp_room&) = delete;
  tcp_room& operator=(const tcp_room&) = delete;
  ~tcp_room() {
    const auto held = link->acquire();
    link->close(number, members);
  }

  int launch_rank(int of) const { return members[static_cast<std::size_t>(of)]; }
  tcp_mailbox::letters& letters_from(int of) { return mailbox->from[static_cast<std::size_t>(launch_rank(of))]; }

  /// A frame of this communicator to one rank.
  tcp_frame frame_to(tcp_frame_kind kind, int peer) const {
    tcp_frame frame;
    frame.kind = kind;
    frame.communicator = number;
    frame.targets.push_back(static_cast<std::uint32_t>(launch_rank(peer)));
    return frame;
  }
  /// To all others.
  tcp_frame frame_to_all(tcp_frame_kind kind) const {
    tcp_frame frame;
    frame.kind = kind;
    frame.communicator = number;
    for (int peer = 0; peer < size; ++peer)
      if (peer != rank) frame.targets.push_back(static_cast<std::uint32_t>(launch_rank(peer)));
    return frame;
  }

  const std::shared_ptr<tcp_link> link;
  const std::uint64_t number;
  const std::vector<int> members;  ///< ranks of the launch
  const int rank, size;
  std::shared_ptr<tcp_mailbox> mailbox;
  std::vector<std::deque<tcp_operation*>> receives = std::vector<std::deque<tcp_operation*>>(members.size());
};

/// A call under way: a collective that waits for contributions, or a receive.
class tcp_operation : public pending_call {
 public:
  tcp_operation(std::shared_ptr<tcp_room> room, any_call call) : room_(std::move(room)), call_(std::move(call)) {}
  tcp_operation(const tcp_operation&) = delete;
  tcp_operation& operator=(const tcp_operation&) = delete;
  virtual ~tcp_operation() = default;

  bool test() override {
    const auto held = room_->link->acquire();
    if (complete_) return true;
    room_->link->listen();
    if (advance()) return true;
    room_->link->require_alive();
    return false;
  }
  void wait() override {
    auto held = room_->link->acquire();
    room_->link->wait(
        held, [&, this] { return advance(); }, [&, this] { return room_->launch_rank(absent()); },
        [&, this] { return description(); });
  }
  double deadline() const noexcept override { return room_->link->limits().operation; }
  [[noreturn]] void expire() override {
    auto held = room_->link->acquire();
    const int culprit = room_->launch_rank(absent());
    const std::string text = "rank " + std::to_string(culprit) + " did not arrive in " + description() +
                             " within the operation deadline of " + std::to_string(deadline()) + " s";
    room_->link->fail_locked(culprit, text);
    throw timeout_error(text);
  }
  void release() noexcept override {
    {
      const auto held = room_->link->acquire();
      if (!complete_) {
        fail_as_dropped();
        withdraw();
      }
    }
    delete this;
  }

 protected:
  /// With the lock held: takes what has arrived; whether nothing is missing any more.
  bool advance() {
    if (withdrawn_) room_->link->require_alive();  // which a mismatch has ended
    if (!complete_) complete_ = try_complete();
    return complete_;
  }
  virtual bool try_complete() = 0;
  /// A rank of the communicator whose part is missing.
  virtual int absent() const = 0;
  /// No longer waits for anything.
  virtual void withdraw() noexcept = 0;

  std::string description() const {
    return visit([](const auto& call) { return describe(call) + describe_site(call.site); }, call_);
  }
  // Of an exception that is passing, which is the cause, its handler says more.
  void fail_as_dropped() noexcept {
    const bool passing = std::uncaught_exceptions() != 0;
    std::string text;
    try {
      text = "a request of " + description() + " was dropped before it completed";
      if (passing) text += ", by an exception";
    } catch (const std::exception&) {
      text = "dropped request";  // so short that it needs no memory
    }
    room_->link->fail_locked(room_->link->rank(), text, passing);
  }
  [[noreturn]] void mismatch(const std::string& text) {
    withdraw();
    withdrawn_ = true;
    room_->link->fail_locked(room_->link->rank(), text);
    throw mismatch_error(text);
  }

  const std::shared_ptr<tcp_room> room_;
  const any_call call_;

 private:
  bool complete_ = false, withdrawn_ = false;
};

/// What both sides of a message agree on: count and type.
template <class Call>
std::uint64_t message_fingerprint(const Call& call) noexcept {
  return fingerprint(send_call{nullptr, call.count, call.type, 0, nullptr, {}});
}

/// The call in the words of the rank that makes it: "sends 4 x f32 at file:line".
template <class Call>
std::string message_words(const Call& call) {
  return (std::is_same<Call, send_call>::value ? "sends " : "receives ") + elements(call.count, call.type) +
         describe_site(call.site);
}

/// Receives from one rank match in the order made, whatever order they are waited for.
class tcp_receive final : public tcp_operation {
 public:
  /// With the lock held.
  tcp_receive(std::shared_ptr<tcp_room> room, const recv_call& call)
      : tcp_operation(std::move(room), call),
        out_(call.out),
        bytes_(call.count * size_of(call.type)),
        fingerprint_(message_fingerprint(call)),
        peer_(call.peer) {
    queue().push_back(this);
  }

 private:
  std::deque<tcp_operation*>& queue() { return room_->receives[static_cast<std::size_t>(peer_)]; }

  bool try_complete() override {
    auto& messages = room_->letters_from(peer_).messages;
    // The receives made before this one come first.
    while (!taken_ && !messages.empty()) {
      tcp_receive& first = static_cast<tcp_receive&>(*queue().front());
      first.message_ = std::move(messages.front());
      first.taken_ = true;
      messages.pop_front();
      queue().pop_front();
    }
    if (!taken_) return false;
    if (message_.payload.size() != bytes_ || message_.fingerprint != fingerprint_)
      mismatch("messages differ: rank " + std::to_string(room_->launch_rank(peer_)) + " " + message_.words + ", rank " +
               std::to_string(room_->link->rank()) + " " + message_words(call_.get<recv_call>()));
    if (bytes_ != 0) std::memcpy(out_, message_.payload.data(), bytes_);
    return true;
  }
  int absent() const override { return peer_; }
  void withdraw() noexcept override { queue().erase(std::remove(queue().begin(), queue().end(), this), queue().end()); }

  void* const out_;
  const std::size_t bytes_;
  const std::uint64_t fingerprint_;
  const int peer_;
  bool taken_ = false;
  tcp_frame message_;
};

/// A contribution to a collective that this rank waits for.
struct tcp_awaited {
  int rank;
  std::size_t bytes;
};

/// A collective, which completes by `finish(contributions)`: element r is what rank r sent, empty for this rank itself
/// and where nothing was expected.
template <class Finish>
class tcp_collective final : public tcp_operation {
 public:
  /// With the lock held. `expected` are the other ranks that send to this one.
  template <class Call>
  tcp_collective(std::shared_ptr<tcp_room> room, const Call& call, std::uint64_t number,
                 std::vector<tcp_awaited> expected, Finish finish)
      : tcp_operation(std::move(room), call),
        number_(number),
        fingerprint_(fingerprint(call)),
        expected_(std::move(expected)),
        got_(static_cast<std::size_t>(room_->size)),
        finish_(std::move(finish)) {}

 private:
  bool try_complete() override {
    for (int rank = 0; rank < room_->size && !expected_.empty(); ++rank)
      if (rank != room_->rank) collect(rank);
    if (!expected_.empty()) return false;
    finish_(got_);
    return true;
  }

  // A rank's contributions arrive in the order of its calls. Those of other calls are left alone, and so are those of a
  // call that differs: the hub knows, and its word comes with the call sites of both.
  void collect(int rank) {
    auto& arrived = room_->letters_from(rank).collectives;
    const auto wanted =
        std::find_if(expected_.begin(), expected_.end(), [&](const tcp_awaited& one) { return one.rank == rank; });
    if (wanted == expected_.end()) return;
    const auto frame = std::find_if(arrived.begin(), arrived.end(), [&, this](const tcp_frame& one) {
      return one.sequence == number_ && one.fingerprint == fingerprint_;
    });
    if (frame == arrived.end()) return;
    // The fingerprint of an uneven all_to_all does not tell what goes from one rank to another.
    if (frame->payload.size() != wanted->bytes)
      mismatch(mismatch_text(
          room_->link->rank(), description() + " expecting " + std::to_string(wanted->bytes) + " bytes",
          room_->launch_rank(rank), frame->words + " sending " + std::to_string(frame->payload.size()) + " bytes"));
    got_[static_cast<std::size_t>(rank)] = std::move(frame->payload);
    arrived.erase(frame);
    expected_.erase(wanted);
    room_->link->count_taken();
  }
  int absent() const override { return expected_.front().rank; }
  void withdraw() noexcept override {}

  const std::uint64_t number_, fingerprint_;
  std::vector<tcp_awaited> expected_;
  std::vector<std::vector<char>> got_;
  Finish finish_;
};

}  // namespace shardkit::detail
