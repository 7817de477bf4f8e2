// The middle of the star: a thread of rank 0's process that holds a connection to every rank, its own included, and
// passes frames on. It compares what the ranks say of each collective. It notices ranks that are lost and tells the
// others. It waits for nobody: what a rank does not read yet lies in this process's memory.
#pragma once

#include <shardkit/backends/detail/tcp_frame.hpp>
#include <shardkit/backends/detail/tcp_socket.hpp>
#include <shardkit/comm/detail/first_failure.hpp>
#include <shardkit/comm/fingerprint.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace shardkit::detail {

class tcp_hub {
 public:
  /// `connections` by rank.
  explicit tcp_hub(std::vector<tcp_socket> connections) {
    for (tcp_socket& one : connections)
      lines_.emplace_back(std::move(one), static_cast<std::uint32_t>(connections.size()));
    int wake[2];
    if (::pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) throw transport_error(system_complaint("pipe"));
    wake_in_ = tcp_socket(wake[0]);
    wake_out_ = tcp_socket(wake[1]);
    try {
      thread_ = std::thread([this] { run(); });
    } catch (const std::system_error& none) {
      throw transport_error(std::string("no thread for the hub of the TCP lane: ") + none.what());
    }
  }
  tcp_hub(const tcp_hub&) = delete;
  tcp_hub& operator=(const tcp_hub&) = delete;
  ~tcp_hub() {
    if (end_.load() == no_end) end_within(0);  // nobody has said when: it never came into use
    thread_.join();
  }

  /// From now on the hub ends when all ranks have left, and at the latest after so many seconds.
  void end_within(double seconds) noexcept {
    end_.store(now_seconds() + seconds);
    const char byte = 0;
    while (::write(wake_out_.descriptor(), &byte, 1) < 0 && errno == EINTR) {
    }
  }

 private:
  struct line {
    line(tcp_socket&& connection, std::uint32_t ranks) : socket(std::move(connection)), parser(ranks) {}

    tcp_socket socket;
    tcp_frame_parser parser;
    bool left = false;              ///< has said that it leaves
    std::uint64_t collectives = 0;  ///< frames passed on to it, and the last of them
    std::uint32_t last_source = 0;
    std::uint64_t last_sequence = 0, last_fingerprint = 0;
    std::deque<std::shared_ptr<const std::vector<char>>> outgoing;
    std::size_t sent = 0;  ///< of the first of them
  };

  struct announcement {
    std::size_t rank;  ///< the first that came to this call
    std::uint64_t fingerprint;
    std::size_t missing;
    std::string text;
  };

  struct withheld {
    std::size_t rank;
    std::string reason;
    double until;
  };

  void run() noexcept {
    try {
      while (!finished()) look();
    } catch (const std::exception&) {
      // No memory to pass on what has come: the ranks see their connections close.
    }
    for (line& one : lines_) one.socket.close();
  }

  bool finished() const {
    bool all_gone = true;
    for (const line& one : lines_) all_gone = all_gone && !one.socket.open();
    return all_gone || now_seconds() > end_.load();
  }

  void look() {
    entries_.clear();
    entries_.push_back({wake_in_.descriptor(), POLLIN, 0});
    for (const line& one : lines_)
      entries_.push_back(
          {one.socket.descriptor(), static_cast<short>(one.outgoing.empty() ? POLLIN : POLLIN | POLLOUT), 0});
    const double until = withheld_ ? std::min(end_.load(), withheld_->until) : end_.load();
    (void)::poll(entries_.data(), entries_.size(), tcp_socket::milliseconds(until - now_seconds()));
    char byte;
    if (entries_[0].revents != 0) (void)!::read(wake_in_.descriptor(), &byte, 1);
    for (std::size_t rank = 0; rank < lines_.size(); ++rank) {
      const short events = entries_[rank + 1].revents;
      if (lines_[rank].socket.open() && (events & POLLOUT) != 0) flush(lines_[rank]);
      if (lines_[rank].socket.open() && (events & ~POLLOUT) != 0) receive(rank);
    }
    if (withheld_ && now_seconds() >= withheld_->until) tell_withheld();
  }

  void receive(std::size_t rank) {
    line& one = lines_[rank];
    char buffer[65536];
    const std::ptrdiff_t got = one.socket.receive(buffer, sizeof buffer);
    if (got < 0) return;
    if (got == 0) {
      one.socket.close();
      if (!one.left)
        fail(rank, "its connection closed: the process has ended, or was cut off, without leaving the launch");
      return;
    }
    one.parser.append(buffer, static_cast<std::size_t>(got));
    for (;;) {
      switch (one.parser.next(frame_)) {
        case tcp_frame_parser::outcome::incomplete: return;
        case tcp_frame_parser::outcome::malformed: return drop(rank, one.parser.complaint());
        case tcp_frame_parser::outcome::frame: break;
      }
      // A rank may report another's failure; everything else is in its own name.
      if (frame_.source != rank && frame_.kind != tcp_frame_kind::failure)
        return drop(rank, "the name of another rank as the source");
      pass_on(rank);
    }
  }

