// The control lane of a communicator over TCP: the same connection as its calls.
#pragma once

#include <shardkit/backends/detail/tcp_room.hpp>
#include <shardkit/comm/control.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

class tcp_control final : public control_lane {
 public:
  explicit tcp_control(std::shared_ptr<tcp_room> room) : room_(std::move(room)) {}

  int rank() const noexcept override { return room_->rank; }
  int size() const noexcept override { return room_->size; }

  void post(int peer, control_topic topic, const blob& message, const call_site&) override {
    const auto held = ready(peer, message);
    tcp_frame frame = room_->frame_to(tcp_frame_kind::posted, peer);
    frame.topic = static_cast<unsigned char>(topic);
    room_->link->post(frame, message.data(), message.size());
  }

  bool poll(int peer, control_topic topic, blob& message, const call_site&) override {
    const auto held = ready(peer, {});
    return take_from(posted(peer, topic), message);
  }

  blob take(int peer, control_topic topic, const call_site& site) override {
    auto held = ready(peer, {});
    blob message;
    wait_for_frame(held, peer, "control take", site, [&, this] { return take_from(posted(peer, topic), message); });
    return message;
  }

  std::vector<blob> exchange(control_topic topic, const blob& message, const call_site& site) override {
    auto held = ready(rank(), message);
    tcp_frame frame = room_->frame_to_all(tcp_frame_kind::exchanged);
    frame.topic = static_cast<unsigned char>(topic);
    room_->link->post(frame, message.data(), message.size());
    std::vector<blob> all(static_cast<std::size_t>(size()));
    for (int peer = 0; peer < size(); ++peer) {
      blob& theirs = all[static_cast<std::size_t>(peer)];
      if (peer == rank()) {
        theirs = message;
        continue;
      }
      wait_for_frame(held, peer, "control exchange", site, [&, this] {
        return take_from(room_->letters_from(peer).exchanged[static_cast<unsigned char>(topic)], theirs);
      });
    }
    return all;
  }

  void request_stop() noexcept override { room_->link->ask_to_stop(); }
  bool stop_requested(const call_site&) override {
    const auto held = room_->link->acquire();
    room_->link->listen();
    return room_->link->stop_asked();
  }

 private:
  tcp_link::lock ready(int peer, const blob& message) {
    auto held = room_->link->acquire();
    room_->link->require_alive();
    const auto refuse = [&, this](const std::string& why) {
      room_->link->fail_locked(room_->link->rank(), why);
      throw usage_error(why);
    };
    if (peer < 0 || peer >= size()) refuse(not_a_rank("control: peer", peer, size()));
    if (message.size() > tcp_largest_payload)
      refuse("control: a message of " + std::to_string(message.size()) + " bytes; at most " +
             std::to_string(tcp_largest_payload) + ": send it in parts");
    return held;
  }
  std::deque<tcp_frame>& posted(int peer, control_topic topic) {
    return room_->letters_from(peer).posted[static_cast<unsigned char>(topic)];
  }
  static bool take_from(std::deque<tcp_frame>& frames, blob& message) {
    if (frames.empty()) return false;
    message = std::move(frames.front().payload);
    frames.pop_front();
    return true;
  }
  template <class Ready>
  void wait_for_frame(tcp_link::lock& held, int peer, const char* what, const call_site& site, Ready ready) {
    room_->link->wait(
        held, ready, [&, this] { return room_->launch_rank(peer); },
        [&] { return what + (site.known() ? std::string(" at ") + site.file + ":" + std::to_string(site.line) : ""); });
  }

  const std::shared_ptr<tcp_room> room_;
};

}  // namespace shardkit::detail
