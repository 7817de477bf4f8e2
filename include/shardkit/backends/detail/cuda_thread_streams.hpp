// One thread rank's side of its calls on CUDA streams: its device and its peers', the order of its calls among each
// other, captures, and what is done where something goes wrong on the way.
#pragma once

#include <shardkit/backends/cuda_thread_options.hpp>
#include <shardkit/backends/detail/cuda_thread_device.hpp>
#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/core/buffer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace shardkit::detail {

template <class Call>
at<cuda_space> where_of(const Call& call) noexcept {
  return {cuda_space::from_native(call.stream), call.site};
}

/// For what is done on the way out: a first failure is on its way to the caller.
template <class Action>
void ignoring_errors(Action action) noexcept {
  try {
    action();
  } catch (const error&) {
  }
}

class cuda_thread_streams {
 public:
  cuda_thread_streams(cuda_thread_device& own, const cuda_thread_options& options) : own_(own), options_(options) {}

  cuda_thread_device& own() const noexcept { return own_; }
  cuda_thread_device& peer(int rank) const noexcept { return *peers_[static_cast<std::size_t>(rank)]; }
  const cuda_thread_options& options() const noexcept { return options_; }
  /// Whether kernels of this rank reach the peer's memory.
  bool reaches(int rank) const noexcept { return reached_[static_cast<std::size_t>(rank)] != 0; }
  bool reaches_all() const noexcept { return std::find(reached_.begin(), reached_.end(), 0) == reached_.end(); }
  /// Device memory for what kernels do not reach; empty where they reach everything.
  buffer<unsigned char, cuda_space>& workspace() noexcept { return workspace_; }

  /// Once, before the first call, with what each rank shows.
  void meet(const std::vector<cuda_thread_device*>& all) {
    const cuda_device_guard device(own().number);
    peers_ = all;
    for (const cuda_thread_device* one : all) reached_.push_back(can_reach(one->number) ? 1 : 0);
    if (!reaches_all()) workspace_ = buffer<unsigned char, cuda_space>(options_.workspace_bytes);
  }

  /// The number of the capture that the stream is in; 0 where it is in none.
  static std::uint64_t capture_of(at<cuda_space> where) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    unsigned long long number = 0;
    cuda_check(cudaStreamGetCaptureInfo(where.stream.handle, &status, &number), "cudaStreamGetCaptureInfo",
               where.stream.handle, where.site);
    return status == cudaStreamCaptureStatusNone ? 0 : number;
  }

  // Calls of one communicator take effect in program order, whatever their streams. Handles do not tell streams apart:
  // cudaStreamPerThread is another one on each thread.
  void begin(at<cuda_space> where, std::uint64_t capture) const {
    if (any_ && capture == last_capture_) end_.order_before(where);
  }
  void end(at<cuda_space> where, std::uint64_t capture) {
    end_.record(where);
    any_ = true;
    last_capture_ = capture;
  }

  /// action() on this rank's device. What it throws fails the launch, and this rank's part in the call has ended.
  template <class Action>
  auto on_device(thread_meeting& meeting, Action action) {
    return on_device(meeting, action, [] {});
  }
  /// The same; `salvage()` comes before peers learn that this rank has given up.
  template <class Action, class Salvage>
  auto on_device(thread_meeting& meeting, Action action, Salvage salvage) {
    try {
      const cuda_device_guard device(own().number);
      return action();
    } catch (const std::exception& failure) {
      salvage();
      const auto* const ours = dynamic_cast<const error*>(&failure);
      meeting.raise(meeting.rank(), ours != nullptr ? ours->message() : failure.what());
      meeting.withdraw();
      throw;
    }
  }

  /// A call that meets the peers on the host can be part of a graph only where its peers' calls are part of the same.
  static void require_one_capture(const thread_meeting& meeting, std::uint64_t mine, int rank, std::uint64_t theirs) {
    if (mine == theirs) return;
    const auto state = [&](int of, std::uint64_t capture, std::uint64_t other) {
      return "rank " + std::to_string(meeting.room().launch_rank(of)) + "'s stream is " +
             (capture == 0 ? "not captured"
              : other == 0 ? "captured into a graph"
                           : "captured into a graph of its own");
    };
    throw unsupported_error(
        state(meeting.rank(), mine, theirs) + ", and " + state(rank, theirs, mine) +
        ": thread ranks meet on the host, so their calls are captured together or not at all. Begin one capture, let "
        "the streams of all ranks join it by an event, and end it when they have come together again; or make the "
        "call outside the capture");
  }

 private:
  bool can_reach(int device) const {
    if (device == own().number) return true;
    int possible = 0;
    cuda_check(cudaDeviceCanAccessPeer(&possible, own().number, device), "cudaDeviceCanAccessPeer");
    if (possible == 0) return false;
    const cudaError_t code = cudaDeviceEnablePeerAccess(device, 0);
    if (code == cudaErrorPeerAccessAlreadyEnabled) (void)cudaGetLastError();
    else cuda_check(code, "cudaDeviceEnablePeerAccess");
    return true;
  }

  cuda_thread_device& own_;  // this and those of the peers are kept by the room
  cuda_thread_options options_;
  std::vector<cuda_thread_device*> peers_;
  std::vector<char> reached_;
  buffer<unsigned char, cuda_space> workspace_;
  cuda_event end_;  // of the last call
  bool any_ = false;
  std::uint64_t last_capture_ = 0;
};

}  // namespace shardkit::detail
