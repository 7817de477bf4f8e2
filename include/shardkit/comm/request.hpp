// The handle of a call under way.
#pragma once

#include <shardkit/core/error.hpp>

#include <utility>

namespace shardkit {

/// What a backend keeps of a call under way. It belongs to the backend's shared state and may outlive the
/// communicator object that started it.
class pending_call {
 public:
  /// Whether the call has completed; makes progress. Throws what went wrong.
  virtual bool test() = 0;
  /// Waits for completion, to the operation deadline. Throws what went wrong.
  virtual void wait() = 0;
  /// Gives the state back to its pool. A call that has not completed is ended first: the communicator fails, and
  /// on return no peer reads or writes the caller's buffer.
  virtual void release() noexcept = 0;

 protected:
  ~pending_call() = default;
};

/// Owns a call under way: its buffer must stay untouched until `wait` returns or `test` says true. A request that
/// is dropped before that fails the communicator, because its peer would wait for ever.
class [[nodiscard]] request {
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

  /// True once the call has completed; the request is then empty. An empty request is complete.
  bool test() {
    if (state_ == nullptr) return true;
    if (!state_->test()) return false;
    drop();
    return true;
  }

  /// Returns after completion; throws timeout_error, peer_failed or what the transport reported.
  void wait() {
    if (state_ == nullptr) return;
    state_->wait();
    drop();
  }

 private:
  void drop() noexcept {
    if (state_ != nullptr) std::exchange(state_, nullptr)->release();
  }

  pending_call* state_ = nullptr;
};

}  // namespace shardkit
