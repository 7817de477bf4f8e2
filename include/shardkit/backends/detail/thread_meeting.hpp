// One rank's part in the calls of a thread_room: publishing its line, waiting for the peers' lines, leaving. Every
// wait ends at the operation deadline, or at once where the launch fails or an awaited rank has left it.
#pragma once

#include <shardkit/backends/detail/thread_activity.hpp>
#include <shardkit/backends/detail/thread_room.hpp>
#include <shardkit/comm/describe.hpp>
#include <shardkit/core/detail/atomic.hpp>

#include <cstring>
#include <string>

namespace shardkit::detail {

class thread_meeting final : public thread_activity {
 public:
  thread_meeting(shared<thread_room> room, int rank)
      : thread_activity(room->launch->progress(room->launch_rank(rank))),
        room_(std::move(room)),
        rank_(rank),
        seen_(static_cast<std::size_t>(room_->size)) {}

  int rank() const noexcept { return rank_; }
  thread_room& room() const noexcept { return *room_; }
  const shared<thread_room>& shared_room() const noexcept { return room_; }

  /// Publishes a contribution of at most `largest` bytes, which `fill` puts into the line, or where that is too small
  /// (at most thread_room::box_bytes) into this rank's box. Nothing is left to read of its own buffers afterwards.
  template <class Call, class Fill>
  void publish_copied(const Call& call, std::size_t largest, Fill fill) {
    thread_line& line = begin(call);
    // One after the other, so that a peer that looks at the line does not take it away in between.
    fill(largest <= thread_line::inline_bytes ? line.bytes : room_->box(rank_, call_));
    line.fingerprint = fingerprints_[call_ & 1] = fingerprint(call);
    line.call.store(call_, memory_order_release);
    exposed_ = false;
  }
  template <class Call>
  void publish_inline(const Call& call, const void* data, std::size_t bytes) {
    publish_copied(call, bytes, [&](void* place) {
      if (bytes != 0) std::memcpy(place, data, bytes);
    });
  }

  /// Publishes pointers; the peers may use the buffers until `finish` returns or this rank has thrown.
  template <class Call>
  void publish_buffers(const Call& call, const thread_line::buffers& buffers) {
    publish_shown(call, fingerprint(call), buffers);
  }
  /// The same with the pointers that `show()` returns, which may first use this rank's stage().
  template <class Call, class Show>
  void publish_staged(const Call& call, Show show) {
    thread_line& line = begin(call);
    line.direct = show();
    expose(line, fingerprint(call));
  }

  /// Waits for rank's line of the current call and checks that it makes the same call.
  const thread_line& await(const described_call& call, int rank) {
    const thread_line& line = room_->line(rank, call_);
    if (rank == rank_) return line;
    wait(call, rank, line.call, call_);
    seen_[static_cast<std::size_t>(rank)] = call_;
    require_same(rank, call_);
    return line;
  }
  void await_all(const described_call& call) {
    for (int rank = 0; rank < room_->size; ++rank) await(call, rank);
  }
  const thread_line& line(int rank) const { return room_->line(rank, call_); }
  /// thread_limits::stage bytes for this rank's contribution to the call that it publishes.
  unsigned char* stage() { return room_->stage(rank_, call_); }
  /// The box of a rank whose line has come.
  const unsigned char* box(int rank) const { return room_->box(rank, call_); }
  /// Where a rank whose line has come makes the call.
  const call_site& site(int rank) const { return room_->site(rank, call_); }

  /// After publish_buffers: returns once all have come and no peer reads this rank's buffers any more.
  [[gnu::noinline]] void finish(const described_call& call) {
    await_all(call);
    mark_done();
    for (int rank = 0; rank < room_->size; ++rank)
      if (rank != rank_) wait(call, rank, room_->slot(rank).done, call_);
    conclude();
  }

  // The same step by step, for calls that nobody waits for.

  /// Whether peers may be reading this rank's buffers.
  bool exposed() const noexcept { return exposed_; }
  /// A rank that has not come to the current call; -1 where all have.
  int first_absent() const {
    return first_that([&, this](int rank) { return room_->line(rank, call_).call.load(memory_order_acquire) < call_; });
  }
  /// This rank reads the peers' buffers no more.
  void mark_done() { room_->slot(rank_).done.store(call_, memory_order_release); }
  /// A rank that may still read this rank's buffers; -1 where there is none.
  int first_reading() const {
    return first_that([&, this](int rank) { return !is_done(rank); });
  }
  void conclude() noexcept { exposed_ = false; }

