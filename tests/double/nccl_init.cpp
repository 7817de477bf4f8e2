// Making and splitting communicators.
#include <double/nccl_group.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

namespace shardkit_double::nccl {

namespace {

// What ncclGetUniqueId writes: the marker, and the number of the rendezvous.
struct identity {
  char marker[16];
  std::uint64_t number;
};
constexpr char id_marker[16] = "shardkit double";

struct rendezvous {
  std::shared_ptr<clique> shared = std::make_shared<clique>();
  bool used = false;  // a communicator was made with it
};

std::map<std::uint64_t, rendezvous>& ids() {
  static auto* all = new std::map<std::uint64_t, rendezvous>;
  return *all;
}

struct forget_at_reset {
  forget_at_reset() {
    at_reset([] {
      for (auto& [number, meeting] : ids()) meeting.used = true;
    });
  }
};
const forget_at_reset registered;

bool duplicate_gpu_allowed() {
  if (current_settings().duplicate_gpu) return true;
  const char* enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return current_settings().version >= 23000 && enabled != nullptr && std::strcmp(enabled, "1") == 0;
}

ncclResult_t check_config(const ncclConfig_t& config) {
  if (config.size < sizeof(std::size_t) + 2 * sizeof(unsigned) || config.magic != 0xcafebeef) {
    report_found(report_kind::bad_argument, "a ncclConfig_t that NCCL_CONFIG_INITIALIZER did not initialise");
    return refuse(ncclInvalidArgument, "ncclConfig_t without NCCL_CONFIG_INITIALIZER");
  }
  const auto switched = [](int value) { return value == NCCL_CONFIG_UNDEF_INT || value == 0 || value == 1; };
  if (!switched(config.blocking) || !switched(config.splitShare)) {
    return refuse(ncclInvalidArgument, "ncclConfig_t: blocking and splitShare are 0 or 1");
  }
  const auto positive = [](int value) { return value == NCCL_CONFIG_UNDEF_INT || value > 0; };
  if (!positive(config.minCTAs) || !positive(config.maxCTAs) || config.minCTAs > config.maxCTAs) {
    if (config.maxCTAs != NCCL_CONFIG_UNDEF_INT || !positive(config.minCTAs)) {
      return refuse(ncclInvalidArgument, "ncclConfig_t: minCTAs and maxCTAs");
    }
  }
  return ncclSuccess;
}

// A rank comes to the rendezvous of its id.
void arrive(ncclComm& comm, std::uint64_t number) {
  rendezvous& meeting = ids()[number];
  clique& shared = *meeting.shared;
  const auto say_no = [&](ncclResult_t result, report_kind kind, const std::string& why) {
    report_found(kind, "ncclCommInitRank: " + why);
    comm.shared = std::make_shared<clique>();  // it meets nobody
    comm.shared->name = "a communicator that could not be made";
    comm.shared->refused = result;
  };
  if (meeting.used) {
    say_no(ncclSystemError, report_kind::communicator, "the id has made a communicator before; NCCL hangs here");
    return;
  }
  if (shared.members.empty()) {
    shared.members.resize(static_cast<std::size_t>(comm.size));
    shared.name = "communicator " + std::to_string(number);
  }
  if (static_cast<int>(shared.members.size()) != comm.size) {
    const std::string sizes =
        std::to_string(comm.size) + " ranks, another says " + std::to_string(shared.members.size());
    if (current_mismatch_mode() == mismatch_mode::diagnose) shared.refused = ncclInvalidArgument;
    say_no(ncclInvalidArgument, report_kind::mismatch, "rank " + std::to_string(comm.rank) + " says " + sizes);
    wake();
    return;
  }
  ncclComm*& place = shared.members[static_cast<std::size_t>(comm.rank)];
  if (place != nullptr) {
    say_no(ncclInvalidUsage, report_kind::mismatch, "rank " + std::to_string(comm.rank) + " came twice");
    return;
  }
  place = &comm;
  comm.shared = meeting.shared;
  if (++shared.arrived == comm.size) {
    meeting.used = true;
    std::set<int> devices;
    for (const ncclComm* member : shared.members) {
      if (!devices.insert(member->device).second && !duplicate_gpu_allowed()) shared.refused = ncclInvalidUsage;
    }
  }
  wake();
}

job initialisation(ncclComm& comm, std::uint64_t number) {
  job j;
  j.comm = &comm;
  j.begin = [&comm, number] {
    comm.not_before = clock::now() + std::chrono::duration_cast<clock::duration>(
                                         std::chrono::duration<double>(current_settings().hold_initialisation));
    arrive(comm, number);
  };
  j.finished = [&comm] {
    return comm.shared->arrived == comm.size || comm.shared->refused != ncclSuccess || !comm.buried_by.empty();
  };
  j.end = [&comm] {
    if (!comm.buried_by.empty()) return refuse(ncclInternalError, "ncclCommInitRank: aborted");
    comm.state = comm.shared->refused;
    if (comm.state != ncclSuccess) {
      return refuse(comm.state, "ncclCommInitRank: two ranks on one GPU, or ranks that disagree");
    }
    comm.initialised = true;
    return ncclSuccess;
  };
  return j;
}

ncclResult_t initialise(ncclComm_t* communicator, int size, const ncclUniqueId& id, int rank, int device,
                        const ncclConfig_t& config, const char* function) {
  if (communicator == nullptr) return refuse(ncclInvalidArgument, std::string(function) + ": null communicator");
  *communicator = nullptr;
  if (refuse_in_capture(function) != cudaSuccess) return refuse(ncclUnhandledCudaError, "stream capture");
  if (device < 0) return refuse(ncclUnhandledCudaError, std::string(function) + ": no device");
  if (size < 1 || rank < 0 || rank >= size) {
    return refuse(ncclInvalidArgument,
                  std::string(function) + ": rank " + std::to_string(rank) + " of " + std::to_string(size));
  }
  if (const ncclResult_t result = check_config(config); result != ncclSuccess) return result;
  identity given;
  std::memcpy(&given, &id, sizeof given);
  if (std::memcmp(given.marker, id_marker, sizeof id_marker) != 0 || ids().count(given.number) == 0) {
    report_found(report_kind::bad_argument, std::string(function) + ": an id that ncclGetUniqueId never made");
    return refuse(ncclInvalidArgument, std::string(function) + ": this is no id");
  }
  ncclComm* comm = make_communicator(size, rank, config, device);
  comm->state = ncclInProgress;
  *communicator = comm;
  return add(initialisation(*comm, given.number));
}

ncclResult_t initialise_one(ncclComm_t* communicator, int size, const ncclUniqueId& id, int rank,
                            const ncclConfig_t& config, const char* function) {
  return in_group([&] {
    int device = -1;
    if (cudaGetDevice(&device) != cudaSuccess) device = -1;
    return initialise(communicator, size, id, rank, device, config, function);
  });
}

// Every rank of the parent has called ncclCommSplit.
void complete(clique& parent, int number, const std::vector<split_request*>& requests) {
  std::map<int, std::vector<split_request*>> colors;
  for (split_request* request : requests) {
    if (request->color != NCCL_SPLIT_NOCOLOR) colors[request->color].push_back(request);
    request->complete = true;
  }
  for (auto& [color, members] : colors) {
    std::sort(members.begin(), members.end(), [](const split_request* a, const split_request* b) {
      return std::pair(a->key, a->parent->rank) < std::pair(b->key, b->parent->rank);
    });
    auto shared = std::make_shared<clique>();
    shared->name = parent.name + ", split " + std::to_string(number) + " color " + std::to_string(color);
    for (split_request* request : members) {
      ncclComm& from = *request->parent;
      ncclComm* child = make_communicator(static_cast<int>(members.size()), static_cast<int>(shared->members.size()),
                                          request->config, from.device);
      child->world_rank = from.world_rank;
      child->shared = shared;
      child->initialised = true;
      if (child->config.splitShare == 1 && !from.revoked) {
        child->shares_with = from.shares_with != nullptr ? from.shares_with : &from;
      }
      shared->members.push_back(child);
      request->made = child;
    }
    shared->arrived = static_cast<int>(members.size());
  }
  wake();
}

job splitting(ncclComm& comm) {
  job j;
  j.comm = &comm;
  j.begin = [&comm] {
    comm.not_before = clock::now() + std::chrono::duration_cast<clock::duration>(
                                         std::chrono::duration<double>(current_settings().hold_initialisation));
    const int number = comm.next_split++;
    std::vector<split_request*>& requests = comm.shared->splits[number];
    requests.push_back(comm.split.get());
    if (static_cast<int>(requests.size()) < comm.size) return;
    std::sort(requests.begin(), requests.end(),
              [](const split_request* a, const split_request* b) { return a->parent->rank < b->parent->rank; });
    const bool all_there =
        std::all_of(requests.begin(), requests.end(), [](const auto* r) { return r->parent->buried_by.empty(); });
    if (all_there) complete(*comm.shared, number, requests);
    comm.shared->splits.erase(number);
  };
  j.finished = [&comm] { return comm.split->complete || !comm.buried_by.empty(); };
  j.end = [&comm] {
    if (!comm.buried_by.empty()) return refuse(ncclInternalError, "ncclCommSplit: the parent was aborted");
    *comm.split->child = comm.split->made;
    comm.split.reset();
    return ncclSuccess;
  };
  return j;
}

}  // namespace

}  // namespace shardkit_double::nccl

