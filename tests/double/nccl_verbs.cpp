// Collectives and messages: arguments are checked, and what they ask for joins the group of the thread.
#include <double/nccl_group.hpp>

#include <cstring>

namespace shardkit_double::nccl {

namespace {

struct span {
  const void* begin;
  std::size_t bytes;
};

// Two buffers of one call may be apart or stand as NCCL's in-place rule says, and in no other way.
bool apart(span a, span b) {
  const auto* first = static_cast<const std::byte*>(a.begin);
  const auto* second = static_cast<const std::byte*>(b.begin);
  return a.bytes == 0 || b.bytes == 0 || first + a.bytes <= second || second + b.bytes <= first;
}

const std::byte* block(const void* base, int index, std::size_t bytes) {
  return static_cast<const std::byte*>(base) + static_cast<std::size_t>(index) * bytes;
}

ncclResult_t bad_argument(const char* function, const ncclComm& comm, const std::string& why) {
  report_found(report_kind::bad_argument, std::string(function) + " on " + describe(comm) + ": " + why);
  return refuse(ncclInvalidArgument, std::string(function) + ": " + why);
}

struct arguments {
  const char* function;
  const void* send;
  void* recv;
  std::size_t count;
  ncclDataType_t type;
  ncclRedOp_t op;
  int root;
  ncclComm_t handle;
  cudaStream_t stream;
};

// The buffers that this rank has to pass.
struct needed {
  bool send = true;
  bool recv = true;
  bool in_place = false;  ///< they stand as the in-place rule of the verb says
  std::size_t send_bytes = 0;
  std::size_t recv_bytes = 0;
};

ncclResult_t check(const arguments& given, const needed& buffers, const ncclComm& comm) {
  if ((buffers.send && given.send == nullptr) || (buffers.recv && given.recv == nullptr)) {
    return bad_argument(given.function, comm, "a buffer is null");
  }
  const bool both = buffers.send && buffers.recv && !buffers.in_place;
  if (both && !apart({given.send, buffers.send_bytes}, {given.recv, buffers.recv_bytes})) {
    return bad_argument(given.function, comm, "send and receive buffer overlap, and not as in-place calls may");
  }
  return ncclSuccess;
}

bool known(const ncclComm& comm, ncclRedOp_t op) {
  if (op >= 0 && op < ncclNumOps) return true;
  const int made = static_cast<int>(op) - static_cast<int>(ncclNumOps);
  return made >= 0 && made < static_cast<int>(comm.operators.size()) &&
         comm.operators[static_cast<std::size_t>(made)].alive;
}

task task_of(const arguments& given, verb what, const ncclComm& comm) {
  task t;
  t.what = what;
  t.called = given.function;
  t.call = call_number();
  t.send = given.send;
  t.recv = given.recv;
  t.count = given.count;
  t.type = given.type;
  t.op = given.op;
  t.root = given.root;
  if (given.op >= ncclNumOps) {
    const made_operator& made = comm.operators[static_cast<std::size_t>(given.op - ncclNumOps)];
    t.scalar = made.scalar;
    t.scalar_on_device = made.scalar_on_device;
  }
  return t;
}

task message(const arguments& given, verb what, const void* buffer, int peer, const ncclComm& comm) {
  task t = task_of(given, what, comm);
  t.send = what == verb::send ? buffer : nullptr;
  t.recv = what == verb::recv ? const_cast<void*>(buffer) : nullptr;
  t.op = ncclSum;
  t.root = peer;
  return t;
}

// What a call comes to on this rank, with the check of its buffers.
using lowering = ncclResult_t (*)(const arguments&, const ncclComm&, std::vector<task>&);

template <verb What>
ncclResult_t lower_collective(const arguments& given, const ncclComm& comm, std::vector<task>& tasks) {
  const std::size_t bytes = given.count * bytes_of(given.type);
  const std::size_t all = bytes * static_cast<std::size_t>(comm.size);
  needed buffers{true, true, given.send == given.recv, bytes, bytes};
  if (What == verb::reduce) buffers.recv = comm.rank == given.root;
  if (What == verb::broadcast) buffers.send = comm.rank == given.root;
  if (What == verb::all_gather) {
    buffers.recv_bytes = all;
    buffers.in_place = given.send == block(given.recv, comm.rank, bytes);
  }
  if (What == verb::reduce_scatter) {
    buffers.send_bytes = all;
    buffers.in_place = given.recv == block(given.send, comm.rank, bytes);
  }
  if (const ncclResult_t result = check(given, buffers, comm); result != ncclSuccess) return result;
  tasks.push_back(task_of(given, What, comm));
  return ncclSuccess;
}

template <verb What>
ncclResult_t lower_message(const arguments& given, const ncclComm& comm, std::vector<task>& tasks) {
  const bool empty = given.count == 0;
  const needed buffers{What == verb::send && !empty, What == verb::recv && !empty};
  if (const ncclResult_t result = check(given, buffers, comm); result != ncclSuccess) return result;
  tasks.push_back(message(given, What, What == verb::send ? given.send : given.recv, given.root, comm));
  return ncclSuccess;
}

// The three that NCCL itself makes of sends and receives.
ncclResult_t lower_all_to_all(const arguments& given, const ncclComm& comm, std::vector<task>& tasks) {
  const std::size_t bytes = given.count * bytes_of(given.type);
  const std::size_t all = bytes * static_cast<std::size_t>(comm.size);
  if (const ncclResult_t result = check(given, {true, true, false, all, all}, comm); result != ncclSuccess) {
    return result;
  }
  for (int peer = 0; peer < comm.size; ++peer) {
    tasks.push_back(message(given, verb::send, block(given.send, peer, bytes), peer, comm));
    tasks.push_back(message(given, verb::recv, block(given.recv, peer, bytes), peer, comm));
  }
  return ncclSuccess;
}

ncclResult_t lower_gather(const arguments& given, const ncclComm& comm, std::vector<task>& tasks) {
  const std::size_t bytes = given.count * bytes_of(given.type);
  const bool root = comm.rank == given.root;
  const bool in_place = root && given.send == block(given.recv, given.root, bytes);
  const needed buffers{true, root, in_place, bytes, bytes * static_cast<std::size_t>(comm.size)};
  if (const ncclResult_t result = check(given, buffers, comm); result != ncclSuccess) return result;
  tasks.push_back(message(given, verb::send, given.send, given.root, comm));
  for (int peer = 0; root && peer < comm.size; ++peer) {
    tasks.push_back(message(given, verb::recv, block(given.recv, peer, bytes), peer, comm));
  }
  return ncclSuccess;
}

ncclResult_t lower_scatter(const arguments& given, const ncclComm& comm, std::vector<task>& tasks) {
  const std::size_t bytes = given.count * bytes_of(given.type);
  const bool root = comm.rank == given.root;
  const bool in_place = root && given.recv == block(given.send, given.root, bytes);
  const needed buffers{root, true, in_place, bytes * static_cast<std::size_t>(comm.size), bytes};
  if (const ncclResult_t result = check(given, buffers, comm); result != ncclSuccess) return result;
  for (int peer = 0; root && peer < comm.size; ++peer) {
    tasks.push_back(message(given, verb::send, block(given.send, peer, bytes), peer, comm));
  }
  tasks.push_back(message(given, verb::recv, given.recv, given.root, comm));
  return ncclSuccess;
}

// A rank by itself: NCCL copies at once, even in a group, and does nothing in place.
ncclResult_t call_alone(const arguments& given, ncclComm& comm) {
  if (given.send == given.recv && given.op < ncclNumOps) return ncclSuccess;
  auto plan = std::make_shared<launch_plan>();
  plan->comm = &comm;
  plan->streams.push_back(given.stream);
  plan->tasks.push_back(task_of(given, given.op < ncclNumOps ? verb::all_gather : verb::all_reduce, comm));
  return queue(plan);
}

ncclResult_t join_group(const arguments& given, bool is_message, lowering lower) {
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = ready(given.handle, given.function, result);
  if (comm == nullptr) return result;
  if (comm->revoked) return refuse(ncclInvalidUsage, std::string(given.function) + ": revoked");
  if (comm->finalized) {
    report_found(report_kind::communicator,
                 std::string(given.function) + " after ncclCommFinalize of " + describe(*comm));
    return refuse(ncclInvalidUsage, std::string(given.function) + ": finalized");
  }
  if (given.root < 0 || given.root >= comm->size) {
    return refuse(ncclInvalidArgument, std::string(given.function) + ": root or peer " + std::to_string(given.root) +
                                           " of " + std::to_string(comm->size));
  }
  if (bytes_of(given.type) == 0) return refuse(ncclInvalidArgument, std::string(given.function) + ": type");
  if (!known(*comm, given.op)) return refuse(ncclInvalidArgument, std::string(given.function) + ": operator");
  if (given.op >= ncclNumOps && comm->operators[static_cast<std::size_t>(given.op - ncclNumOps)].type != given.type) {
    return refuse(ncclInvalidArgument, std::string(given.function) + ": the operator is made for another type");
  }
  // NCCL drops empty collectives on the spot: ranks do not even meet. Empty messages do.
  if (given.count == 0 && !is_message) return ncclSuccess;
  std::vector<task> tasks;
  if (const ncclResult_t checked = lower(given, *comm, tasks); checked != ncclSuccess) return checked;
  if (comm->size == 1 && !is_message) return call_alone(given, *comm);
  return add(*comm, given.stream, std::move(tasks));
}

ncclResult_t call_verb(const arguments& given, bool is_message, lowering lower) {
  return in_group([&] {
    const ncclResult_t result = join_group(given, is_message, lower);
    if (result != ncclSuccess) stay_failed(given.handle, result);
    return result;
  });
}

}  // namespace

}  // namespace shardkit_double::nccl

