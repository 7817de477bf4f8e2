// Kernels, which do not run here: registered stand-ins answer for them. Host functions, which do.
#include <double/state.hpp>

#include <cxxabi.h>

#include <cstdlib>
#include <exception>

namespace shardkit_double {
namespace {

std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  if (result.rfind("void ", 0) == 0) result.erase(0, 5);
  return result;
}

/// "ns::scale" of "ns::scale<float>(float*, float, int)".
std::string base_name(const std::string& kernel) {
  const std::string unnamed = "(anonymous namespace)";
  for (std::size_t at = 0; at < kernel.size(); ++at) {
    if (kernel.compare(at, unnamed.size(), unnamed) == 0) at += unnamed.size() - 1;
    else if (kernel[at] == '<' || kernel[at] == '(') return kernel.substr(0, at);
  }
  return kernel;
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes,
                   cudaStream_t stream) {
  const auto known = all().kernels.find(function);
  if (known == all().kernels.end()) {
    report_found(report_kind::bad_handle, "cudaLaunchKernel of a function that is no kernel");
    return cudaErrorInvalidDeviceFunction;
  }
  const std::string& name = known->second;
  constexpr unsigned most_threads = 1024, most_y = 65535;
  constexpr std::size_t most_shared = 227 * 1024;
  const bool fits = grid.x != 0 && grid.y != 0 && grid.z != 0 && block.x != 0 && block.y != 0 && block.z != 0 &&
                    grid.x <= 0x7fffffffu && grid.y <= most_y && grid.z <= most_y && block.z <= 64 &&
                    std::uint64_t{block.x} * block.y * block.z <= most_threads && shared_bytes <= most_shared;
  if (!fits) {
    report_found(report_kind::bad_argument,
                 "launch of " + name + " with grid " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " +
                     std::to_string(grid.z) + ", block " + std::to_string(block.x) + " x " + std::to_string(block.y) +
                     " x " + std::to_string(block.z) + " and " + std::to_string(shared_bytes) + " shared bytes");
    return cudaErrorInvalidConfiguration;
  }
  const auto answers = all().stand_ins.find(base_name(name));
  if (answers == all().stand_ins.end()) {
    report_found(report_kind::bad_argument,
                 "launch of " + name + ", for which set_stand_in(\"" + base_name(name) + "\", ...) was not called");
    return cudaErrorInvalidDeviceFunction;
  }
  operation op;
  try {
    op = answers->second({name, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes, arguments});
  } catch (const std::exception& refusal) {
    report_found(report_kind::bad_argument, "launch of " + name + ": " + refusal.what());
    return cudaErrorInvalidValue;
  }
  if (op.name.empty()) op.name = base_name(name);
  return enqueue(stream, std::move(op));
}

}  // namespace

extern "C" {

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                             cudaStream_t stream) {
  return api("cudaLaunchKernel", [&] { return launch(function, grid, block, arguments, shared_bytes, stream); });
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  return api("cudaLaunchKernelExC", [&] {
    if (config == nullptr) return cudaErrorInvalidValue;
    if (config->numAttrs != 0) {
      report_found(report_kind::bad_argument, "cudaLaunchKernelExC with attributes, which the double does not know");
      return cudaErrorNotSupported;
    }
    return launch(function, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes, config->stream);
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return api("cudaLaunchHostFunc", [&] {
    if (function == nullptr) return cudaErrorInvalidValue;
    operation op;
    op.name = "cudaLaunchHostFunc";
    op.kind = node_kind::host;
    op.run = [function, data] {
      run_outside(all().running, [function, data] { function(data); });
      return progress::not_yet;
    };
    return enqueue(stream, std::move(op));
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return api("cudaFuncGetAttributes", [&] {
    if (attributes == nullptr) return cudaErrorInvalidValue;
    if (all().kernels.count(function) == 0) return cudaErrorInvalidDeviceFunction;
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = 90;
    attributes->maxDynamicSharedSizeBytes = 48 * 1024;
    return cudaSuccess;
  });
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute, int) {
  return api("cudaFuncSetAttribute",
             [&] { return all().kernels.count(function) == 0 ? cudaErrorInvalidDeviceFunction : cudaSuccess; });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function, int block_size,
                                                                   size_t, unsigned) {
  return api("cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", [&] {
    if (blocks == nullptr || block_size <= 0 || block_size > 1024) return cudaErrorInvalidValue;
    if (all().kernels.count(function) == 0) return cudaErrorInvalidDeviceFunction;
    *blocks = 2048 / block_size;
    return cudaSuccess;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int block_size,
                                                          size_t shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, block_size, shared_bytes, 0);
}

// What the host code of nvcc calls, before main and at each launch.

void** __cudaRegisterFatBinary(void*) {
  static void* nothing = nullptr;
  return &nothing;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  under_lock guard;
  all().kernels[stub] = demangled(name);
}

void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, CUstream_st* stream) {
  under_lock guard;
  this_thread().launches.push_back({grid, block, shared_bytes, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  under_lock guard;
  thread_state& t = this_thread();
  if (t.launches.empty()) return cudaErrorMissingConfiguration;
  const launch_configuration& last = t.launches.back();
  *grid = last.grid;
  *block = last.block;
  *shared_bytes = last.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  t.launches.pop_back();
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                               cudaStream_t stream) {
  return api("cudaLaunchKernel", [&] { return launch(kernel, grid, block, arguments, shared_bytes, stream); });
}

}  // extern "C"
}  // namespace shardkit_double
