// How communicators end: finalize, destroy, abort, revoke; and the state that is polled.
#include <double/nccl_group.hpp>

#include <algorithm>

namespace shardkit_double::nccl {

namespace {

job waiting_for_its_operations(ncclComm& comm) {
  job j;
  j.comm = &comm;
  j.begin = [] {};
  j.finished = [&comm] { return comm.queue.empty(); };
  j.end = [] { return ncclSuccess; };
  return j;
}

// An abort stops what shares its resources, too.
void stop(ncclComm& comm) {
  const ncclComm* owner = comm.shares_with != nullptr ? comm.shares_with : &comm;
  for (ncclComm* other : live()) {
    if (other == &comm || other == owner || other->shares_with == owner) drop(*other);
  }
}

bool in_a_living_graph(const ncclComm& comm) {
  return std::any_of(comm.captured.begin(), comm.captured.end(), [](const auto& plan) { return !plan.expired(); });
}

}  // namespace

}  // namespace shardkit_double::nccl

using namespace shardkit_double;
using namespace shardkit_double::nccl;

extern "C" {

ncclResult_t ncclCommFinalize(ncclComm_t handle) {
  const entry call("ncclCommFinalize");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (handle == nullptr) return ncclSuccess;
  return in_group([&]() -> ncclResult_t {
    ncclResult_t result = ncclSuccess;
    ncclComm* comm = ready(handle, "ncclCommFinalize", result);
    if (comm == nullptr) return result;
    if (comm->finalized || comm->revoked) return refuse(ncclInvalidArgument, "ncclCommFinalize: finalized or revoked");
    comm->finalized = true;
    return add(waiting_for_its_operations(*comm));
  });
}

ncclResult_t ncclCommDestroy(ncclComm_t handle) {
  const entry call("ncclCommDestroy");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (handle == nullptr) return ncclSuccess;
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = ready(handle, "ncclCommDestroy", result);
  if (comm == nullptr) return result;
  if (refuse_in_capture("ncclCommDestroy") != cudaSuccess) return refuse(ncclUnhandledCudaError, "stream capture");
  if (in_a_living_graph(*comm)) {
    report_found(report_kind::communicator, "ncclCommDestroy of " + describe(*comm) +
                                                " while a graph holds its operations; NCCL waits for the graph's end");
  }
  if (!wait_until([&] { return comm->queue.empty(); }, current_settings().patience)) {
    report_found(report_kind::communicator, "ncclCommDestroy of " + describe(*comm) + " waits forever for " +
                                                describe(*comm->queue.front()) + "; abort it instead");
    result = refuse(ncclSystemError, "ncclCommDestroy: operations never end");
  }
  if (comm->buried_by.empty()) bury(*comm, "ncclCommDestroy");
  return result;
}

ncclResult_t ncclCommAbort(ncclComm_t handle) {
  const entry call("ncclCommAbort");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (handle == nullptr) return ncclSuccess;
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = alive(handle, "ncclCommAbort", result);
  if (comm == nullptr) return result;
  stop(*comm);
  bury(*comm, "ncclCommAbort");
  wake();
  return ncclSuccess;
}

ncclResult_t ncclCommRevoke(ncclComm_t handle, int flags) {
  const entry call("ncclCommRevoke");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (handle == nullptr) return ncclSuccess;
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = alive(handle, "ncclCommRevoke", result);
  if (comm == nullptr) return result;
  if (flags != NCCL_REVOKE_DEFAULT || comm->finalized || comm->revoked) {
    return refuse(ncclInvalidArgument, "ncclCommRevoke: flags, or finalized or revoked before");
  }
  stop(*comm);
  comm->revoked = true;
  comm->held.reset();
  comm->state = ncclSuccess;
  if (comm->config.blocking != 0) return ncclSuccess;
  comm->state = ncclInProgress;
  comm->polls_to_go = 1;
  comm->not_before = clock::now();
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* error) {
  const entry call("ncclCommGetAsyncError");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = alive(handle, "ncclCommGetAsyncError", result);
  if (comm == nullptr) return result;
  if (error == nullptr) return refuse(ncclInvalidArgument, "ncclCommGetAsyncError: null");
  settle(*comm, true);
  *error = comm->state;
  return ncclSuccess;
}

}  // extern "C"
