// A rank's end of the star: one connection to the hub, what has arrived over it sorted by communicator, and the failure
// of the launch as far as this rank has heard. Several threads may use it, each its own communicators.
#pragma once

#include <shardkit/backends/detail/tcp_frame.hpp>
#include <shardkit/backends/detail/tcp_socket.hpp>
#include <shardkit/comm/deadlines.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// What has arrived for one communicator and nobody has taken yet, by rank of the launch.
struct tcp_mailbox {
  struct letters {
    std::deque<tcp_frame> messages, collectives;
    std::map<unsigned char, std::deque<tcp_frame>> posted, exchanged;  ///< by topic
  };
  explicit tcp_mailbox(int ranks) : from(static_cast<std::size_t>(ranks)) {}

  void add(tcp_frame&& frame) {
    letters& box = from[frame.source];
    switch (frame.kind) {
      case tcp_frame_kind::message: return box.messages.push_back(std::move(frame));
      case tcp_frame_kind::collective: return box.collectives.push_back(std::move(frame));
      case tcp_frame_kind::posted: return box.posted[frame.topic].push_back(std::move(frame));
      default: return box.exchanged[frame.topic].push_back(std::move(frame));
    }
  }

  std::vector<letters> from;
};

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
  void forget(std::uint64_t communicator) noexcept { boxes_.erase(communicator); }

  /// Hears what has arrived, then throws where the launch has failed or this rank has left it.
  void require_alive() {
    if (ended_) throw usage_error("the tcp_environment has ended; its communicators can only be destroyed now");
    listen();
    if (failed_) throw_failure();
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

  /// Waits until `ready()`. Ends with the launch's failure; where one of `awaited(visit)`, the ranks of the launch it
  /// waits for, has left; and at the operation deadline. `describe()` says what waits.
  template <class Ready, class Awaited, class Describe>
  void wait(lock& held, Ready ready, Awaited awaited, Describe describe) {
    const double end = now_seconds() + limits_.operation;
    for (;;) {
      if (!reading_) listen();
      if (ready()) return;
      if (ended_ || failed_) require_alive();
      const int absent = awaited();
      if (left_[static_cast<std::size_t>(absent)]) {
        fail_locked(absent, "left while rank " + std::to_string(rank_) + " waits in " + describe());
        throw_failure();
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
    if (!socket_.open()) return;
    char buffer[65536];
    for (;;) {
      const std::ptrdiff_t got = socket_.receive(buffer, sizeof buffer);
      if (got < 0) return;
      if (got == 0) {
        note_failure(0, "the connection to it is lost: the process that carries the lane has ended or was cut off");
        return;
      }
      parser_.append(buffer, static_cast<std::size_t>(got));
      tcp_frame frame;
      while (parser_.next(frame) == tcp_frame_parser::outcome::frame) sort(std::move(frame));
      if (parser_.complaint() != nullptr)
        return note_failure(0, std::string("the hub sent a malformed frame, with ") + parser_.complaint());
      if (static_cast<std::size_t>(got) < sizeof buffer) return;
    }
  }

  bool stop_asked() const noexcept { return stop_; }

  /// Sends the news, and remembers them where nothing has failed before.
  void fail_locked(int culprit, const std::string& reason) noexcept {
    if (failed_ || ended_) return;
    note_failure(culprit, reason);
    try {
      const std::string text = reason.substr(0, 2000);
      tcp_frame frame;
      frame.kind = tcp_frame_kind::failure;
      frame.source = static_cast<std::uint32_t>(culprit);
      write(encode(frame, text.data(), text.size()));
    } catch (const std::exception&) {
      // The connection is lost, too: the hub sees that by itself.
    }
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
      if (!failed_ && !ended_) write(encode(frame));
    } catch (const std::exception&) {
      // Where the launch has failed it stops anyway.
    }
  }
  bool failed() {
    const lock held(mutex_);
    return failed_;
  }

  /// Leaves the launch: what was sent arrives, and no peer is told of a failure. At most so many seconds.
  void leave(double seconds) noexcept {
    const lock held(mutex_);
    ended_ = true;
    const double end = now_seconds() + seconds;
    try {
      tcp_frame frame;
      frame.kind = tcp_frame_kind::leaving;
      frame.source = static_cast<std::uint32_t>(rank_);
      const std::vector<char> bytes = encode(frame);
      if (socket_.send_all(bytes.data(), bytes.size(), seconds) == tcp_socket::outcome::done) {
        ::shutdown(socket_.descriptor(), SHUT_WR);
        char buffer[4096];
        for (std::ptrdiff_t got = -1; got != 0 && now_seconds() < end;) {
          got = socket_.receive(buffer, sizeof buffer);
          if (got < 0) (void)socket_.wait(POLLIN, end - now_seconds());
        }
      }
    } catch (const std::exception&) {
      // No memory to say so: the hub sees the connection close.
    }
    socket_.close();
    changed_.notify_all();
  }

 private:
  [[noreturn]] void throw_failure() const { throw peer_failed(culprit_, reason_); }

  void note_failure(int culprit, const std::string& reason) noexcept {
    if (failed_) return;
    failed_ = true;
    culprit_ = culprit;
    try {
      reason_ = reason;
    } catch (const std::exception&) {
      reason_.clear();
    }
  }

  void write(const std::vector<char>& bytes) {
    // The hub always reads: this ends soon, or its process is stopped or lost.
    switch (socket_.send_all(bytes.data(), bytes.size(), limits_.operation)) {
      case tcp_socket::outcome::done: return;
      case tcp_socket::outcome::closed:
        listen();  // the hub may have said why
        note_failure(0, "the connection to it is lost");
        throw_failure();
      case tcp_socket::outcome::expired:
        note_failure(0, "its process took nothing for the operation deadline");
        throw timeout_error(
            "the process of rank 0, which carries the TCP lane, took nothing for the operation deadline of " +
            std::to_string(limits_.operation) + " s");
    }
  }

  void sort(tcp_frame&& frame) {
    switch (frame.kind) {
      case tcp_frame_kind::failure:
        // The hub knows what came first.
        failed_ = false;
        return note_failure(static_cast<int>(frame.source), std::string(frame.payload.begin(), frame.payload.end()));
      case tcp_frame_kind::leaving: left_[frame.source] = true; return;
      case tcp_frame_kind::stop: stop_ = true; return;
      default: mailbox(frame.communicator)->add(std::move(frame));
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
  bool stop_ = false, failed_ = false, ended_ = false;
  int culprit_ = 0;
  std::string reason_;
  std::atomic<std::uint32_t> numbers_{0};
};

}  // namespace shardkit::detail
