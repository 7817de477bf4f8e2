// A decorator that remembers the last operations of a communicator, prints them with every error of it (of its calls,
// requests and control lane, and of arguments that are refused), and tells a hook when each of them begins and ends.
// In the steady state it allocates nothing.
#pragma once

#include <shardkit/comm/decorator.hpp>
#include <shardkit/comm/detail/call_pool.hpp>
#include <shardkit/comm/operation.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace shardkit {

/// Called on the rank that makes the operation, as it begins and as it ends (operation::state says how). What was
/// started ends when its request is found complete. `context` outlives communicators and requests.
struct operation_hook {
  void (*begin)(void* context, const operation&) noexcept = nullptr;  ///< null: not told
  void (*end)(void* context, const operation&) noexcept = nullptr;    ///< null: not told
  void* context = nullptr;                                            ///< passed to both
};

namespace detail {

/// The last operations of one communicator; shared with its requests under way.
class operation_ring final : public call_history {
 public:
  static constexpr std::size_t length = 64;

  /// `made` counts the communicators of this trace.
  operation_ring(const operation_hook& hook, std::shared_ptr<int> made) noexcept
      : hook_(hook), made_(std::move(made)), communicator_((*made_)++) {}

  std::shared_ptr<operation_ring> of_child() const { return std::make_shared<operation_ring>(hook_, made_); }

  template <class Call>
  operation begin(const Call& call) noexcept {
    operation what = operation_of(call);
    what.communicator = communicator_;
    what.sequence = ++count_;
    place_of(what) = what;
    if (hook_.begin != nullptr) hook_.begin(hook_.context, what);
    return what;
  }
  void change(operation& what, operation_state state) noexcept {
    what.state = state;
    // What was started long ago may have left the ring.
    if (place_of(what).sequence == what.sequence) place_of(what).state = state;
    if (state != operation_state::started && hook_.end != nullptr) hook_.end(hook_.context, what);
  }

  void attach_to(error& failure) const override { failure.attach_history(text()); }
  std::string text() const {
    std::string lines = "the last operations of this communicator, the latest first:";
    for (std::uint64_t back = 0; back < length && back < count_; ++back)
      lines += "\n  " + describe(ring_[(count_ - 1 - back) % length]);
    return lines;
  }

 private:
  operation& place_of(const operation& what) noexcept { return ring_[(what.sequence - 1) % length]; }

  operation_hook hook_;
  std::shared_ptr<int> made_;
  int communicator_;
  std::uint64_t count_ = 0;
  std::array<operation, length> ring_{};
};

/// Runs the action; where it throws, the operation has failed, and the error carries the ring.
template <class Action>
auto noting_failure(operation_ring& ring, operation& what, Action action) -> decltype(action()) {
  try {
    return action();
  } catch (error& failure) {
    ring.change(what, operation_state::failed);
    failure.attach_history(ring.text());
    throw;
  } catch (...) {
    ring.change(what, operation_state::failed);
    throw;
  }
}

/// A request whose end is noted.
class traced_call : public pending_call {
 public:
  struct owner {
    std::shared_ptr<operation_ring> ring;
    call_pool<traced_call> pool;
  };

  request begin(std::shared_ptr<owner> of, const operation& what, request inner) noexcept {
    owner_ = std::move(of);
    what_ = what;
    (void)(inner_ = std::move(inner));  // nvcc sees a request ignored
    return request(this);
  }

  bool test() override {
    if (!noting_failure(*owner_->ring, what_, [&, this] { return inner_.test(); })) return false;
    end();
    return true;
  }
  void wait() override {
    noting_failure(*owner_->ring, what_, [&, this] { inner_.wait(); });
    end();
  }
  double deadline() const noexcept override { return inner_.active() ? inner_.pending()->deadline() : 0; }
  [[noreturn]] void expire() override {
    noting_failure(*owner_->ring, what_, [&, this] {
      if (inner_.active()) inner_.pending()->expire();
    });
    throw timeout_error("an operation that is complete");
  }
  void release() noexcept override {
    (void)(inner_ = request());
    if (what_.state == operation_state::started) owner_->ring->change(what_, operation_state::failed);
    const std::shared_ptr<owner> keep = std::move(owner_);  // may be the last, and take this object with it
    keep->pool.give_back(*this);
  }

 private:
  void end() noexcept {
    if (what_.state == operation_state::started) owner_->ring->change(what_, operation_state::done);
  }

  std::shared_ptr<owner> owner_;
  operation what_;
  request inner_;
};

}  // namespace detail

/// Keeps the last 64 operations of this communicator. Each child of `split` has a ring of its own and the same hook.
template <class Backend>
class traced : public decorator<Backend> {
 public:
  traced(Backend backend, const operation_hook& hook)
      : traced(std::move(backend), std::make_shared<detail::operation_ring>(hook, std::make_shared<int>(0))) {}

  template <class Call>
  void perform(const Call& call) {
    noted(call, [&, this] { this->next_.perform(call); });
  }

  template <class Call>
  request start(const Call& call) {
    operation what = ring().begin(call);
    request inner = detail::noting_failure(ring(), what, [&, this] { return this->next_.start(call); });
    if (!inner.active()) {
      ring().change(what, operation_state::done);
      return {};
    }
    ring().change(what, operation_state::started);
    return owner_->pool.take().begin(owner_, what, std::move(inner));
  }

  traced split(int colour, int key, const call_site& site) {
    return noted(detail::split_operation{site},
                 [&, this] { return traced(this->next_.split(colour, key, site), ring().of_child()); });
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    noted(detail::exchange_operation{bytes, dtype::u8, site},
          [&, this] { this->next_.exchange(in, out, bytes, site); });
  }

  /// The ring as text, one line for each operation, as errors carry it.
  std::string history() const { return ring().text(); }
  const call_history* remembered() const noexcept { return owner_->ring.get(); }

 private:
  traced(Backend backend, std::shared_ptr<detail::operation_ring> ring)
      : decorator<Backend>(std::move(backend)), owner_(std::make_shared<detail::traced_call::owner>()) {
    owner_->ring = std::move(ring);
  }
  detail::operation_ring& ring() const noexcept { return *owner_->ring; }

  template <class Call, class Action>
  auto noted(const Call& call, Action action) -> decltype(action()) {
    operation what = ring().begin(call);
    if constexpr (std::is_void<decltype(action())>::value) {
      detail::noting_failure(ring(), what, action);
      ring().change(what, operation_state::done);
    } else {
      auto result = detail::noting_failure(ring(), what, action);
      ring().change(what, operation_state::done);
      return result;
    }
  }

  std::shared_ptr<detail::traced_call::owner> owner_;
};

/// The same ranks, traced; the communicator is moved from.
template <class Backend>
communicator<traced<Backend>> with_trace(communicator<Backend>&& comm, const operation_hook& hook = {},
                                         call_site site = call_site::current()) {
  return std::move(comm).wrap("with_trace", site,
                              [&](Backend&& backend) { return traced<Backend>(std::move(backend), hook); });
}

}  // namespace shardkit
