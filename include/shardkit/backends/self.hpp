// The communicator of one rank: every verb is a copy or nothing, behind the same checks as any other. Also the
// smallest backend there is: the verbs it lacks come from complete<B>.
#pragma once

#include <shardkit/backends/detail/self_control.hpp>
#include <shardkit/comm/communicator.hpp>
#include <shardkit/comm/describe.hpp>

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace shardkit {
namespace detail {

/// Messages of a rank to itself: sent and not yet received, or awaited and not yet sent. One of the two is empty. As
/// between ranks both sides have the same count and type.
struct self_mail {
  struct awaited {
    void* out;
    std::size_t count;
    dtype type;
    bool arrived = false;
  };
  struct message {
    std::vector<char> bytes;
    std::size_t count;
    dtype type;
  };

  void send(const send_call& call) {
    if (receivers.empty()) {
      const char* first = static_cast<const char*>(call.in);
      messages.push_back({{first, first + call.count * size_of(call.type)}, call.count, call.type});
      return;
    }
    deliver(*receivers.front(), call.in, call.count, call.type);
    receivers.pop_front();
  }
  bool has_message() const noexcept { return !messages.empty(); }
  void receive(const recv_call& call) {
    awaited receiver{call.out, call.count, call.type};
    const message& first = messages.front();
    deliver(receiver, first.bytes.data(), first.count, first.type);
    messages.pop_front();
  }
  static void deliver(awaited& receiver, const void* in, std::size_t count, dtype type) {
    if (receiver.count != count || receiver.type != type)
      throw mismatch_error("messages differ: rank 0 sends " + elements(count, type) + " to itself, and receives " +
                           elements(receiver.count, receiver.type));
    host_space::copy(receiver.out, in, count * size_of(type));
    receiver.arrived = true;
  }

  std::deque<message> messages;
  std::deque<awaited*> receivers;
};

/// A receive from oneself whose message has not been sent yet.
class self_receive final : public pending_call {
 public:
  self_receive(std::shared_ptr<self_mail> mail, const recv_call& call)
      : mail_(std::move(mail)), receiver_{call.out, call.count, call.type} {
    mail_->receivers.push_back(&receiver_);
  }
  virtual ~self_receive() = default;

  bool test() override { return receiver_.arrived; }
  void wait() override {
    if (!receiver_.arrived) expire();
  }
  double deadline() const noexcept override { return 0; }
  [[noreturn]] void expire() override {
    throw usage_error("recv from oneself before anything was sent waits for ever");
  }
  void release() noexcept override {
    auto& waiting = mail_->receivers;
    waiting.erase(std::remove(waiting.begin(), waiting.end(), &receiver_), waiting.end());
    delete this;
  }

 private:
  std::shared_ptr<self_mail> mail_;
  self_mail::awaited receiver_;
};

}  // namespace detail

/// One rank by itself.
class self_backend {
 public:
  using space = host_space;

  self_backend() : self_backend(std::make_shared<detail::self_launch>()) {}

  int rank() const noexcept { return 0; }
  int size() const noexcept { return 1; }

  void perform(const barrier_call&) { require_alive(); }
  void perform(const broadcast_call&) { require_alive(); }
  void perform(const reduce_call& call) { copy(call); }
  void perform(const all_reduce_call& call) { copy(call); }
  void perform(const reduce_scatter_call& call) { copy(call); }
  void perform(const all_gather_call& call) { copy(call); }

  void perform(const send_call& call) {
    require_alive();
    mail_->send(call);
  }
  void perform(const recv_call& call) { start(call).wait(); }

  void perform(const group_call& group) { start(group).wait(); }

  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<self_backend&>().perform(call), request()) {
    perform(call);
    return {};
  }
  request start(const recv_call& call) {
    require_alive();
    if (mail_->has_message()) {
      mail_->receive(call);
      return {};
    }
    return request(new detail::self_receive(mail_, call));
  }
  request start(const group_call& group) {
    return joined_requests::of([&, this](joined_requests& receives) {
      // A receive may be listed before its send.
      for (const bool sends : {true, false})
        for (std::size_t i = 0; i < group.count; ++i)
          visit(
              [&, this](const auto& call) {
                using call_type = std::decay_t<decltype(call)>;
                if constexpr (detail::performs<self_backend, call_type>::value)
                  if (std::is_same_v<call_type, send_call> == sends) receives.add(start(call));
              },
              group.calls[i]);
    });
  }

  self_backend split(int, int, const call_site&) {
    require_alive();
    return self_backend(launch_);
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site&) {
    require_alive();
    host_space::copy(out, in, bytes);
  }
  control_lane& control() noexcept { return *control_; }
  void fail(const std::string& reason) noexcept { launch_->fail(reason); }

 private:
  explicit self_backend(std::shared_ptr<detail::self_launch> launch) : launch_(std::move(launch)) {}

  void require_alive() const { launch_->require_alive(); }
  template <class Call>
  void copy(const Call& call) {
    require_alive();
    host_space::copy(call.out, call.in, call.count * size_of(call.type));
  }

  std::shared_ptr<detail::self_mail> mail_ = std::make_shared<detail::self_mail>();
  std::shared_ptr<detail::self_launch> launch_;  // shared with the children
  std::unique_ptr<detail::self_control> control_ = std::make_unique<detail::self_control>(launch_);
};

/// One rank by itself: self_communicator alone{self_backend()}.
using self_communicator = communicator<self_backend>;

}  // namespace shardkit