using namespace shardkit_double;
using namespace shardkit_double::nccl;

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const entry call("ncclGetUniqueId");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  if (id == nullptr) return refuse(ncclInvalidArgument, "ncclGetUniqueId: null");
  identity fresh{};
  std::memcpy(fresh.marker, id_marker, sizeof id_marker);
  fresh.number = ids().size() + 1;
  ids()[fresh.number];
  std::memset(id, 0, sizeof *id);
  std::memcpy(id, &fresh, sizeof fresh);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* communicator, int size, ncclUniqueId id, int rank) {
  const entry call("ncclCommInitRank");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  const ncclResult_t result = initialise_one(communicator, size, id, rank, NCCL_CONFIG_INITIALIZER, "ncclCommInitRank");
  if (result != ncclSuccess && communicator != nullptr && *communicator != nullptr) {
    // This form, unlike the one with a configuration, leaves nothing behind that has to be aborted.
    if ((*communicator)->buried_by.empty()) bury(**communicator, "ncclCommInitRank");
    *communicator = nullptr;
  }
  return result;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const entry call("ncclCommInitRankConfig");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  const ncclConfig_t usual = NCCL_CONFIG_INITIALIZER;
  return initialise_one(communicator, size, id, rank, config != nullptr ? *config : usual, "ncclCommInitRankConfig");
}

