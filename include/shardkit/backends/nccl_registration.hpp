// Buffers that NCCL knows in advance, so that it reads and writes them directly where network and links allow it.
#pragma once

#include <shardkit/backends/nccl.hpp>

#include <cstddef>
#include <memory>
#include <utility>

namespace shardkit {

/// Registers device memory with a communicator for as long as it lives (ncclCommRegister). A rank does it by itself,
/// but NCCL uses it only in calls whose buffers are registered on all ranks. Results are the same with and without.
/// Destroy it before the memory is freed; it keeps the communicator.
class nccl_registration {
 public:
  /// Throws nccl_error where NCCL refuses the memory; then the launch has failed.
  template <class T>
  nccl_registration(nccl_communicator& comm, view<T, cuda_space> memory) : state_(comm.backend().state()) {
    if (memory.empty()) return;
    const cuda_device_guard on_device(state_->launch->device);
    const ncclComm_t handle = state_->alive();
    void* const first = const_cast<std::remove_const_t<T>*>(memory.data());
    state_->check(state_->api.comm_register(handle, first, memory.bytes(), &registered_), "ncclCommRegister");
  }
  nccl_registration(nccl_registration&& other) noexcept
      : state_(std::move(other.state_)), registered_(std::exchange(other.registered_, nullptr)) {}
  nccl_registration& operator=(nccl_registration&& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(registered_, other.registered_);
    return *this;
  }
  ~nccl_registration() {
    if (registered_ == nullptr) return;
    // After a failure NCCL has let go of it, and its communicator is touched no more.
    if (const ncclComm_t handle = state_->handle(); handle != nullptr)
      (void)state_->api.comm_deregister(handle, registered_);
  }

 private:
  std::shared_ptr<detail::nccl_state> state_;
  void* registered_ = nullptr;  // null: NCCL does without, or there is nothing to register
};

}  // namespace shardkit
