// What can be asked of NCCL and of a communicator, and memory: allocated by NCCL, registered with it.
#include <double/nccl_communicator.hpp>

#include <set>

namespace shardkit_double::nccl {

namespace {

std::set<void*>& memory() {
  static auto* all = new std::set<void*>;
  return *all;
}

struct forget_at_reset {
  forget_at_reset() {
    at_reset([] { memory().clear(); });
  }
};
const forget_at_reset registered;

}  // namespace

}  // namespace shardkit_double::nccl

using namespace shardkit_double;
using namespace shardkit_double::nccl;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  const entry call("ncclGetVersion");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (version == nullptr) return refuse(ncclInvalidArgument, "ncclGetVersion: null");
  *version = current_settings().version;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr const char* texts[] = {"no error",
                                   "unhandled cuda error",
                                   "unhandled system error",
                                   "internal error",
                                   "invalid argument",
                                   "invalid usage",
                                   "remote process exited or network error",
                                   "NCCL operation in progress"};
  return result >= 0 && result < ncclNumResults ? texts[result] : "unknown result code";
}

const char* ncclGetLastError(ncclComm_t) { return why_refused(); }

ncclResult_t ncclCommCount(const ncclComm_t handle, int* size) {
  const entry call("ncclCommCount");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  const ncclComm* comm = ready(handle, "ncclCommCount", result);
  if (comm == nullptr) return result;
  if (size == nullptr) return refuse(ncclInvalidArgument, "ncclCommCount: null");
  *size = comm->size;
  return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t handle, int* device) {
  const entry call("ncclCommCuDevice");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  const ncclComm* comm = ready(handle, "ncclCommCuDevice", result);
  if (comm == nullptr) return result;
  if (device == nullptr) return refuse(ncclInvalidArgument, "ncclCommCuDevice: null");
  *device = comm->device;
  return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t handle, int* rank) {
  const entry call("ncclCommUserRank");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  const ncclComm* comm = ready(handle, "ncclCommUserRank", result);
  if (comm == nullptr) return result;
  if (rank == nullptr) return refuse(ncclInvalidArgument, "ncclCommUserRank: null");
  *rank = comm->rank;
  return ncclSuccess;
}

ncclResult_t ncclCommRegister(const ncclComm_t handle, void* memory_of_user, size_t bytes, void** registered_handle) {
  const entry call("ncclCommRegister");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = ready(handle, "ncclCommRegister", result);
  if (comm == nullptr) return result;
  if (registered_handle == nullptr) return refuse(ncclInvalidArgument, "ncclCommRegister: null");
  if (check_access(writes(memory_of_user, bytes), comm->device, "ncclCommRegister") != cudaSuccess) {
    return refuse(ncclInvalidArgument, "ncclCommRegister: not memory of the communicator's device");
  }
  static std::uintptr_t last = 0;
  *registered_handle = reinterpret_cast<void*>(last += 16);
  comm->registrations[*registered_handle] = {memory_of_user, bytes};
  return ncclSuccess;
}

ncclResult_t ncclCommDeregister(const ncclComm_t handle, void* registered_handle) {
  const entry call("ncclCommDeregister");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = alive(handle, "ncclCommDeregister", result);
  if (comm == nullptr) return result;
  if (registered_handle == nullptr) return ncclSuccess;
  const auto found = comm->registrations.find(registered_handle);
  if (found == comm->registrations.end()) {
    report_found(report_kind::bad_handle, "ncclCommDeregister of what is not registered with " + describe(*comm));
    return refuse(ncclInvalidUsage, "ncclCommDeregister: not registered");
  }
  if (storage(found->second.memory) == nullptr) {
    report_found(report_kind::use_after_free,
                 "memory registered with " + describe(*comm) + " was freed before ncclCommDeregister");
  }
  comm->registrations.erase(found);
  return ncclSuccess;
}

ncclResult_t ncclMemAlloc(void** allocated, size_t bytes) {
  const entry call("ncclMemAlloc");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (cudaMalloc(allocated, bytes) != cudaSuccess) return refuse(ncclUnhandledCudaError, "ncclMemAlloc: cudaMalloc");
  if (*allocated != nullptr) memory().insert(*allocated);
  return ncclSuccess;
}

ncclResult_t ncclMemFree(void* allocated) {
  const entry call("ncclMemFree");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (allocated != nullptr && memory().erase(allocated) == 0) {
    report_found(report_kind::bad_argument,
                 "ncclMemFree of what ncclMemAlloc did not give: " + shardkit_double::describe(allocated));
    return refuse(ncclInvalidArgument, "ncclMemFree: not from ncclMemAlloc");
  }
  return cudaFree(allocated) == cudaSuccess ? ncclSuccess : refuse(ncclUnhandledCudaError, "ncclMemFree: cudaFree");
}

}  // extern "C"