ncclResult_t ncclCommInitAll(ncclComm_t* communicators, int size, const int* devices) {
  const entry call("ncclCommInitAll");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return refuse(ncclUnhandledCudaError, "ncclCommInitAll: no device");
  std::set<int> seen;
  for (int rank = 0; rank < size; ++rank) {
    const int device = devices != nullptr ? devices[rank] : rank;
    if (device < 0 || device >= count) return refuse(ncclInvalidArgument, "ncclCommInitAll: there is no such device");
    if (!seen.insert(device).second && !duplicate_gpu_allowed()) {
      return refuse(ncclInvalidUsage, "ncclCommInitAll: a device twice");
    }
  }
  if (communicators == nullptr || size < 0) return refuse(ncclInvalidArgument, "ncclCommInitAll: null, or negative");
  ncclUniqueId id;
  if (const ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) return result;
  return in_group([&] {
    for (int rank = 0; rank < size; ++rank) {
      const int device = devices != nullptr ? devices[rank] : rank;
      const ncclResult_t result =
          initialise(&communicators[rank], size, id, rank, device, NCCL_CONFIG_INITIALIZER, "ncclCommInitAll");
      if (result != ncclSuccess) return result;
    }
    return ncclSuccess;
  });
}

ncclResult_t ncclCommSplit(ncclComm_t handle, int color, int key, ncclComm_t* child, ncclConfig_t* config) {
  const entry call("ncclCommSplit");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  return in_group([&]() -> ncclResult_t {
    ncclResult_t result = ncclSuccess;
    ncclComm* comm = ready(handle, "ncclCommSplit", result);
    if (comm == nullptr) return result;
    if (child == nullptr) return refuse(ncclInvalidArgument, "ncclCommSplit: null");
    if (refuse_in_capture("ncclCommSplit") != cudaSuccess) return refuse(ncclUnhandledCudaError, "stream capture");
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR) return refuse(ncclInvalidArgument, "ncclCommSplit: negative color");
    if (config != nullptr) {
      if (const ncclResult_t checked = check_config(*config); checked != ncclSuccess) return checked;
    }
    if (comm->finalized || comm->split != nullptr) {
      report_found(report_kind::communicator, "ncclCommSplit of " + describe(*comm) +
                                                  (comm->split != nullptr ? " twice in one group" : " after finalize"));
      return refuse(ncclInvalidUsage, "ncclCommSplit: not now");
    }
    *child = nullptr;
    comm->split = std::make_unique<split_request>();
    comm->split->parent = comm;
    comm->split->color = color;
    comm->split->key = key;
    comm->split->config = config != nullptr ? *config : comm->config;
    comm->split->child = child;
    return add(splitting(*comm));
  });
}

}  // extern "C"
