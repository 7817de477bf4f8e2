// Host memory that GPUs reach by themselves: the host's end of asynchronous copies.
#pragma once

#include <shardkit/cuda/space.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace shardkit {

/// Page-locked host memory, for all devices. A view of it is a host view and a CUDA view, too: the host reads and
/// writes it directly, copies from and to it run beside the host, and kernels reach it over the bus. Copies and fills
/// run on streams as those of device memory do; the order between host and streams is the caller's business.
struct pinned_space : cuda_space {
  using also = spaces<host_space, cuda_space>;  ///< as which its views pass, too

  /// For messages.
  static constexpr const char* name = "pinned";

  /// Slow, as locking pages is: for buffers that are kept.
  static void* allocate(std::size_t bytes, const call_site& site = call_site::current()) {
    void* memory = nullptr;
    cuda_check(cudaMallocHost(&memory, bytes), "cudaMallocHost", site);
    return memory;
  }
  /// Frees what `allocate` gave.
  static void deallocate(void* memory) noexcept { detail::report_cuda_error(cudaFreeHost(memory), "cudaFreeHost"); }
};

}  // namespace shardkit