  void pass_on(std::size_t rank) {
    switch (frame_.kind) {
      case tcp_frame_kind::failure: {
        const std::string reason(frame_.payload.begin(), frame_.payload.end());
        if (frame_.source == rank) {
          if (frame_.sequence != 0) return withhold(rank, reason);
          if (withheld_ && withheld_->rank == rank) withheld_.reset();  // this is more
        }
        fail(frame_.source, reason);
        return;
      }
      case tcp_frame_kind::leaving:
        if (withheld_ && withheld_->rank == rank) tell_withheld();
        if (frame_.sequence != lines_[rank].collectives) fail_unread(rank);
        to_all(frame_);
        lines_[rank].left = true;
        close_after_last(lines_[rank]);
        return;
      case tcp_frame_kind::stop: to_all(frame_); return;
      case tcp_frame_kind::announced: compare(rank); return;
      default: {
        const auto bytes = std::make_shared<const std::vector<char>>(encode(frame_));
        for (const std::uint32_t target : frame_.targets) {
          line& to = lines_[target];
          if (frame_.kind == tcp_frame_kind::collective) {
            ++to.collectives;
            to.last_source = frame_.source;
            to.last_sequence = frame_.sequence;
            to.last_fingerprint = frame_.fingerprint;
            if (to.left) fail_unread(target);
          }
          if (!to.left) give(target, bytes);
        }
      }
    }
  }

  void to_all(const tcp_frame& frame) {
    const auto bytes = std::make_shared<const std::vector<char>>(encode(frame));
    for (std::size_t rank = 0; rank < lines_.size(); ++rank) give(rank, bytes);
  }
  void give(std::size_t rank, const std::shared_ptr<const std::vector<char>>& bytes) {
    line& one = lines_[rank];
    if (!one.socket.open()) return;
    one.outgoing.push_back(bytes);
    if (one.outgoing.size() == 1) flush(one);
  }
  // A lost connection is noticed where it is read.
  static void flush(line& one) {
    while (!one.outgoing.empty()) {
      const std::vector<char>& bytes = *one.outgoing.front();
      const std::ptrdiff_t sent = one.socket.send(bytes.data() + one.sent, bytes.size() - one.sent);
      if (sent < 0) return one.outgoing.clear();
      one.sent += static_cast<std::size_t>(sent);
      if (one.sent < bytes.size()) return;
      one.outgoing.pop_front();
      one.sent = 0;
    }
    if (one.left) close_after_last(one);
  }
  // The rank reads on until it sees the end, so that it hears everything, and nothing of what it has sent is lost by a
  // reset.
  static void close_after_last(line& one) {
    if (one.outgoing.empty()) ::shutdown(one.socket.descriptor(), SHUT_WR);
  }

  void drop(std::size_t rank, const char* complaint) {
    lines_[rank].socket.close();
    fail(rank, std::string("it sent a malformed frame, with ") + complaint);
  }
  // What a communicator's ranks say of one call has to be the same; kept until all have said it.
  void compare(std::size_t rank) {
    const std::pair<std::uint64_t, std::uint64_t> number(frame_.communicator, frame_.sequence);
    std::string text(frame_.payload.begin(), frame_.payload.end());
    const auto known = announced_.find(number);
    if (known == announced_.end()) {
      if (frame_.targets.size() > 1)
        announced_.emplace(number, announcement{rank, frame_.fingerprint, frame_.targets.size() - 1, std::move(text)});
      return;
    }
    announcement& first = known->second;
    if (first.fingerprint != frame_.fingerprint)
      fail(rank, mismatch_text(static_cast<int>(first.rank), first.text, static_cast<int>(rank), text));
    if (--first.missing == 0) announced_.erase(known);
  }
  // Ranks that make the same calls have taken all that was sent to them when they leave.
  void fail_unread(std::size_t rank) {
    const line& one = lines_[rank];
    fail(rank, mismatch_words + ("rank " + std::to_string(one.last_source)) + " call " +
                   std::to_string(one.last_sequence) + " " + describe_fingerprint(one.last_fingerprint) + ", rank " +
                   std::to_string(rank) + " has left the launch without it");
  }
  // The rank is about to say more; if it does not, this counts.
  void withhold(std::size_t rank, const std::string& reason) {
    if (!failed_ && !withheld_)
      withheld_ = std::make_unique<const withheld>(withheld{rank, reason, now_seconds() + first_failure::patience});
  }
  void tell_withheld() {
    const std::unique_ptr<const withheld> told = std::move(withheld_);
    fail(told->rank, told->reason);
  }
  void fail(std::size_t rank, const std::string& reason) {
    if (failed_) return;
    if (withheld_) {  // which came first
      if (withheld_->rank == rank) tell_withheld();
      return;
    }
    failed_ = true;
    tcp_frame frame;
    frame.kind = tcp_frame_kind::failure;
    frame.source = static_cast<std::uint32_t>(rank);
    frame.payload.assign(reason.begin(), reason.end());
    to_all(frame);
  }

  std::vector<line> lines_;
  std::vector<pollfd> entries_;
  tcp_frame frame_;
  std::map<std::pair<std::uint64_t, std::uint64_t>, announcement> announced_;  // by communicator and call
  bool failed_ = false;
  std::unique_ptr<const withheld> withheld_;  // a failure of which the others are not told yet
  std::atomic<double> end_{no_end};
  tcp_socket wake_in_, wake_out_;
  std::thread thread_;

  static constexpr double no_end = 1e300;
};

}  // namespace shardkit::detail
