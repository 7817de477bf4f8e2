// A rank's end of the star: one connection to the hub, what has arrived over it sorted by communicator, and the failure
// of the launch as far as this rank has heard. Several threads may use it, each its own communicators.
#pragma once

#include <shardkit/backends/detail/tcp_failure.hpp>
#include <shardkit/backends/detail/tcp_mailbox.hpp>
#include <shardkit/backends/detail/tcp_socket.hpp>
#include <shardkit/comm/deadlines.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

class tcp_link {
 public:
  using lock = std::unique_lock<std::mutex>;

  tcp_link(tcp_socket connection, int rank, int size, const deadlines& limits)
      : rank_(rank),
        size_(size),
        limits_(limits),
        socket_(std::move(connection)),
        parser_(static_cast<std::uint32_t>(size)),
        left_(static_cast<std::size_t>(size)) {}

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  const deadlines& limits() const noexcept { return limits_; }
  lock acquire() { return lock(mutex_); }
  /// A number that no other rank and no other call gives.
  std::uint64_t fresh_number() noexcept { return static_cast<std::uint64_t>(rank_) << 32 | ++numbers_; }

  // All of the following are called with the lock held.

  std::shared_ptr<tcp_mailbox> mailbox(std::uint64_t communicator) {
    auto& box = boxes_[communicator];
    if (!box) box = std::make_shared<tcp_mailbox>(size_);
    return box;
  }
  /// This rank lets go of its end. Its calls there are over: a contribution to a collective that is still here was sent
  /// for a call that this rank did not make. What comes later is dropped, or is such a contribution, too; so the box
  /// stays until the others have let go.
  void close(std::uint64_t communicator, const std::vector<int>& members) noexcept {
    try {
      tcp_mailbox& box = *mailbox(communicator);
      box.abandoned = std::uncaught_exceptions() != 0;
      listen();
      for (std::size_t source = 0; source < box.from.size(); ++source)
        if (!box.from[source].collectives.empty()) discover_unread(box, box.from[source].collectives.front());
      box.from.clear();
      box.closed = true;
      box.peers = members.size() - 1;
      if (!failure_.known() && !ended_) {
        tcp_frame frame;
        frame.kind = tcp_frame_kind::closing;
        frame.source = static_cast<std::uint32_t>(rank_);
        frame.communicator = communicator;
        for (const int member : members)
          if (member != rank_) frame.targets.push_back(static_cast<std::uint32_t>(member));
        if (!frame.targets.empty()) write(encode(frame));
      }
      if (box.closings == box.peers || failure_.known() || ended_) boxes_.erase(communicator);
    } catch (const std::exception&) {
      // The connection is lost, or there is no memory to say so: the next call finds that out.
    }
  }
  /// How many communicators this rank remembers.
  std::size_t boxes() const noexcept { return boxes_.size(); }
  /// A call has taken a contribution of another rank.
  void count_taken() noexcept { ++taken_; }

  /// Hears what has arrived, then throws where the launch has failed or this rank has left it.
  void require_alive() {
    if (ended_) throw usage_error("the tcp_environment has ended; its communicators can only be destroyed now");
    listen();
    if (failure_.known()) failure_.raise();
  }

  /// Sends to each of the frame's targets; the frame's own payload is left out. Throws as the communicator does.
  void post(tcp_frame& frame, const void* payload, std::size_t bytes) {
    frame.source = static_cast<std::uint32_t>(rank_);
    const auto self = std::find(frame.targets.begin(), frame.targets.end(), frame.source);
    if (self != frame.targets.end()) {
      tcp_frame copy = frame;
      const char* first = static_cast<const char*>(payload);
      copy.payload.assign(first, first + bytes);
      mailbox(frame.communicator)->add(std::move(copy));
      frame.targets.erase(self);
      changed_.notify_all();
    }
    if (frame.targets.empty()) return;
    write(encode(frame, payload, bytes));
  }

  /// Tells the hub what call this rank makes now.
  void announce(const tcp_frame& frame, const std::string& text) { write(encode(frame, text.data(), text.size())); }

