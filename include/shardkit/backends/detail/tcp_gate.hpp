// Rank 0's side of the rendezvous: it lets in one connection for each other rank. What comes is not trusted: a
// connection that is slow, malformed or of another launch is dropped, and none can keep the others waiting.
#pragma once

#include <shardkit/backends/detail/tcp_greeting.hpp>
#include <shardkit/backends/detail/tcp_socket.hpp>
#include <shardkit/backends/detail/tcp_token.hpp>
#include <shardkit/backends/tcp_rendezvous.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// "rank 2" or "ranks 2, 3, 5"; at most 16 of them.
inline std::string name_ranks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    if (i == 16) return text + ", ...";
    text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  }
  return text;
}

class tcp_gate {
 public:
  /// Listens. Throws transport_error where that cannot be, usage_error where it may not be: without a token.
  tcp_gate(const tcp_rendezvous& where, int size) : where_(where), admitted_(static_cast<std::size_t>(size)) {
    require_token(where, where.listen);
    listener_ = tcp_listen(where.listen, where.port, where.port == 0 ? 1 : where.ports);
    if (where_.on_listening) where_.on_listening(port_of(listener_));
  }

  /// The connections by rank; rank 0's place is empty. Returns when all have come, and tells them. Throws timeout_error
  /// naming the ranks that never came, usage_error where a process of this launch does not fit into it; those that have
  /// come get the same text.
  std::vector<tcp_socket> admit(double seconds) {
    const double end = now_seconds() + seconds;
    for (std::vector<int> missing = missing_ranks(); !missing.empty(); missing = missing_ranks()) {
      if (now_seconds() >= end)
        give_up<timeout_error>(greeting_kind::incomplete,
                               name_ranks(missing) + " of " + std::to_string(admitted_.size()) +
                                   " did not come within the init deadline of " + std::to_string(seconds) + " s to " +
                                   where_.listen + " port " + std::to_string(port_of(listener_)) + notes());
      look(end);
    }
    listener_.close();
    newcomers_.clear();
    answer_all(greeting_kind::begin, "");
    return std::move(admitted_);
  }

 private:
  struct newcomer {
    tcp_socket socket;
    double deadline;
    std::size_t bytes = 0;
    greeting::wire hello{};
  };

  static constexpr double hello_seconds = 2;         // an honest process sends its hello at once, or comes again
  static constexpr std::size_t most_newcomers = 64;  // beyond them the oldest is dropped; honest ones come again

  std::vector<int> missing_ranks() const {
    std::vector<int> missing;
    for (std::size_t rank = 1; rank < admitted_.size(); ++rank)
      if (!admitted_[rank].open()) missing.push_back(static_cast<int>(rank));
    return missing;
  }

  void look(double end) {
    std::vector<pollfd> entries{{listener_.descriptor(), POLLIN, 0}};
    for (const newcomer& one : newcomers_) {
      entries.push_back({one.socket.descriptor(), POLLIN, 0});
      end = std::min(end, one.deadline);
    }
    // Those that have been let in say nothing before all have come; what can be seen here is that they have gone.
    for (const tcp_socket& one : admitted_) entries.push_back({one.descriptor(), POLLIN, 0});
    (void)::poll(entries.data(), entries.size(), tcp_socket::milliseconds(end - now_seconds()));

    for (tcp_socket& one : admitted_) drop_if_gone(one);
    // Every newcomer gets one look, however much it sends.
    const double now = now_seconds();
    for (newcomer& one : newcomers_)
      if (one.deadline <= now || !read(one)) one.socket.close();
    newcomers_.erase(
        std::remove_if(newcomers_.begin(), newcomers_.end(), [](const newcomer& one) { return !one.socket.open(); }),
        newcomers_.end());
    if ((entries.front().revents & POLLIN) != 0) accept();
  }

