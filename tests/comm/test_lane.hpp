// Gives a backend without a control lane one, in the memory of this process, for tests of checked<B> over thread ranks.
#pragma once

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/checked.hpp>

#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

/// The same backend with a lane.
template <class Backend>
class with_test_lane {
 public:
  using space = typename Backend::space;

  with_test_lane(Backend base, double deadline) : base_(std::move(base)), deadline_(deadline) {
    std::shared_ptr<letters> own;
    if (rank() == 0) own = std::make_shared<letters>();
    const auto* offered = &own;
    std::vector<const std::shared_ptr<letters>*> all(static_cast<std::size_t>(size()));
    base_.exchange(&offered, all.data(), sizeof offered, {});
    letters_ = *all[0];
    base_.perform(shardkit::barrier_call{nullptr, {}});
  }

  int rank() const noexcept { return base_.rank(); }
  int size() const noexcept { return base_.size(); }
  template <class Call>
  auto perform(const Call& call) -> decltype(std::declval<Backend&>().perform(call)) {
    base_.perform(call);
  }
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<Backend&>().start(call)) {
    return base_.start(call);
  }
  with_test_lane split(int colour, int key, const shardkit::call_site& site) {
    return with_test_lane(base_.split(colour, key, site), deadline_);
  }
  void exchange(const void* in, void* out, std::size_t bytes, const shardkit::call_site& site) {
    base_.exchange(in, out, bytes, site);
  }
  void fail(const std::string& reason) noexcept { base_.fail(reason); }
  shardkit::control_lane& control() {
    if (!lane_) lane_ = std::make_unique<lane>(base_, letters_, deadline_);
    return *lane_;
  }

 private:
  struct letters {
    std::mutex mutex;
    std::map<std::tuple<int, int, shardkit::control_topic>, std::deque<shardkit::control_lane::blob>> under_way;
  };

  class lane final : public shardkit::control_lane {
   public:
    lane(Backend& base, std::shared_ptr<letters> all, double deadline)
        : base_(base), letters_(std::move(all)), deadline_(deadline) {}

    int rank() const noexcept override { return base_.rank(); }
    int size() const noexcept override { return base_.size(); }
    void post(int peer, shardkit::control_topic topic, const blob& message, const shardkit::call_site&) override {
      const std::lock_guard<std::mutex> lock(letters_->mutex);
      letters_->under_way[{rank(), peer, topic}].push_back(message);
    }
    bool poll(int peer, shardkit::control_topic topic, blob& message) override {
      const std::lock_guard<std::mutex> lock(letters_->mutex);
      auto& waiting = letters_->under_way[{peer, rank(), topic}];
      if (waiting.empty()) return false;
      message = std::move(waiting.front());
      waiting.pop_front();
      return true;
    }
    blob take(int peer, shardkit::control_topic topic, const shardkit::call_site&) override {
      blob message;
      const auto alive = [&] {  // a message to oneself throws once the launch has failed
        const int self = rank();
        base_.perform(shardkit::send_recv_call{nullptr, 0, self, nullptr, 0, self, shardkit::dtype::u8, nullptr, {}});
        return false;
      };
      const auto come = [&] { return poll(peer, topic, message); };
      if (shardkit::detail::wait_for(20, deadline_, come, alive) == shardkit::detail::wait_result::ready) return message;
      const std::string text = "rank " + std::to_string(peer) + " did not arrive within the operation deadline";
      base_.fail(text);
      throw shardkit::timeout_error(text);
    }
    std::vector<blob> exchange(shardkit::control_topic topic, const blob& message, const shardkit::call_site& site) override {
      std::vector<blob> all;
      for (int peer = 0; peer < size(); ++peer) post(peer, topic, message, site);
      for (int peer = 0; peer < size(); ++peer) all.push_back(take(peer, topic, site));
      return all;
    }
    void request_stop() noexcept override {}
    bool stop_requested() override { return false; }

   private:
    Backend& base_;
    std::shared_ptr<letters> letters_;
    double deadline_;
  };

  Backend base_;
  double deadline_;
  std::shared_ptr<letters> letters_;
  std::unique_ptr<lane> lane_;
};

/// with_checks, over a test lane where the backend has none; `deadline` is that of the launch, in seconds.
template <class Backend>
auto with_checks_in_test(shardkit::communicator<Backend>&& comm, double deadline = 30) {
  if constexpr (shardkit::detail::offers_control<Backend>::value) {
    return with_checks(std::move(comm));
  } else {
    return with_checks(shardkit::communicator<with_test_lane<Backend>>(
        with_test_lane<Backend>(std::move(comm.backend()), deadline), comm.name()));
  }
}
