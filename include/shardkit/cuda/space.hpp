// cuda_space: the memory of a GPU. Plain C++ with the CUDA runtime's headers; only cuda/kernels.cuh needs nvcc.
//
// The types in here borrow: a stream, an event is the user's handle, which is never destroyed. Those that own are
// cuda_stream and cuda_event. A call runs on the calling thread's current device, to which its stream belongs.
#pragma once

#include <shardkit/core/at.hpp>
#include <shardkit/cuda/error.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace shardkit {

class cuda_event_pool;

/// Device memory. Copies and fills are enqueued on the given stream and are complete when the stream has reached
/// them; nothing here waits, and all of it can be captured into a graph.
struct cuda_space {
  /// A stream of the user's: a cudaStream_t converts to it. Null is CUDA's default stream.
  struct stream {
    cudaStream_t handle = nullptr;  ///< CUDA's own; belongs to the user

    constexpr stream(cudaStream_t of = nullptr) noexcept : handle(of) {}

    /// Whether what is enqueued now becomes part of a graph instead of running.
    bool is_captured(const call_site& site = call_site::current()) const {
      cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
      cuda_check(cudaStreamIsCapturing(handle, &status), "cudaStreamIsCapturing", handle, site);
      return status != cudaStreamCaptureStatusNone;
    }
  };

  /// The streams of a call that is started without waiting: it runs on `communication`, after what `compute` holds
  /// when it is started; waiting for its request makes `compute` wait, not the host:
  ///
  ///     auto pending = comm.all_reduce_async(in_place(x), sum, fork{compute, communication});
  struct fork {
    stream compute;        ///< makes what the call reads, and waits for its result
    stream communication;  ///< the call runs here
  };
  using event_pool = cuda_event_pool;  ///< where forks get the events that order their streams

  /// For messages.
  static constexpr const char* name = "cuda";
  /// Alignment of every allocation, as CUDA promises it.
  static constexpr std::size_t alignment = 256;

  /// The handle that a call descriptor carries: the cudaStream_t.
  static void* native(stream on) noexcept { return on.handle; }
  /// The stream that a descriptor's handle stands for.
  static stream from_native(void* handle) noexcept { return static_cast<cudaStream_t>(handle); }

  /// Memory of the current device. CUDA may wait for the device here; not for use during capture.
  static void* allocate(std::size_t bytes, const call_site& site = call_site::current()) {
    void* memory = nullptr;
    cuda_check(cudaMalloc(&memory, bytes), "cudaMalloc", site);
    return memory;
  }
  /// Frees what `allocate` gave. CUDA may wait for the device here; not for use during capture.
  static void deallocate(void* memory) noexcept { detail::report_cuda_error(cudaFree(memory), "cudaFree"); }

  /// Copies `bytes`; the ranges may not overlap unless they are the same. CUDA tells from the pointers where each
  /// lies: this device, a peer, or host memory.
  static void copy(void* to, const void* from, std::size_t bytes, at<cuda_space> where = {}) {
    if (bytes == 0 || to == from) return;
    const cudaStream_t on = where.stream.handle;
    cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, on), "cudaMemcpyAsync", on, where.site);
  }

  /// Copies `rows` rows of `row_bytes`, each row `to_stride` and `from_stride` bytes after the one before it.
  static void copy_2d(void* to, std::size_t to_stride, const void* from, std::size_t from_stride, std::size_t row_bytes,
                      std::size_t rows, at<cuda_space> where = {}) {
    if (rows <= 1 || (to_stride == row_bytes && from_stride == row_bytes))
      return copy(to, from, row_bytes * rows, where);
    if (row_bytes == 0 || (to == from && to_stride == from_stride)) return;
    if (to_stride > longest_pitch || from_stride > longest_pitch) {
      for (std::size_t row = 0; row < rows; ++row)
        copy(static_cast<char*>(to) + row * to_stride, static_cast<const char*>(from) + row * from_stride, row_bytes,
             where);
      return;
    }
    const cudaStream_t on = where.stream.handle;
    cuda_check(cudaMemcpy2DAsync(to, to_stride, from, from_stride, row_bytes, rows, cudaMemcpyDefault, on),
               "cudaMemcpy2DAsync", on, where.site);
  }

  /// Sets each of `bytes` bytes to `value`.
  static void fill_bytes(void* to, int value, std::size_t bytes, at<cuda_space> where = {}) {
    if (bytes == 0) return;
    const cudaStream_t on = where.stream.handle;
    cuda_check(cudaMemsetAsync(to, value, bytes, on), "cudaMemsetAsync", on, where.site);
  }

  /// The same for `rows` rows of `row_bytes`, each `stride` bytes after the one before it.
  static void fill_2d(void* to, std::size_t stride, int value, std::size_t row_bytes, std::size_t rows,
                      at<cuda_space> where = {}) {
    if (rows <= 1 || stride == row_bytes) return fill_bytes(to, value, row_bytes * rows, where);
    if (row_bytes == 0) return;
    if (stride > longest_pitch) {
      for (std::size_t row = 0; row < rows; ++row)
        fill_bytes(static_cast<char*>(to) + row * stride, value, row_bytes, where);
      return;
    }
    const cudaStream_t on = where.stream.handle;
    cuda_check(cudaMemset2DAsync(to, stride, value, row_bytes, rows, on), "cudaMemset2DAsync", on, where.site);
  }

 private:
  /// cudaDeviceProp::memPitch of every device: 2-D copies take no rows further apart.
  static constexpr std::size_t longest_pitch = 0x7fffffff;
};

}  // namespace shardkit