  /// Waits until `ready()`. Ends with the launch's failure; where one of `awaited(visit)`, the ranks of the launch it
  /// waits for, has left; and at the operation deadline. `describe()` says what waits.
  template <class Ready, class Awaited, class Describe>
  void wait(lock& held, Ready ready, Awaited awaited, Describe describe) {
    const double end = now_seconds() + limits_.operation;
    bool asked = false;
    for (;;) {
      if (!reading_) listen();
      if (ready()) return;
      if (ended_ || (failure_.known() && (!asked || failure_.settled()))) require_alive();
      const int absent = awaited();
      if (!asked && left_[static_cast<std::size_t>(absent)]) {
        // The hub may know more, as that the two ranks make different calls: its answer is the one that counts.
        fail_locked(absent, "left while rank " + std::to_string(rank_) + " waits in " + describe());
        asked = true;
      }
      const double left = end - now_seconds();
      if (left <= 0) {
        const std::string text = "rank " + std::to_string(absent) + " did not arrive in " + describe() +
                                 " within the operation deadline of " + std::to_string(limits_.operation) + " s";
        fail_locked(absent, text);
        throw timeout_error(text);
      }
      // One thread reads for all; the others wait until it has heard something.
      if (reading_) {
        changed_.wait_for(held, std::chrono::duration<double>(std::min(left, 60.0)));
        continue;
      }
      reading_ = true;
      held.unlock();
      (void)socket_.wait(POLLIN, std::min(left, 60.0));
      held.lock();
      reading_ = false;
      listen();
      changed_.notify_all();
    }
  }

  /// Hears what has arrived, without waiting.
  void listen() {
    if (!socket_.open() || hear()) return;
    failure_.settle_without_hub(
        parser_.complaint() == nullptr
            ? "the connection to it is lost: the process that carries the lane has ended or was cut off"
            : std::string("the hub sent a malformed frame, with ") + parser_.complaint());
  }

  bool stop_asked() const noexcept { return stop_; }

  /// Sends the news, and remembers them where nothing has failed before. Where this rank may say more of it soon, the
  /// hub waits for that before it tells the others.
  void fail_locked(int culprit, const std::string& reason, bool more_may_come = false) noexcept {
    if (ended_ || !failure_.awaits(culprit) || (more_may_come && failure_.known())) return;
    failure_.note(culprit, reason, more_may_come);
    failure_.mark_told();  // by whoever calls this
    tell_failure(culprit, reason, more_may_come);
  }

  // The following take the lock themselves.

  void fail(int culprit, const std::string& reason) noexcept {
    const lock held(mutex_);
    fail_locked(culprit, reason);
    changed_.notify_all();
  }
  void ask_to_stop() noexcept {
    const lock held(mutex_);
    stop_ = true;
    try {
      tcp_frame frame;
      frame.kind = tcp_frame_kind::stop;
      frame.source = static_cast<std::uint32_t>(rank_);
      if (!failure_.known() && !ended_) write(encode(frame));
    } catch (const std::exception&) {
      // Where the launch has failed it stops anyway.
    }
  }
  bool failed() {
    const lock held(mutex_);
    return failure_.known();
  }

  /// Leaves the launch: what was sent arrives, and no peer is told of a failure. At most so many seconds.
  void leave(double seconds) noexcept {
    const lock held(mutex_);
    const double end = now_seconds() + seconds;
    try {
      listen();
      for (const auto& [number, box] : boxes_)
        for (const tcp_mailbox::letters& letters : box->from)
          if (!letters.collectives.empty()) discover_unread(*box, letters.collectives.front());
      ended_ = true;
      tcp_frame frame;
      frame.kind = tcp_frame_kind::leaving;
      frame.source = static_cast<std::uint32_t>(rank_);
      frame.sequence = taken_;
      const std::vector<char> bytes = encode(frame);
      if (socket_.send_all(bytes.data(), bytes.size(), seconds) == tcp_socket::outcome::done) {
        ::shutdown(socket_.descriptor(), SHUT_WR);
        // To the end: the hub may know of something that this rank has not taken.
        while (hear() && now_seconds() < end) (void)socket_.wait(POLLIN, end - now_seconds());
      }
    } catch (const std::exception&) {
      // No memory to say so: the hub sees the connection close.
    }
    ended_ = true;
    socket_.close();
    changed_.notify_all();
  }

