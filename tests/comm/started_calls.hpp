// A backend whose blocking calls are those of another one, started and then waited for, or tested until complete.
#pragma once

#include <shardkit/comm/request.hpp>
#include <shardkit/core/call_site.hpp>

#include <string>
#include <thread>
#include <utility>

template <class Backend>
class started_calls {
 public:
  using space = typename Backend::space;

  explicit started_calls(Backend base) : base_(std::move(base)) {}

  int rank() const noexcept { return base_.rank(); }
  int size() const noexcept { return base_.size(); }

  template <class Call>
  void perform(const Call& call) {
    shardkit::request pending = base_.start(call);
    if (++calls_ % 2 == 0) return pending.wait();
    while (!pending.test()) std::this_thread::yield();
  }
  template <class Call>
  shardkit::request start(const Call& call) {
    return base_.start(call);
  }
  started_calls split(int colour, int key, const shardkit::call_site& site) {
    return started_calls(base_.split(colour, key, site));
  }
  void exchange(const void* in, void* out, std::size_t bytes, const shardkit::call_site& site) {
    base_.exchange(in, out, bytes, site);
  }
  void fail(const std::string& reason) noexcept { base_.fail(reason); }

 private:
  Backend base_;
  unsigned calls_ = 0;
};
