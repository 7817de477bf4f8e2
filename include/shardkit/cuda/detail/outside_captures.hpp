// Asking whether work is done, while some thread captures a stream into a graph.
#pragma once

#include <shardkit/cuda/error.hpp>

#include <cuda_runtime_api.h>

namespace shardkit::detail {

/// While it lives, the calling thread may ask streams and events that belong to no capture. Otherwise CUDA refuses that
/// while this thread captures, or any thread does in the default mode, and breaks the capture.
class outside_captures {
 public:
  outside_captures() noexcept { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }
  outside_captures(const outside_captures&) = delete;
  outside_captures& operator=(const outside_captures&) = delete;
  ~outside_captures() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // or what was before
};

}  // namespace shardkit::detail