  /// After leaving: throws mismatch_error where ranks made different calls and no call has thrown that here.
  void require_agreement() {
    const lock held(mutex_);
    failure_.require_agreement();
  }

 private:
  void tell_failure(int culprit, const std::string& reason, bool more_may_come = false) noexcept {
    try {
      const std::string text = reason.substr(0, 2000);
      tcp_frame frame;
      frame.kind = tcp_frame_kind::failure;
      frame.source = static_cast<std::uint32_t>(culprit);
      frame.sequence = more_may_come ? 1 : 0;
      write(encode(frame, text.data(), text.size()));
    } catch (const std::exception&) {
      // The connection is lost, too: the hub sees that by itself.
    }
  }

  void discover_unread(const tcp_mailbox& box, const tcp_frame& frame) noexcept {
    if (failure_.known() || ended_ || box.abandoned) return;
    try {
      failure_.note(rank_, mismatch_words + ("rank " + std::to_string(frame.source)) + " call " +
                               std::to_string(frame.sequence) + " " + describe_fingerprint(frame.fingerprint) +
                               ", rank " + std::to_string(rank_) + " ended the communicator after " + box.last_call());
    } catch (const std::exception&) {
      failure_.note(rank_, mismatch_words);
    }
    tell_failure(rank_, failure_.reason());
  }

  /// False where nothing more can come: the other side has closed, or sends nonsense.
  bool hear() {
    char buffer[65536];
    for (;;) {
      const std::ptrdiff_t got = socket_.receive(buffer, sizeof buffer);
      if (got < 0) return true;
      if (got == 0) return false;
      parser_.append(buffer, static_cast<std::size_t>(got));
      tcp_frame frame;
      while (parser_.next(frame) == tcp_frame_parser::outcome::frame) sort(std::move(frame));
      if (parser_.complaint() != nullptr) return false;
      if (static_cast<std::size_t>(got) < sizeof buffer) return true;
    }
  }

  void write(const std::vector<char>& bytes) {
    // The hub always reads: this ends soon, or its process is stopped or lost.
    switch (socket_.send_all(bytes.data(), bytes.size(), limits_.operation)) {
      case tcp_socket::outcome::done: return;
      case tcp_socket::outcome::closed:
        listen();  // the hub may have said why
        failure_.note(0, "the connection to it is lost");
        failure_.raise();
      case tcp_socket::outcome::expired:
        failure_.note(0, "its process took nothing for the operation deadline");
        throw timeout_error(
            "the process of rank 0, which carries the TCP lane, took nothing for the operation deadline of " +
            std::to_string(limits_.operation) + " s");
    }
  }

  void sort(tcp_frame&& frame) {
    switch (frame.kind) {
      case tcp_frame_kind::failure:
        // The hub knows what came first.
        return failure_.settle(static_cast<int>(frame.source), std::string(frame.payload.begin(), frame.payload.end()));
      case tcp_frame_kind::leaving: left_[frame.source] = true; return;
      case tcp_frame_kind::stop: stop_ = true; return;
      default: break;
    }
    if (failure_.known() || ended_) return;  // nobody will take it
    const std::shared_ptr<tcp_mailbox> box = mailbox(frame.communicator);
    if (frame.kind == tcp_frame_kind::closing) {
      if (++box->closings == box->peers && box->closed) boxes_.erase(frame.communicator);
    } else if (!box->closed) {
      box->add(std::move(frame));
    } else if (frame.kind == tcp_frame_kind::collective) {
      discover_unread(*box, frame);
    }
  }

  const int rank_, size_;
  const deadlines limits_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reading_ = false;
  tcp_socket socket_;
  tcp_frame_parser parser_;
  std::map<std::uint64_t, std::shared_ptr<tcp_mailbox>> boxes_;
  std::vector<bool> left_;
  std::uint64_t taken_ = 0;  // frames of collectives
  bool stop_ = false, ended_ = false;
  tcp_failure failure_;
  std::atomic<std::uint32_t> numbers_{0};
};

}  // namespace shardkit::detail