using namespace shardkit_double;
using namespace shardkit_double::nccl;

// Every verb: a fault that is to happen here, or the call.
#define SHARDKIT_DOUBLE_VERB(name, is_message, lower, ...) \
  const entry call(#name);                                 \
  if (call.injected()) {                                   \
    fail_group(static_cast<ncclResult_t>(call.code()));    \
    return static_cast<ncclResult_t>(call.code());         \
  }                                                        \
  return call_verb({#name, __VA_ARGS__}, is_message, lower)

extern "C" {

ncclResult_t ncclAllReduce(const void* send, void* recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclAllReduce, false, lower_collective<verb::all_reduce>, send, recv, count, type, op, 0, comm,
                       stream);
}

ncclResult_t ncclReduce(const void* send, void* recv, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclReduce, false, lower_collective<verb::reduce>, send, recv, count, type, op, root, comm,
                       stream);
}

ncclResult_t ncclReduceScatter(const void* send, void* recv, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclReduceScatter, false, lower_collective<verb::reduce_scatter>, send, recv, count, type, op, 0,
                       comm, stream);
}

ncclResult_t ncclBroadcast(const void* send, void* recv, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclBroadcast, false, lower_collective<verb::broadcast>, send, recv, count, type, ncclSum, root,
                       comm, stream);
}

