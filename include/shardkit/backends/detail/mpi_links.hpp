// News of failures between the nodes of an MPI job, over connections of their own. The watchdogs of the nodes' first
// ranks look after them; MPI, which may be stuck, has no part in it.
#pragma once

#include <shardkit/backends/detail/mpi_failure_board.hpp>
#include <shardkit/backends/detail/mpi_meeting.hpp>
#include <shardkit/backends/detail/mpi_roll_call.hpp>
#include <shardkit/backends/detail/tcp_frame.hpp>
#include <shardkit/core/detail/list.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace shardkit::detail {

/// This node's connections: rank 0's node has one to each other node and passes on what it hears, the others have the
/// one to it. Frames are those of the TCP backend: `failure` and `leaving` as there, `message` with how many have
/// departed, `posted` for the question who is elsewhere and `exchanged` for its answer. Empty on ranks that are not the
/// first of their node, and where there is one node only.
class mpi_links {
 public:
  mpi_links() = default;
  mpi_links(const mpi_links&) = delete;
  mpi_links& operator=(const mpi_links&) = delete;
  ~mpi_links() {
    for (std::size_t i = 0; i < lines_.size(); ++i) hang_up(i);
  }

  /// Takes over the connections; `first_of[r]` is the lowest rank on the node of rank r.
  void take(int rank, const list<int>& first_of, const list<mpi_neighbour>& neighbours) {
    rank_ = rank;
    goodbye_ = news(tcp_frame_kind::leaving, -1, 0, "");
    for (const mpi_neighbour& one : neighbours) {
      int behind = 0;  // rank 0: all other nodes
      for (const int first : first_of) behind += one.rank == 0 ? first != rank : first == one.rank;
      entries_.push_back({one.socket, POLLIN, 0});
      lines_.push_back(line(one.rank, behind, static_cast<std::uint32_t>(first_of.size())));
    }
  }

  /// One look: what has come is written on the node's board, what is new there is told. Allocates only where there is
  /// news.
  void look(mpi_failure_board& board) {
    if (lines_.empty()) return;
    if (::poll(entries_.data(), entries_.size(), 0) > 0)
      for (std::size_t i = 0; i < lines_.size(); ++i)
        if (entries_.data()[i].revents != 0) receive(i, board);
    if (!board.failed()) return;
    // The next look tells what is still to be said: a wait here would keep the watchdog.
    if (!told_ && board.told()) {
      tell(tcp_frame_kind::failure, board.reason(), board.culprit());
      told_ = true;
    }
    // For those who wait until all have left.
    int elsewhere = 0;
    for (const line& one : lines_) elsewhere += one.departed;
    board.depart_elsewhere(elsewhere);
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      line& one = lines_[i];
      const int others = board.departed() + elsewhere - one.departed;
      if (others == one.told_departed) continue;
      write(i, news(tcp_frame_kind::message, -1, static_cast<std::uint64_t>(others), ""));
      one.told_departed = others;
    }
  }

  bool empty() const noexcept { return lines_.empty(); }
  /// Tells all other ends something of a rank; -1 for this one.
  void tell(tcp_frame_kind kind, const char* text, int rank = -1) {
    const std::vector<char> bytes = news(kind, rank, 0, text);
    for (std::size_t i = 0; i < lines_.size(); ++i) write(i, bytes);
  }
  /// What the other ends have answered, one after the other, and who has not.
  std::string answers() const {
    std::string text;
    for (const line& one : lines_) text += one.answer;
    return text + silent();
  }
  std::string silent() const {
    std::string text;
    for (const line& one : lines_)
      if (!one.answered) text += "; rank " + std::to_string(one.rank) + mpi_roll_call::silence;
    return text;
  }

  /// What closes from now on is no loss.
  void close() noexcept {
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      write(i, goodbye_);
      hang_up(i);
    }
    lines_.clear();
  }

 private:
  static constexpr std::uint64_t largest_payload = 4096;

  struct line {
    line(int neighbour, int behind, std::uint32_t world) noexcept
        : rank(neighbour), ranks(behind), parser(world, largest_payload) {}

    int rank;               ///< of the other end
    int ranks;              ///< behind it
    int departed = 0;       ///< of them
    int told_departed = 0;  ///< to it, of all others
    bool left = false;
    bool answered = false;
    std::string answer;
    tcp_frame_parser parser;
  };

  void receive(std::size_t from, mpi_failure_board& board) {
    line& one = lines_[from];
    char bytes[4096];
    const ssize_t got = ::recv(entries_[from].fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
    if (got <= 0)
      return lose(from, board, "its process has ended without leaving MPI, or its node is cut off from the others");
    one.parser.append(bytes, static_cast<std::size_t>(got));
    for (tcp_frame frame;;) {
      switch (one.parser.next(frame)) {
        case tcp_frame_parser::outcome::incomplete: return;
        case tcp_frame_parser::outcome::malformed:
          return lose(from, board, "what it says of failures cannot be understood");
        case tcp_frame_parser::outcome::frame: break;
      }
      if (frame.kind == tcp_frame_kind::leaving) one.left = true;
      if (frame.kind == tcp_frame_kind::message) one.departed = static_cast<int>(frame.sequence);
      const std::string text(frame.payload.begin(), frame.payload.end());
      if (frame.kind == tcp_frame_kind::failure) board.publish(static_cast<int>(frame.source), text.c_str());
      if (frame.kind == tcp_frame_kind::posted) board.question().publish(text.c_str());
      if (frame.kind != tcp_frame_kind::exchanged) continue;
      one.answered = true;
      one.answer = text;
      // Rank 0 has heard all.
      if (one.rank == 0) board.answer().publish(text.c_str());
    }
  }
  void lose(std::size_t at, mpi_failure_board& board, const char* why) noexcept {
    hang_up(at);
    if (lines_[at].left) return;
    board.publish(lines_[at].rank, why);
    lines_[at].departed = lines_[at].ranks;
  }
  void hang_up(std::size_t at) noexcept {
    if (entries_[at].fd >= 0) ::close(std::exchange(entries_[at].fd, -1));
  }

  std::vector<char> news(tcp_frame_kind kind, int source, std::uint64_t number, const char* text) const {
    tcp_frame frame;
    frame.kind = kind;
    frame.source = static_cast<std::uint32_t>(source < 0 ? rank_ : source);
    frame.sequence = number;
    return encode(frame, text, std::strlen(text));
  }
  // Does not wait. An end that is lost or has not read for long is noticed where it is read.
  void write(std::size_t to, const std::vector<char>& bytes) noexcept {
    if (entries_[to].fd < 0 || lines_[to].left) return;
    const ssize_t sent = ::send(entries_[to].fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    // Half a frame would spoil what follows.
    if (sent >= 0 && sent < static_cast<ssize_t>(bytes.size())) ::shutdown(entries_[to].fd, SHUT_RDWR);
  }

  int rank_ = 0;
  bool told_ = false;
  std::vector<char> goodbye_;
  list<line> lines_;
  list<pollfd> entries_;  // of the lines; -1 where a connection is lost
};

}  // namespace shardkit::detail
