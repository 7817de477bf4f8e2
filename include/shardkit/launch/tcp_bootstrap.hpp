// A bootstrap over TCP: rank 0 listens, the others connect. What comes is checked as backends/detail/tcp_gate.hpp says;
// nothing listens any more once all ranks have come.
#pragma once

#include <shardkit/backends/detail/tcp_gate.hpp>
#include <shardkit/backends/detail/tcp_join.hpp>
#include <shardkit/comm/deadlines.hpp>
#include <shardkit/launch/detail/bootstrap_errors.hpp>
#include <shardkit/launch/detail/bootstrap_message.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// For one launch; made on every rank at about the same time.
class tcp_bootstrap final : public bootstrap {
 public:
  /// Collective. Throws timeout_error naming the ranks that never came, usage_error where processes disagree about
  /// size, version or who is who, transport_error where rank 0 cannot listen.
  tcp_bootstrap(int rank, int size, const tcp_rendezvous& where, const deadlines& limits = {})
      : rank_(rank), size_(size), limits_(limits) {
    require_valid(limits);
    where.require_valid(rank, size);
    if (size == 1) return;
    if (rank == 0) peers_ = detail::tcp_gate(where, size).admit(limits.init);
    else peers_.push_back(detail::tcp_join(where, rank, size, limits.init));
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  /// On rank 0 also throws where a rank did not take the blob in time, timeout_error, or has gone, peer_failed.
  blob broadcast(const blob& from_rank_0) override {
    if (rank_ != 0) return await_rank_0();
    detail::require_bootstrap_length(from_rank_0.size());
    require_told(kind::go, from_rank_0, detail::now_seconds() + limits_.init);
    return from_rank_0;
  }

  void barrier() override {
    if (rank_ != 0) {
      // That rank 0 is lost is noticed by the wait for its answer.
      (void)tell_all(kind::go, {}, detail::now_seconds() + limits_.init);
      await_rank_0();
      return;
    }
    const double end = detail::now_seconds() + limits_.init;
    std::vector<int> missing;
    for (int peer = 1; peer < size_; ++peer) {
      detail::bootstrap_message sign;
      const auto result = sign.receive(peers_[static_cast<std::size_t>(peer)], end - detail::now_seconds());
      if (result == detail::tcp_socket::outcome::expired) missing.push_back(peer);
      if (result == detail::tcp_socket::outcome::closed) {
        (void)tell_all(kind::lost, detail::bootstrap_message::of_rank(peer), grace());
        throw peer_failed(peer, left_early);
      }
    }
    if (missing.empty()) return require_told(kind::go, {}, end);
    const std::string text = detail::absent_ranks(missing, size_, limits_.init);
    (void)tell_all(kind::late, blob(text.begin(), text.end()), grace());
    throw timeout_error(text);
  }

 private:
  using kind = detail::bootstrap_message::kind;
  static constexpr const char* left_early = "its connection closed before the bootstrap was over";

  /// Whom a message did not reach: ranks that took none or a part of it, and ranks whose connection is lost.
  struct unreached {
    std::vector<int> stopped, lost;
  };

  /// Gives it to all peers, none of which waits for another. Those that are not ready by `end` get what they take at
  /// once.
  unreached tell_all(kind what, const blob& payload, double end) const {
    const blob bytes = detail::bootstrap_message{what, payload}.encoded();
    unreached result;
    std::vector<std::size_t> sent(peers_.size());
    for (;;) {
      std::vector<pollfd> waiting;
      result.stopped.clear();
      for (std::size_t peer = 0; peer < peers_.size(); ++peer) {
        if (!peers_[peer].open() || sent[peer] == bytes.size()) continue;
        const std::ptrdiff_t taken = peers_[peer].send(bytes.data() + sent[peer], bytes.size() - sent[peer]);
        sent[peer] = taken < 0 ? bytes.size() : sent[peer] + static_cast<std::size_t>(taken);
        if (taken < 0) result.lost.push_back(static_cast<int>(peer));
        if (sent[peer] == bytes.size()) continue;
        result.stopped.push_back(static_cast<int>(peer));
        waiting.push_back({peers_[peer].descriptor(), POLLOUT, 0});
      }
      const double left = end - detail::now_seconds();
      if (waiting.empty() || left <= 0) return result;
      (void)::poll(waiting.data(), waiting.size(), detail::tcp_socket::milliseconds(left));
    }
  }
  void require_told(kind what, const blob& payload, double end) const {
    const unreached missed = tell_all(what, payload, end);
    if (!missed.lost.empty()) throw peer_failed(missed.lost.front(), left_early);
    if (missed.stopped.empty()) return;
    throw timeout_error(detail::name_ranks(missed.stopped) + " of " + std::to_string(size_) +
                        " did not take what rank 0 sent within the init deadline of " + std::to_string(limits_.init) +
                        " s; are they stopped?");
  }
  /// When the news of a failure have to have gone out.
  double grace() const { return detail::now_seconds() + limits_.abort; }

  blob await_rank_0() {
    detail::bootstrap_message message;
    // Its own deadline may end a little later than ours, and its text says more.
    const double seconds = limits_.init;
    switch (message.receive(peers_.front(), seconds + (seconds < 2 ? seconds : 2))) {
      case detail::tcp_socket::outcome::expired: throw timeout_error(detail::absent_ranks({0}, size_, seconds));
      case detail::tcp_socket::outcome::closed: throw peer_failed(0, left_early);
      case detail::tcp_socket::outcome::done: break;
    }
    if (message.what == kind::late) throw timeout_error(std::string(message.payload.begin(), message.payload.end()));
    if (const int lost = message.rank(); lost >= 0) throw peer_failed(lost, left_early);
    return std::move(message.payload);
  }

  const int rank_, size_;
  const deadlines limits_;
  std::vector<detail::tcp_socket> peers_;  // by rank on rank 0; elsewhere only rank 0
};

}  // namespace shardkit
