// A backend that writes down every call it is handed, for tests of what decorators hand on.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include <shardkit/comm/control.hpp>
#include <shardkit/comm/fingerprint.hpp>

#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

/// One call that has arrived.
struct arrival {
  std::size_t verb;  ///< index in all_calls; behind the last: group
  bool started;
  std::string text;
  int line;  ///< of the call site
};

/// Every verb, one rank, no effect.
class recording_backend {
 public:
  using space = shardkit::host_space;

  explicit recording_backend(std::shared_ptr<std::vector<arrival>> log) : log_(std::move(log)) {}

  int rank() const noexcept { return 0; }
  int size() const noexcept { return 1; }
  template <class Call>
  void perform(const Call& call) {
    note(call, false);
  }
  template <class Call>
  shardkit::request start(const Call& call) {
    note(call, true);
    return {};
  }
  recording_backend split(int, int, const shardkit::call_site&) { return recording_backend(log_); }
  void exchange(const void* in, void* out, std::size_t bytes, const shardkit::call_site&) {
    std::memcpy(out, in, bytes);
  }
  void fail(const std::string&) noexcept {}
  shardkit::control_lane& control() { return lane_; }

 private:
  class no_lane final : public shardkit::control_lane {
   public:
    int rank() const noexcept override { return 0; }
    int size() const noexcept override { return 1; }
    void post(int, shardkit::control_topic, const blob&, const shardkit::call_site&) override {}
    bool poll(int, shardkit::control_topic, blob&, const shardkit::call_site&) override { return false; }
    blob take(int, shardkit::control_topic, const shardkit::call_site&) override {
      throw shardkit::usage_error("one rank has nobody to hear from");
    }
    std::vector<blob> exchange(shardkit::control_topic, const blob& mine, const shardkit::call_site&) override {
      return {mine};
    }
    void request_stop() noexcept override {}
    bool stop_requested(const shardkit::call_site&) override { return false; }
  };

  template <class Call>
  void note(const Call& call, bool started) {
    log_->push_back(
        {shardkit::detail::verb_index<Call>(shardkit::all_calls{}), started, shardkit::describe(call), call.site.line});
  }

  std::shared_ptr<std::vector<arrival>> log_;
  no_lane lane_;
};
