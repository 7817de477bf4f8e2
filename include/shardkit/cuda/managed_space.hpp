// Memory whose pages move between host and GPUs as they are touched.
#pragma once

#include <shardkit/cuda/space.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>

namespace shardkit {

/// Unified memory, for all devices. A view of it is a host view and a CUDA view, too. Copies and fills run on streams
/// as those of device memory do; the order between host and streams is the caller's business, and on GPUs without
/// concurrent managed access the host may not touch it at all while a kernel runs.
struct managed_space : cuda_space {
  using also = spaces<host_space, cuda_space>;  ///< as which its views pass, too

  /// For messages.
  static constexpr const char* name = "managed";

  /// Memory that the host and all devices reach.
  static void* allocate(std::size_t bytes, const call_site& site = call_site::current()) {
    void* memory = nullptr;
    cuda_check(cudaMallocManaged(&memory, bytes, cudaMemAttachGlobal), "cudaMallocManaged", site);
    return memory;
  }
  /// Frees what `allocate` gave.
  static void deallocate(void* memory) noexcept { detail::report_cuda_error(cudaFree(memory), "cudaFree"); }
};

}  // namespace shardkit