  /// Before publishing a call whose buffers this rank will touch under `reading` only, and be away otherwise.
  void defer_next() { room_->slot(rank_).deferred.store(call_ + 1); }
  /// While it lives, this rank may read and write the buffers of a deferred call. Throws where the launch has failed.
  class reading {
   public:
    explicit reading(thread_meeting& meeting) : flag_(meeting.room_->slot(meeting.rank_).reading) {
      // Sequentially consistent against a failing rank, which raises the failure and then looks who reads.
      flag_.store(true);
      if (!meeting.failed()) return;
      flag_.store(false);
      meeting.leave_failed_call();
    }
    reading(const reading&) = delete;
    reading& operator=(const reading&) = delete;
    ~reading() { flag_.store(false); }

   private:
    atomic<bool>& flag_;
  };

  /// Waits for `ready` on account of `rank`, going on with what is under way.
  template <class Ready>
  void wait(const described_call& call, int rank, Ready ready) {
    const auto look = [&, this] { return ready() || (go_on() && ready()); };
    if (!spin_until(room_->spins, look)) wait_longer(call, rank, look);
  }

  /// What is called before anything that has to follow what this rank has started; null where nothing is under way.
  void set_settling(void (*function)(void*), void* context) noexcept {
    settle_ = function;
    settling_ = context;
  }
  /// Completes the collectives that this rank has started. By pointer: programs that start nothing compile nothing of
  /// it.
  void settle() {
    if (settle_ != nullptr) settle_(settling_);
  }

  bool failed() const noexcept { return room_->launch->failed(); }
  /// Throws where the launch has failed, when this rank's buffers are safe to free.
  void require_not_failed() {
    if (failed()) leave_failed_call();
  }
  void require_alive() const {
    if (room_->launch->failed()) room_->launch->throw_failure();
  }

  /// Makes this rank's buffers safe to free, then throws the launch's failure.
  [[noreturn, gnu::cold, gnu::noinline]] void leave_failed_call() {
    withdraw();
    room_->launch->throw_failure();
  }
  /// The same where this rank has found that another makes a different call.
  [[noreturn, gnu::cold, gnu::noinline]] void leave_mismatched_call(const std::string& text) {
    raise(rank_, text);
    withdraw();
    throw mismatch_error(text);
  }

  /// Raises a failure of this rank's making.
  [[gnu::cold, gnu::noinline]] void raise(int rank, const std::string& reason) noexcept {
    room_->launch->raise(room_->launch_rank(rank), reason.c_str());
  }
  /// Where nothing may be thrown: the reason is `text()`, or the shorter one where there is no memory for it.
  template <class Text>
  void raise(int rank, const char* shorter, Text text) noexcept {
    try {
      raise(rank, text());
    } catch (...) {
      room_->launch->raise(room_->launch_rank(rank), shorter);
    }
  }

  /// Ends this rank's part in a failed call: says that it reads no more, and waits until no peer can be reading its own
  /// buffers. A peer that publishes from now on sees the failure before it reads anything; one that has published
  /// another call sees that before.
  [[gnu::cold, gnu::noinline]] void withdraw() noexcept {
    room_->slot(rank_).withdrawn.store(true);
    if (!exposed_) return;
    for (int rank = 0; rank < room_->size; ++rank) {
      if (rank == rank_) continue;
      const thread_slot& peer = room_->slot(rank);
      const thread_line& theirs = room_->line(rank, call_);
      const auto quiet = [&, this] {
        return peer.withdrawn.load() || peer.done.load() >= call_ || theirs.call.load() < call_ ||
               theirs.fingerprint != fingerprints_[call_ & 1] ||
               (peer.deferred.load() == call_ && !peer.reading.load()) ||
               room_->launch->has_left(room_->launch_rank(rank));
      };
      // Without a deadline: the peer is copying, or about to see the failure; neither can block.
      const auto never = [] { return false; };
      yield_until(no_deadline, quiet, never);
    }
    exposed_ = false;
    if (on_withdrawal_ != nullptr) on_withdrawal_(withdrawing_);
  }
  /// What is done when a call has been left whose buffers peers have used: where they only told a device to, it still
  /// uses them. May not throw.
  void set_on_withdrawal(void (*function)(void*), void* context) noexcept {
    on_withdrawal_ = function;
    withdrawing_ = context;
  }

