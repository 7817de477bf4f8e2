// One rank's part in the calls of a thread_room: publishing its line, taking the peers' lines and comparing the calls.
#pragma once

#include <shardkit/backends/detail/thread_differences.hpp>
#include <shardkit/backends/detail/thread_waiting.hpp>

#include <cstring>
#include <exception>
#include <string>

namespace shardkit::detail {

class thread_meeting : public thread_waiting {
 public:
  thread_meeting(shared<thread_room> of_ranks, int rank)
      : thread_waiting(std::move(of_ranks), rank), seen_(static_cast<std::size_t>(room().size)) {}
  /// The ranks end after the same calls, or the launch has failed.
  ~thread_meeting() {
    // Why an exception has taken this rank away is told by whoever catches it.
    if (!failed() && !handed_over_ && std::uncaught_exceptions() == 0) end();
  }
  /// The room, for another meeting of this rank, where nothing has been called in it yet.
  shared<thread_room> hand_over() noexcept {
    handed_over_ = true;
    return room_;
  }

  /// Publishes a contribution of at most `largest` bytes, which `fill` puts into the line, or where that is too small
  /// (at most thread_room::box_bytes) into this rank's box. Nothing is left to read of its own buffers afterwards.
  template <class Call, class Fill>
  void publish_copied(const Call& call, std::size_t largest, Fill fill) {
    const bool in_line = largest <= thread_line::inline_bytes;
    thread_line& line = begin(call, fingerprint(call), in_line ? thread_slot::depth : boxes_in_turn);
    // One after the other, so that a peer that looks at the line does not take it away in between.
    fill(in_line ? line.bytes : room_->box(rank_, call_));
    line.history = history_;
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
    room_->stage(rank_, call_ + 1);  // may have to be made, which may throw: before anything has begun
    thread_line& line = begin(call, fingerprint(call), boxes_in_turn);
    line.direct = show();
    expose(line);
  }

  /// Waits for rank's line of the current call and checks that it makes the same call.
  const thread_line& await(const described_call& call, int rank) {
    const thread_line& line = room_->line(rank, call_);
    if (rank == rank_) return line;
    wait(call, rank, line.call, call_);
    if (line.history != history_) leave_different_calls(rank, call_);
    seen_[static_cast<std::size_t>(rank)] = call_;
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
  const call_site& site(int rank) const { return room_->record(rank, call_).site; }

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

 private:
  // Boxes and stages alternate between two.
  static constexpr std::uint64_t boxes_in_turn = 2;

  [[gnu::noinline]] void publish_shown(const described_call& call, std::uint64_t print,
                                       const thread_line::buffers& buffers) {
    thread_line& line = begin(call, print, thread_slot::depth);
    line.direct = buffers;
    expose(line);
  }
  void expose(thread_line& line) {
    line.history = history_;
    // Sequentially consistent against a failing rank, which raises the failure and then looks whose line is out.
    line.call.store(call_);
    exposed_ = true;
    if (room_->launch->failed()) leave_failed_call();
  }
  // Of the memory that this call writes there are `in_turn`. What is overwritten was read by every peer that has
  // published the call after it, or a later one.
  thread_line& begin(const described_call& call, std::uint64_t print, std::uint64_t in_turn) {
    require_alive();
    ++call_;
    for (int rank = 0; rank < room_->size; ++rank) {
      if (rank != rank_ && seen_[static_cast<std::size_t>(rank)] + in_turn <= call_)
        await_earlier(call, rank, call_ + 1 - in_turn);
    }
    history_ = (history_ ^ print) * 0x9e3779b97f4a7c15u;
    history_ ^= history_ >> 32;  // what differs shall not stay in the highest bits
    room_->record(rank_, call_) = {print, history_, call.site().by_words()};
    return room_->line(rank_, call_);
  }

  bool is_done(int rank) const { return room_->slot(rank).done.load(memory_order_acquire) >= call_; }
  // Waits until `rank` has published `earlier`, and compares what it has published by then. Such are the calls that do
  // not need its line, as a small broadcast needs only the root's.
  [[gnu::noinline]] virtual void await_earlier(const described_call& call, int rank, std::uint64_t earlier) {
    wait(call, rank, room_->line(rank, earlier).call, earlier);
    while (earlier + 1 < call_ && room_->line(rank, earlier + 1).call.load(memory_order_acquire) > earlier) ++earlier;
    if (room_->record(rank, earlier).history != room_->record(rank_, earlier).history)
      leave_different_calls(rank, earlier);
    seen_[static_cast<std::size_t>(rank)] = earlier;
  }
  template <class Is>
  int first_that(Is is) const {
    for (int rank = 0; rank < room_->size; ++rank)
      if (rank != rank_ && is(rank)) return rank;
    return -1;
  }

  // Does not return.
  [[gnu::cold, gnu::noinline]] virtual void leave_different_calls(int peer, std::uint64_t latest) {
    leave_mismatched_call(different_calls(*room_, rank_, peer, seen_[static_cast<std::size_t>(peer)] + 1, latest));
  }
  [[gnu::cold, gnu::noinline]] void end() noexcept {
    room_->slot(rank_).end.store(call_);
    const int peer = different_at_end(*room_, rank_);
    if (peer >= 0) raise_silently(mismatch_words, [&, this] { return difference_at_end(*room_, rank_, peer); });
  }

  bool handed_over_ = false;
  list<std::uint64_t> seen_;  // the last call of each peer that this rank has seen published, and compared

  void (*settle_)(void*) = nullptr;
  void* settling_ = nullptr;
};

}  // namespace shardkit::detail
