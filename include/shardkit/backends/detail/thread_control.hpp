// The control lane of thread ranks: letter boxes in the memory of the room, apart from everything that calls touch.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/comm/control.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// How waits for control messages appear in errors.
struct control_call {
  static constexpr const char* name = "control";
  call_site site;
};

/// A rank's end. Its waits are those of calls: they go on with what is under way, end with the launch's failure, where
/// the awaited rank has left, and at the operation deadline.
/// A template, so that only programs that make ranks compile it.
template <class Meeting>
class thread_control final : public control_lane {
 public:
  explicit thread_control(Meeting& meeting) : meeting_(meeting) {}

  int rank() const noexcept override { return meeting_.rank(); }
  int size() const noexcept override { return meeting_.room().size; }

  void post(int peer, control_topic topic, const blob& message, const call_site&) override {
    require(peer);
    letters().put({rank(), peer, false, topic}, message);
  }
  bool poll(int peer, control_topic topic, blob& message, const call_site&) override {
    require(peer);
    return letters().get({peer, rank(), false, topic}, message);
  }
  blob take(int peer, control_topic topic, const call_site& site) override {
    require(peer);
    return await({peer, rank(), false, topic}, site);
  }
  std::vector<blob> exchange(control_topic topic, const blob& message, const call_site& site) override {
    require(0);
    for (int peer = 0; peer < size(); ++peer)
      if (peer != rank()) letters().put({rank(), peer, true, topic}, message);
    std::vector<blob> all(static_cast<std::size_t>(size()));
    for (int peer = 0; peer < size(); ++peer)
      all[static_cast<std::size_t>(peer)] = peer == rank() ? message : await({peer, rank(), true, topic}, site);
    return all;
  }
  void request_stop() noexcept override { meeting_.room().launch->ask_to_stop(); }
  bool stop_requested(const call_site&) override { return meeting_.room().launch->stop_asked(); }

 private:
  thread_letters& letters() const noexcept { return meeting_.room().letters; }

  void require(int peer) {
    meeting_.require_alive();
    if (peer >= 0 && peer < size()) return;
    const std::string why = not_a_rank("control: peer", peer, size());
    meeting_.raise(rank(), why);
    throw usage_error(why);
  }
  blob await(const thread_letters::box& box, const call_site& site) {
    const typename Meeting::holding held(meeting_);
    blob message;
    meeting_.wait(control_call{site}, box.from, [&, this] { return letters().get(box, message); });
    return message;
  }

  Meeting& meeting_;
};

}  // namespace shardkit::detail