  void accept() {
    for (int i = 0; i < 16; ++i) {
      tcp_socket socket(::accept4(listener_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (!socket.open()) {
        // Out of descriptors: the listener stays readable, and newcomers may be hoarding them.
        if ((errno == EMFILE || errno == ENFILE) && !newcomers_.empty()) newcomers_.erase(newcomers_.begin());
        return;
      }
      if (newcomers_.size() == most_newcomers) {
        newcomers_.erase(newcomers_.begin());
        ++strangers_;
      }
      newcomers_.push_back({std::move(socket), now_seconds() + hello_seconds});
    }
  }

  /// False where the connection is of no further use here: dropped, or let in.
  bool read(newcomer& one) {
    // One byte more than a hello: nothing may follow before the answer.
    unsigned char buffer[greeting::bytes + 1];
    const std::ptrdiff_t got = one.socket.receive(buffer, sizeof buffer - one.bytes);
    if (got < 0) return true;
    const std::size_t bytes = static_cast<std::size_t>(got);
    if (bytes == 0 || one.bytes + bytes > greeting::bytes) return stranger();
    std::memcpy(&one.hello[one.bytes], buffer, bytes);
    one.bytes += bytes;
    if (one.bytes < greeting::bytes) return true;

    greeting hello;
    switch (decode(one.hello, where_.token, hello)) {
      case greeting_check::stranger: return stranger();
      case greeting_check::nonsense: return stranger();
      case greeting_check::other_version:
        refuse(one, "a process speaks version " + std::to_string(hello.version) + " of the protocol, rank 0 version " +
                        std::to_string(greeting::current_version) + "; build all ranks with the same shardkit");
      case greeting_check::good: break;
    }
    if (hello.kind != greeting_kind::hello) return stranger();
    if (hello.size != admitted_.size())
      refuse(one, "rank " + std::to_string(hello.rank) + " was started as one of " + std::to_string(hello.size) +
                      " ranks, rank 0 as one of " + std::to_string(admitted_.size()) +
                      "; start all with the same size");
    if (hello.rank >= admitted_.size() || hello.rank == 0)
      refuse(one, "a second process says that it is rank " + std::to_string(hello.rank) + " of " +
                      std::to_string(admitted_.size()) + "; give each process a rank of its own");
    tcp_socket& place = admitted_[hello.rank];
    drop_if_gone(place);
    if (place.open())
      refuse(one, "two processes say that they are rank " + std::to_string(hello.rank) +
                      "; give each process a rank of its own, and each launch a token of its own");
    if (answer(one.socket, greeting_kind::welcome, "")) {
      one.socket.tune();
      place = std::move(one.socket);
    }
    return false;
  }

  bool stranger() noexcept {
    ++strangers_;
    return false;
  }
  static void drop_if_gone(tcp_socket& one) noexcept {
    char byte;
    if (one.open() && one.receive(&byte, 1) >= 0) one.close();
  }

  bool answer(const tcp_socket& socket, greeting_kind kind, const std::string& text) const {
    const auto wire =
        encode({greeting::current_version, kind, 0, static_cast<std::uint32_t>(admitted_.size()), where_.token, text});
    // A fresh connection has room for one answer; what cannot take it is lost.
    return socket.send(wire.data(), wire.size()) == static_cast<std::ptrdiff_t>(wire.size());
  }
  void answer_all(greeting_kind kind, const std::string& text) const {
    for (const tcp_socket& one : admitted_)
      if (one.open()) (void)answer(one, kind, text);
  }
  [[noreturn]] void refuse(const newcomer& culprit, const std::string& why) const {
    (void)answer(culprit.socket, greeting_kind::refused, why);
    give_up<usage_error>(greeting_kind::refused, why);
  }
  template <class Error>
  [[noreturn]] void give_up(greeting_kind kind, const std::string& why) const {
    answer_all(kind, why);
    throw Error(why);
  }

  std::string notes() const {
    if (strangers_ == 0) return "";
    return "; " + std::to_string(strangers_) +
           " connections were dropped because they were not of this launch (another token) or not well formed";
  }

  const tcp_rendezvous& where_;
  std::vector<tcp_socket> admitted_;
  tcp_socket listener_;
  std::vector<newcomer> newcomers_;
  std::size_t strangers_ = 0;
};

}  // namespace shardkit::detail