  [[noreturn, gnu::cold, gnu::noinline]] void throw_timeout(const described_call& call, int rank) {
    const std::string text = sentence() << "rank " << room_->launch_rank(rank) << " did not arrive in " << call.text()
                                        << " within the operation deadline of " << room_->launch->limits().operation
                                        << " s";
    raise(rank, sentence() << text << describe_site(call.site()));
    withdraw();
    throw timeout_error(text);
  }

 private:
  [[gnu::noinline]] void publish_shown(const described_call& call, std::uint64_t print,
                                       const thread_line::buffers& buffers) {
    thread_line& line = begin(call);
    line.direct = buffers;
    expose(line, print);
  }
  void expose(thread_line& line, std::uint64_t print) {
    line.fingerprint = fingerprints_[call_ & 1] = print;
    // Sequentially consistent against a failing rank, which raises the failure and then looks whose line is out.
    line.call.store(call_);
    exposed_ = true;
    if (room_->launch->failed()) leave_failed_call();
  }
  thread_line& begin(const described_call& call) {
    require_alive();
    ++call_;
    // The line to be overwritten was read by every peer that has published the call before this one. Peers whose
    // lines that call did not need (the root of a small broadcast needs none) are compared now.
    for (int rank = 0; rank < room_->size; ++rank) {
      if (rank != rank_ && seen_[static_cast<std::size_t>(rank)] + 1 < call_) await_previous(call, rank);
    }
    thread_line& line = room_->line(rank_, call_);
    room_->site(rank_, call_) = call.site();
    return line;
  }

  // For a rank to have come to a call, or to have done with it.
  [[gnu::noinline]] void wait(const described_call& call, int rank, const atomic<std::uint64_t>& reached,
                              std::uint64_t number) {
    wait(call, rank, [&] { return reached.load(memory_order_acquire) >= number; });
  }
  [[gnu::cold, gnu::noinline]] void wait_longer(const described_call& call, int rank, const condition& ready) {
    launch_state& launch = *room_->launch;
    const int launch_rank = room_->launch_rank(rank);
    const auto interrupted = [&] { return launch.failed() || launch.has_left(launch_rank); };
    const auto result = yield_until(launch.limits().operation, ready, interrupted);
    if (result == wait_result::ready) return;
    if (result == wait_result::interrupted && !launch.failed())
      raise(rank, sentence() << "left while rank " << room_->launch_rank(rank_) << " waits in " << call.text()
                             << describe_site(call.site()));
    if (result == wait_result::expired) throw_timeout(call, rank);
    leave_failed_call();
  }

  bool is_done(int rank) const { return room_->slot(rank).done.load(memory_order_acquire) >= call_; }
  [[gnu::noinline]] void await_previous(const described_call& call, int rank) {
    wait(call, rank, room_->line(rank, call_ - 1).call, call_ - 1);
    require_same(rank, call_ - 1);
  }
  template <class Is>
  int first_that(Is is) const {
    for (int rank = 0; rank < room_->size; ++rank)
      if (rank != rank_ && is(rank)) return rank;
    return -1;
  }

  void require_same(int rank, std::uint64_t call) {
    if (room_->line(rank, call).fingerprint != fingerprints_[call & 1]) leave_different_calls(rank, call);
  }
  [[noreturn, gnu::cold, gnu::noinline]] void leave_different_calls(int peer, std::uint64_t call) {
    sentence text;
    text << "ranks make different calls: ";
    for (const int rank : {rank_, peer})
      text << (rank == rank_ ? "" : ", ") << "rank " << room_->launch_rank(rank) << " "
           << describe_fingerprint(room_->line(rank, call).fingerprint) << describe_site(room_->site(rank, call));
    leave_mismatched_call(text);
  }

  shared<thread_room> room_;
  int rank_;
  std::uint64_t call_ = 0;
  bool exposed_ = false;
  std::uint64_t fingerprints_[2] = {};  // of the own lines, which may have gone to a core that looks at them
  list<std::uint64_t> seen_;            // the last call of each peer that this rank has seen published

  void (*settle_)(void*) = nullptr;
  void* settling_ = nullptr;
  void (*on_withdrawal_)(void*) = nullptr;
  void* withdrawing_ = nullptr;
};

}  // namespace shardkit::detail
