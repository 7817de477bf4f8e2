// The control lane that a communicator hands out: that of its backend, whose errors learn here on which communicator
// they happened, in which operation, and what came before.
#pragma once

#include <shardkit/comm/control.hpp>
#include <shardkit/comm/detail/membership.hpp>

#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// Belongs to the name of a communicator, and with it moves on to whatever is put around its backend.
/// A template, so that only programs that ask for a lane compile it.
template <class History = call_history>
class named_lane final : public control_lane, public shared_object {
 public:
  /// `lane` under this name.
  static control_lane& of(shared_name& name, control_lane& lane, const History* history) {
    auto* const last = static_cast<named_lane*>(name.lane.get());
    if (last != nullptr && &last->lane_ == &lane && last->history_ == history) return *last;
    // A program may still hold the last one.
    auto* const next = new named_lane(lane, name.text, history, name.lane);
    name.lane = shared<shared_object>(next);
    return *next;
  }

  int rank() const noexcept override { return lane_.rank(); }
  int size() const noexcept override { return lane_.size(); }

  void post(int peer, control_topic topic, const blob& message, const call_site& site) override {
    explaining({"post", topic, peer, message.size()}, site, [&, this] { lane_.post(peer, topic, message, site); });
  }
  bool poll(int peer, control_topic topic, blob& message, const call_site& site) override {
    return explaining({"poll", topic, peer}, site, [&, this] { return lane_.poll(peer, topic, message, site); });
  }
  blob take(int peer, control_topic topic, const call_site& site) override {
    return explaining({"take", topic, peer}, site, [&, this] { return lane_.take(peer, topic, site); });
  }
  std::vector<blob> exchange(control_topic topic, const blob& message, const call_site& site) override {
    return explaining({"exchange", topic, none, message.size()}, site,
                      [&, this] { return lane_.exchange(topic, message, site); });
  }
  bool claim(control_topic topic) noexcept override { return lane_.claim(topic); }
  void request_stop() noexcept override { lane_.request_stop(); }
  bool stop_requested(const call_site& site) override {
    return explaining({"stop_requested", control_topic::user}, site, [&, this] { return lane_.stop_requested(site); });
  }

 private:
  static constexpr int none = -1;
  struct operation {
    const char* verb;
    control_topic topic;
    int peer = none;
    std::size_t bytes = 0;
  };

  template <class Action>
  auto explaining(const operation& what, const call_site& site, Action action) -> decltype(action()) {
    try {
      return action();
    } catch (error& failure) {
      explain(failure, what, site);
      throw;
    }
  }
  [[gnu::cold, gnu::noinline]] void explain(error& failure, const operation& what, const call_site& site) const {
    sentence text;
    text << "control " << what.verb << "(" << name_of(what.topic);
    if (what.bytes != 0) text << ", " << what.bytes << " bytes";
    if (what.peer != none) text << ", peer " << what.peer;
    failure.attach({rank(), size(), name_, text << ")", 0, site});
    if (history_ != nullptr) history_->attach_to(failure);
  }

  named_lane(control_lane& lane, const std::string& name, const History* history, shared<shared_object> before)
      : lane_(lane), name_(name), history_(history), before_(std::move(before)) {}

  control_lane& lane_;
  const std::string& name_;
  const History* history_;
  shared<shared_object> before_;
};

}  // namespace shardkit::detail
