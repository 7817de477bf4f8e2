// The control lane of a single rank: messages to itself.
#pragma once

#include <shardkit/comm/control.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// What the communicators of a single rank share.
class self_launch {
 public:
  bool stop = false;

  /// The first failure is the one that is told.
  void fail(const std::string& why) noexcept {
    if (failed_) return;
    failed_ = true;
    try {
      reason_ = why;
    } catch (const std::exception&) {
      reason_.clear();
    }
  }
  void require_alive() const {
    if (failed_) throw peer_failed(0, reason_);
  }

 private:
  bool failed_ = false;
  std::string reason_;
};

class self_control final : public control_lane {
 public:
  explicit self_control(std::shared_ptr<self_launch> launch) : launch_(std::move(launch)) {}

  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }

  void post(int peer, control_topic topic, const blob& message, const call_site&) override {
    require(peer);
    posted_[static_cast<std::size_t>(topic)].push_back(message);
  }
  bool poll(int peer, control_topic topic, blob& message, const call_site&) override {
    require(peer);
    std::deque<blob>& posted = posted_[static_cast<std::size_t>(topic)];
    if (posted.empty()) return false;
    message = std::move(posted.front());
    posted.pop_front();
    return true;
  }
  blob take(int peer, control_topic topic, const call_site& site) override {
    blob message;
    if (!poll(peer, topic, message, site))
      refuse("control: taking from oneself before anything was posted waits for ever");
    return message;
  }
  std::vector<blob> exchange(control_topic, const blob& message, const call_site&) override {
    launch_->require_alive();
    return {message};
  }
  void request_stop() noexcept override { launch_->stop = true; }
  bool stop_requested(const call_site&) override { return launch_->stop; }

 private:
  void require(int peer) {
    launch_->require_alive();
    if (peer != 0) refuse(not_a_rank("control: peer", peer, 1));
  }
  [[noreturn]] void refuse(const std::string& why) {
    launch_->fail(why);
    throw usage_error(why);
  }

  std::shared_ptr<self_launch> launch_;
  std::deque<blob> posted_[control_topics];
};

}  // namespace shardkit::detail