ncclResult_t ncclBcast(void* buffer, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclBcast, false, lower_collective<verb::broadcast>, buffer, buffer, count, type, ncclSum, root,
                       comm, stream);
}

ncclResult_t ncclAllGather(const void* send, void* recv, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclAllGather, false, lower_collective<verb::all_gather>, send, recv, count, type, ncclSum, 0,
                       comm, stream);
}

ncclResult_t ncclAlltoAll(const void* send, void* recv, size_t count, ncclDataType_t type, ncclComm_t comm,
                          cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclAlltoAll, false, lower_all_to_all, send, recv, count, type, ncclSum, 0, comm, stream);
}

ncclResult_t ncclGather(const void* send, void* recv, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                        cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclGather, false, lower_gather, send, recv, count, type, ncclSum, root, comm, stream);
}

ncclResult_t ncclScatter(const void* send, void* recv, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                         cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclScatter, false, lower_scatter, send, recv, count, type, ncclSum, root, comm, stream);
}

ncclResult_t ncclSend(const void* buffer, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclSend, true, lower_message<verb::send>, buffer, nullptr, count, type, ncclSum, peer, comm,
                       stream);
}

ncclResult_t ncclRecv(void* buffer, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  SHARDKIT_DOUBLE_VERB(ncclRecv, true, lower_message<verb::recv>, nullptr, buffer, count, type, ncclSum, peer, comm,
                       stream);
}

ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t* op, void* scalar, ncclDataType_t type,
                                      ncclScalarResidence_t residence, ncclComm_t handle) {
  const entry call("ncclRedOpCreatePreMulSum");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = ready(handle, "ncclRedOpCreatePreMulSum", result);
  if (comm == nullptr) return result;
  if (op == nullptr || scalar == nullptr || bytes_of(type) == 0) {
    return bad_argument("ncclRedOpCreatePreMulSum", *comm, "a null pointer, or an unknown type");
  }
  made_operator made;
  made.type = type;
  made.alive = true;
  if (residence == ncclScalarDevice) {
    made.scalar_on_device = scalar;
  } else {
    made.scalar.resize(bytes_of(type));
    std::memcpy(made.scalar.data(), scalar, made.scalar.size());
  }
  comm->operators.push_back(made);
  *op = static_cast<ncclRedOp_t>(static_cast<int>(ncclNumOps) + static_cast<int>(comm->operators.size()) - 1);
  return ncclSuccess;
}

ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t handle) {
  const entry call("ncclRedOpDestroy");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ncclResult_t result = ncclSuccess;
  ncclComm* comm = alive(handle, "ncclRedOpDestroy", result);
  if (comm == nullptr) return result;
  if (op < ncclNumOps || !known(*comm, op)) {
    return bad_argument("ncclRedOpDestroy", *comm, "not an operator that ncclRedOpCreatePreMulSum made here");
  }
  comm->operators[static_cast<std::size_t>(op - ncclNumOps)].alive = false;
  return ncclSuccess;
}

}  // extern "C"
