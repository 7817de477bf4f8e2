// Devices, versions and error texts.
#include <double/state.hpp>

#include <cstdio>
#include <cstring>

namespace shardkit_double {
namespace {

constexpr int multiprocessors = 132;

bool known_device(int device) { return device >= 0 && device < all().device_count; }

cudaError_t unknown_device(const char* function, int device) {
  report_found(report_kind::wrong_device, std::string(function) + " of device " + std::to_string(device) + " of " +
                                              std::to_string(all().device_count));
  return cudaErrorInvalidDevice;
}

cudaError_t attribute(int* value, cudaDeviceAttr which, int device) {
  if (value == nullptr) return cudaErrorInvalidValue;
  if (!known_device(device)) return unknown_device("cudaDeviceGetAttribute", device);
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = 0x7fffffff; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = 65535; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 * 1024; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 228 * 1024; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = 32; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    case cudaDevAttrMultiProcessorCount: *value = multiprocessors; break;
    case cudaDevAttrMaxPitch: *value = 0x7fffffff; break;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; break;
    case cudaDevAttrAsyncEngineCount: *value = 3; break;
    case cudaDevAttrComputeCapabilityMajor: *value = all().compute_capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = all().compute_capability % 10; break;
    case cudaDevAttrPciBusId: *value = device + 1; break;
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId:
    case cudaDevAttrIntegrated:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrPageableMemoryAccessUsesHostPageTables:
    case cudaDevAttrHostRegisterReadOnlySupported:
    case cudaDevAttrMemoryPoolsSupported: *value = 0; break;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    default:
      report_found(report_kind::bad_argument, "cudaDeviceGetAttribute of " + std::to_string(static_cast<int>(which)) +
                                                  ", which the double does not know");
      return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

cudaError_t properties(cudaDeviceProp* out, int device) {
  if (out == nullptr) return cudaErrorInvalidValue;
  if (!known_device(device)) return unknown_device("cudaGetDeviceProperties", device);
  *out = {};
  std::snprintf(out->name, sizeof out->name, "shardkit CUDA double, device %d", device);
  out->uuid.bytes[0] = static_cast<char>(device + 1);
  out->totalGlobalMem = all().device_memory;
  out->sharedMemPerBlock = 48 * 1024;
  out->sharedMemPerBlockOptin = 227 * 1024;
  out->sharedMemPerMultiprocessor = 228 * 1024;
  out->regsPerBlock = out->regsPerMultiprocessor = 65536;
  out->warpSize = 32;
  out->memPitch = 0x7fffffff;
  out->maxThreadsPerBlock = 1024;
  out->maxThreadsPerMultiProcessor = 2048;
  out->maxBlocksPerMultiProcessor = 32;
  out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
  out->maxThreadsDim[2] = 64;
  out->maxGridSize[0] = 0x7fffffff;
  out->maxGridSize[1] = out->maxGridSize[2] = 65535;
  out->major = all().compute_capability / 10;
  out->minor = all().compute_capability % 10;
  out->multiProcessorCount = multiprocessors;
  out->l2CacheSize = 50 << 20;
  out->textureAlignment = 512;
  out->asyncEngineCount = 3;
  out->pciBusID = device + 1;
  out->concurrentKernels = out->unifiedAddressing = out->managedMemory = out->concurrentManagedAccess = 1;
  out->canMapHostMemory = out->hostRegisterSupported = out->canUseHostPointerForRegisteredMem = 1;
  out->streamPrioritiesSupported = out->cooperativeLaunch = 1;
  return cudaSuccess;
}

bool peers(int from, int to) { return from != to && all().peers_impossible.count({from, to}) == 0; }

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  entry call("cudaGetDeviceCount");
  if (call.injected()) return remember(static_cast<cudaError_t>(call.code()));
  if (count == nullptr) return remember(cudaErrorInvalidValue);
  if (all().driver_missing) return remember(cudaErrorInsufficientDriver);
  *count = all().device_count;
  return remember(*count == 0 ? cudaErrorNoDevice : cudaSuccess);
}

cudaError_t cudaGetDevice(int* device) {
  return api_of_all_devices("cudaGetDevice", [&] {
    if (device == nullptr) return cudaErrorInvalidValue;
    *device = this_thread().device;
    return cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  return api_of_all_devices("cudaSetDevice", [&] {
    if (!known_device(device)) return unknown_device("cudaSetDevice", device);
    this_thread().device = device;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
  return api_of_all_devices("cudaDeviceGetAttribute", [&] { return attribute(value, which, device); });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  return api_of_all_devices("cudaGetDeviceProperties", [&] { return properties(out, device); });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  return api_of_all_devices("cudaDeviceGetPCIBusId", [&] {
    if (!known_device(device)) return unknown_device("cudaDeviceGetPCIBusId", device);
    if (text == nullptr || length < 13) return cudaErrorInvalidValue;
    std::snprintf(text, static_cast<std::size_t>(length), "0000:%02x:00.0", device + 1);
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return api("cudaDeviceGetStreamPriorityRange", [&] {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceCanAccessPeer(int* possible, int device, int peer) {
  return api_of_all_devices("cudaDeviceCanAccessPeer", [&] {
    if (possible == nullptr) return cudaErrorInvalidValue;
    if (!known_device(device)) return unknown_device("cudaDeviceCanAccessPeer", device);
    if (!known_device(peer)) return unknown_device("cudaDeviceCanAccessPeer", peer);
    *possible = peers(device, peer) ? 1 : 0;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  return api("cudaDeviceEnablePeerAccess", [&] {
    if (!known_device(peer)) return unknown_device("cudaDeviceEnablePeerAccess", peer);
    if (flags != 0) return cudaErrorInvalidValue;
    if (!peers(this_thread().device, peer)) return cudaErrorPeerAccessUnsupported;
    const bool added = device_state(this_thread().device).peers_enabled.insert(peer).second;
    return added ? cudaSuccess : cudaErrorPeerAccessAlreadyEnabled;
  });
}

cudaError_t cudaDeviceDisablePeerAccess(int peer) {
  return api("cudaDeviceDisablePeerAccess", [&] {
    const bool erased = device_state(this_thread().device).peers_enabled.erase(peer) != 0;
    return erased ? cudaSuccess : cudaErrorPeerAccessNotEnabled;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  entry call("cudaDriverGetVersion");
  if (call.injected()) return remember(static_cast<cudaError_t>(call.code()));
  if (version == nullptr) return remember(cudaErrorInvalidValue);
  *version = all().driver_missing ? 0 : CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  entry call("cudaRuntimeGetVersion");
  if (call.injected()) return remember(static_cast<cudaError_t>(call.code()));
  if (version == nullptr) return remember(cudaErrorInvalidValue);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  entry call("cudaGetLastError");
  if (call.injected()) return static_cast<cudaError_t>(call.code());
  thread_state& t = this_thread();
  const cudaError_t last = t.last_error;
  t.last_error = cudaSuccess;
  // What a kernel has broken stays broken.
  const int sticky = device_state(t.device).error;
  return sticky != 0 ? static_cast<cudaError_t>(sticky) : last;
}
cudaError_t cudaPeekAtLastError() {
  entry call("cudaPeekAtLastError");
  if (call.injected()) return static_cast<cudaError_t>(call.code());
  const int sticky = device_state(this_thread().device).error;
  return sticky != 0 ? static_cast<cudaError_t>(sticky) : this_thread().last_error;
}

#define SHARDKIT_DOUBLE_ERRORS(X)                                                                                   \
  X(cudaSuccess, "no error")                                                                                        \
  X(cudaErrorInvalidValue, "invalid argument")                                                                      \
  X(cudaErrorMemoryAllocation, "out of memory")                                                                     \
  X(cudaErrorInitializationError, "initialization error")                                                           \
  X(cudaErrorCudartUnloading, "driver shutting down")                                                               \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                                \
  X(cudaErrorInvalidPitchValue, "invalid pitch argument")                                                           \
  X(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy")                                           \
  X(cudaErrorInsufficientDriver, "CUDA driver version is insufficient")                                             \
  X(cudaErrorMissingConfiguration, "__global__ function call is not configured")                                    \
  X(cudaErrorInvalidDeviceFunction, "invalid device function")                                                      \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                                        \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                                               \
  X(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered")                                               \
  X(cudaErrorPeerAccessUnsupported, "peer access is not supported")                                                 \
  X(cudaErrorNvlinkUncorrectable, "uncorrectable NVLink error detected")                                            \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                      \
  X(cudaErrorIllegalState, "the operation cannot be performed in the present state")                                \
  X(cudaErrorNotReady, "device not ready")                                                                          \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                                            \
  X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                                       \
  X(cudaErrorLaunchTimeout, "the launch timed out and was terminated")                                              \
  X(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled")                                            \
  X(cudaErrorPeerAccessNotEnabled, "peer access has not been enabled")                                              \
  X(cudaErrorAssert, "device-side assert triggered")                                                                \
  X(cudaErrorHostMemoryAlreadyRegistered, "host memory is already registered")                                      \
  X(cudaErrorHostMemoryNotRegistered, "host memory is not registered")                                              \
  X(cudaErrorMisalignedAddress, "misaligned address")                                                               \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                                                           \
  X(cudaErrorNotPermitted, "operation not permitted")                                                               \
  X(cudaErrorNotSupported, "operation not supported")                                                               \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                          \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")                   \
  X(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences")                 \
  X(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began")                        \
  X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                                           \
  X(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream")                     \
  X(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream") \
  X(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream")              \
  X(cudaErrorStreamCaptureWrongThread, "capture was ended by another thread than began it")                         \
  X(cudaErrorTimeout, "wait operation timed out")                                                                   \
  X(cudaErrorUnknown, "unknown error")

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define SHARDKIT_DOUBLE_NAME(code, text) \
  case code: return #code;
    SHARDKIT_DOUBLE_ERRORS(SHARDKIT_DOUBLE_NAME)
#undef SHARDKIT_DOUBLE_NAME
    default: return "unrecognized error code";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define SHARDKIT_DOUBLE_TEXT(code, text) \
  case code: return text;
    SHARDKIT_DOUBLE_ERRORS(SHARDKIT_DOUBLE_TEXT)
#undef SHARDKIT_DOUBLE_TEXT
    default: return "unrecognized error code";
  }
}

}  // extern "C"
}  // namespace shardkit_double
