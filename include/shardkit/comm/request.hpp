// The handle of a call under way.
#pragma once

#include <shardkit/comm/detail/call_pool.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <utility>

// A reason came with C++20, the attribute with C++17.
#if __cplusplus >= 202002L
#define SHARDKIT_KEEP_REQUEST [[nodiscard("keep the request and call wait() on it: dropped, it ends the call")]]
#else
#define SHARDKIT_KEEP_REQUEST [[nodiscard]]
#endif

namespace shardkit {

/// What a backend keeps of a call under way. It belongs to the backend's shared state and may outlive the
/// communicator object that started it.
class pending_call {
 public:
  /// Whether the call has completed; makes progress. Throws what went wrong.
  virtual bool test() = 0;
  /// Waits for completion, to the operation deadline. Throws what went wrong.
  virtual void wait() = 0;
  /// The same where it need not wait, else false. Not `test` where a stream waits for the call and not the host.
  virtual bool try_wait() { return test(); }
  /// Seconds that a wait may last: the launch's operation deadline.
  virtual double deadline() const noexcept = 0;
  /// Ends a wait that others have made with `test`: fails the communicator and throws timeout_error.
  [[noreturn]] virtual void expire() = 0;
  /// Gives the state back to its pool. A call that has not completed is ended first: the communicator fails, and
  /// on return no peer reads or writes the caller's buffer.
  virtual void release() noexcept = 0;

 protected:
  ~pending_call() = default;
};

/// Owns a call under way: its buffer must stay untouched until `wait` returns or `test` says true. A request that
/// is dropped before that fails the communicator, because its peer would wait for ever.
class SHARDKIT_KEEP_REQUEST request {
 public:
  request() noexcept = default;
  explicit request(pending_call* state) noexcept : state_(state) {}
  request(request&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  request& operator=(request&& other) noexcept {
    if (this != &other) {
      drop();
      state_ = std::exchange(other.state_, nullptr);
    }
    return *this;
  }
  ~request() { drop(); }

  /// Whether a call is attached.
  bool active() const noexcept { return state_ != nullptr; }
  /// For a decorator that waits by `test`: the call that is attached, or null.
  pending_call* pending() const noexcept { return state_; }

  /// True once the call has completed; the request is then empty. An empty request is complete.
  bool test() {
    if (state_ == nullptr) return true;
    if (!state_->test()) return false;
    drop();
    return true;
  }

  /// Returns after completion; throws timeout_error, peer_failed or what the transport reported. On a device the
  /// compute stream waits, not the host: what is enqueued on it from now on sees the result.
  void wait() {
    if (state_ == nullptr) return;
    state_->wait();
    drop();
  }
  /// Waits where that takes no time, else false.
  bool try_wait() {
    if (state_ == nullptr) return true;
    if (!state_->try_wait()) return false;
    drop();
    return true;
  }

 private:
  friend void wait_all(request* requests, std::size_t count);
  friend class joined_requests;

  void drop() noexcept {
    if (state_ != nullptr) std::exchange(state_, nullptr)->release();
  }

  pending_call* state_ = nullptr;
};

/// Waits for requests of any communicators, going on with all of them: none waits for another. The first failure is
/// thrown; the others then fail as they are dropped.
inline void wait_all(request* requests, std::size_t count) {
  for (std::size_t done = 0; done < count; ++done) {
    request& next = requests[done];
    if (!next.active()) continue;
    const auto look = [&] {
      for (std::size_t i = count; i-- > done + 1;) (void)requests[i].try_wait();
      return next.try_wait();
    };
    constexpr int spins = 1000;
    if (detail::wait_for(spins, next.state_->deadline(), look, [] { return false; }) != detail::wait_result::ready)
      next.state_->expire();
  }
}

/// Several requests as one, from a pool of the process: a steady state allocates nothing.
class joined_requests : public pending_call {
 public:
  /// fill(joined) adds the parts. Empty where none of them is active.
  template <class Fill>
  static request of(Fill fill) {
    joined_requests& joined = idle().take();
    request whole(&joined);
    fill(joined);
    if (joined.parts_.empty()) return {};
    return whole;
  }
  virtual ~joined_requests() = default;

  /// Takes one more part; an empty request is left out.
  void add(request part) {
    if (part.active()) parts_.push_back(std::move(part));
  }

  bool test() override {
    bool all = true;
    for (request& part : parts_) all = part.test() && all;
    return all;
  }
  bool try_wait() override {
    bool all = true;
    for (request& part : parts_) all = part.try_wait() && all;
    return all;
  }
  void wait() override { wait_all(parts_.data(), parts_.size()); }
  double deadline() const noexcept override {
    double longest = 0;
    for (const request& part : parts_) {
      const double own = part.active() ? part.state_->deadline() : 0;
      if (own > longest) longest = own;
    }
    return longest;
  }
  [[noreturn]] void expire() override {
    for (const request& part : parts_)
      if (part.active()) part.state_->expire();
    throw timeout_error("requests that were complete");
  }
  void release() noexcept override {
    parts_.clear();
    idle().give_back(*this);
  }

 private:
  friend class detail::call_pool<joined_requests, detail::pool_lock>;
  using pool = detail::call_pool<joined_requests, detail::pool_lock>;

  joined_requests() = default;
  // Never destroyed: a request may be the last thing of a program to go.
  static pool& idle() {
    static pool& all = *new pool;
    return all;
  }

  detail::list<request> parts_;
};

}  // namespace shardkit

#undef SHARDKIT_KEEP_REQUEST
