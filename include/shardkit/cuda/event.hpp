// Events: how one stream waits for another without the host. Borrowed (cuda_event_view), owned (cuda_event), and a pool
// of them made in advance, so that a call on two streams creates none.
#pragma once

#include <shardkit/cuda/detail/outside_captures.hpp>
#include <shardkit/cuda/device.hpp>
#include <shardkit/cuda/space.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// An event of the user's. Recording and waiting can be captured; asking cannot.
struct cuda_event_view {
  cudaEvent_t handle = nullptr;  ///< CUDA's own; belongs to the user

  /// The event is reached when everything is done that the stream holds now.
  void record(at<cuda_space> on) const {
    cuda_check(cudaEventRecord(handle, on.stream.handle), "cudaEventRecord", on.stream.handle, on.site);
  }
  /// What is enqueued on the stream from now on runs after what was last recorded.
  void order_before(at<cuda_space> later) const {
    cuda_check(cudaStreamWaitEvent(later.stream.handle, handle, 0), "cudaStreamWaitEvent", later.stream.handle,
               later.site);
  }
  /// Whether what was last recorded is done. Throws the error of an earlier kernel or copy where there was one.
  bool reached(const call_site& site = call_site::current()) const {
    const detail::outside_captures asking;
    const cudaError_t code = cudaEventQuery(handle);
    if (code == cudaErrorNotReady) {
      (void)cudaGetLastError();  // not an error, but CUDA notes it as one
      return false;
    }
    cuda_check(code, "cudaEventQuery", site);
    return true;
  }
};

/// Owns an event of the device that was current when it was made; it measures no time. Move-only.
class cuda_event {
 public:
  explicit cuda_event(const call_site& site = call_site::current()) {
    cuda_check(cudaEventCreateWithFlags(&view_.handle, cudaEventDisableTiming), "cudaEventCreateWithFlags", site);
  }
  cuda_event(cuda_event&& other) noexcept : view_(std::exchange(other.view_, {})) {}
  cuda_event& operator=(cuda_event&& other) noexcept {
    std::swap(view_, other.view_);
    return *this;
  }
  ~cuda_event() {
    if (view_.handle != nullptr) detail::report_cuda_error(cudaEventDestroy(view_.handle), "cudaEventDestroy");
  }

  /// CUDA's own; it lives as long as this object.
  cudaEvent_t handle() const noexcept { return view_.handle; }
  operator cuda_event_view() const noexcept { return view_; }
  /// See cuda_event_view::record.
  void record(at<cuda_space> on) const { view_.record(on); }
  /// See cuda_event_view::order_before.
  void order_before(at<cuda_space> later) const { view_.order_before(later); }
  /// See cuda_event_view::reached.
  bool reached(const call_site& site = call_site::current()) const { return view_.reached(site); }

 private:
  cuda_event_view view_;
};

/// Events of one device, made in advance. Not for several threads at once.
class cuda_event_pool {
 public:
  using event = cuda_event_view;  ///< borrowed from the pool, which owns all of them

  /// `count` events of the current device.
  explicit cuda_event_pool(std::size_t count, const call_site& site = call_site::current())
      : device_(current_cuda_device(site)) {
    add(count, site);
  }
  cuda_event_pool(const cuda_event_pool&) = delete;
  cuda_event_pool& operator=(const cuda_event_pool&) = delete;

  /// An event that nobody else holds, for use on `on`. A pool that has run dry makes more, but not while the stream is
  /// being captured: a captured call creates nothing.
  event take(at<cuda_space> on) {
    if (idle_.empty()) {
      if (on.stream.is_captured(on.site))
        throw usage_error("all " + std::to_string(all_.size()) +
                          " events are in use, and none is made during capture: wait for requests of this communicator "
                          "earlier, or run the sequence once before it is captured");
      add(all_.empty() ? 1 : all_.size(), on.site);
    }
    const event taken = idle_.back();
    idle_.pop_back();
    return taken;
  }
  /// Lets others have what `take` gave.
  void give_back(event one) noexcept { idle_.push_back(one); }

  /// What is enqueued on `later` from now on runs after what `first` holds now.
  void order(cuda_space::stream first, at<cuda_space> later) {
    if (first.handle == later.stream.handle) return;
    const event mark = take({first, later.site});
    give_back(mark);  // a stream that waits has taken note: the event may be recorded anew
    mark.record({first, later.site});
    mark.order_before(later);
  }

 private:
  void add(std::size_t count, const call_site& site) {
    const cuda_device_guard there(device_, site);
    all_.reserve(all_.size() + count);
    idle_.reserve(all_.size() + count);  // room for all, so that giving back cannot fail
    for (std::size_t i = 0; i < count; ++i) {
      all_.emplace_back(site);
      idle_.push_back(all_.back());
    }
  }

  const int device_;
  std::vector<cuda_event> all_;
  std::vector<event> idle_;
};

}  // namespace shardkit
