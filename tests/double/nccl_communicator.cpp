#include <double/nccl_communicator.hpp>

#include <double/nccl_control.hpp>
#include <double/nccl_match.hpp>

#include <algorithm>

namespace shardkit_double::nccl {

namespace {

// Never destroyed: the program's own destructors may still call the double.
std::map<const ncclComm*, std::unique_ptr<ncclComm>>& communicators() {
  static auto* all = new std::map<const ncclComm*, std::unique_ptr<ncclComm>>;
  return *all;
}

std::vector<ncclComm*>& living() {
  static auto* all = new std::vector<ncclComm*>;
  return *all;
}

std::string& last_error() {
  thread_local std::string text;
  return text;
}

struct forget_at_reset {
  forget_at_reset() {
    at_reset([] {
      for (ncclComm* comm : live()) {
        report_found(report_kind::leak, describe(*comm) + " was never destroyed or aborted");
        bury(*comm, "reset()");
      }
      current_settings() = settings{};
    });
  }
};
const forget_at_reset registered;

bool over(const ncclComm& comm) { return clock::now() >= comm.not_before && comm.polls_to_go <= 0; }

}  // namespace

settings& current_settings() {
  static auto* now = new settings;
  return *now;
}

ncclResult_t refuse(ncclResult_t result, const std::string& why) {
  last_error() = why;
  return result;
}

const char* why_refused() { return last_error().c_str(); }

std::vector<ncclComm*> live() { return living(); }

std::string describe(const ncclComm& comm) {
  return "rank " + std::to_string(comm.rank) + " of " + std::to_string(comm.size) + " of " +
         (comm.shared != nullptr ? comm.shared->name : "communicator " + std::to_string(comm.number));
}

std::string describe(const task& t) {
  std::string text = t.called;
  if (t.what == verb::send && text != "ncclSend") text += " (sending)";
  if (t.what == verb::recv && text != "ncclRecv") text += " (receiving)";
  text += " of " + std::to_string(t.count) + ' ' + name_of(t.type);
  switch (t.what) {
    case verb::all_reduce:
    case verb::reduce_scatter: return text + ", " + name_of(t.op);
    case verb::reduce: return text + ", " + name_of(t.op) + ", to root " + std::to_string(t.root);
    case verb::broadcast: return text + " from root " + std::to_string(t.root);
    case verb::all_gather: return text;
    case verb::send: return text + " to rank " + std::to_string(t.root);
    case verb::recv: return text + " from rank " + std::to_string(t.root);
  }
  return text;
}

std::string describe(const launch& l) {
  std::string text = describe(l.plan->tasks.front());
  if (l.plan->tasks.size() > 1) text += " and " + std::to_string(l.plan->tasks.size() - 1) + " more in its group";
  return text;
}

bool is_message(const task& t) { return t.what == verb::send || t.what == verb::recv; }

std::size_t bytes_of(const task& t) { return t.count * bytes_of(t.type); }

std::vector<access> accesses_of(const task& t, const ncclComm& comm) {
  const std::size_t bytes = bytes_of(t);
  const std::size_t all = bytes * static_cast<std::size_t>(comm.size);
  std::vector<access> found;
  if (t.scalar_on_device != nullptr) found.push_back(reads(t.scalar_on_device, bytes_of(t.type)));
  switch (t.what) {
    case verb::all_reduce:
      found.push_back(reads(t.send, bytes));
      found.push_back(writes(t.recv, bytes));
      break;
    case verb::reduce:
      found.push_back(reads(t.send, bytes));
      if (comm.rank == t.root) found.push_back(writes(t.recv, bytes));
      break;
    case verb::reduce_scatter:
      found.push_back(reads(t.send, all));
      found.push_back(writes(t.recv, bytes));
      break;
    case verb::broadcast:
      if (comm.rank == t.root) found.push_back(reads(t.send, bytes));
      if (comm.rank != t.root || t.send != t.recv) found.push_back(writes(t.recv, bytes));
      break;
    case verb::all_gather:
      found.push_back(reads(t.send, bytes));
      found.push_back(writes(t.recv, all));
      break;
    case verb::send: found.push_back(reads(t.send, bytes)); break;
    case verb::recv: found.push_back(writes(t.recv, bytes)); break;
  }
  found.erase(std::remove_if(found.begin(), found.end(), [](const access& a) { return a.bytes == 0; }), found.end());
  return found;
}

ncclComm* make_communicator(int size, int rank, const ncclConfig_t& config, int device) {
  auto made = std::make_unique<ncclComm>();
  ncclComm& comm = *made;
  communicators()[&comm] = std::move(made);
  living().push_back(&comm);
  comm.number = static_cast<int>(communicators().size());
  comm.size = size;
  comm.rank = comm.world_rank = rank;
  comm.device = device;
  comm.config = config;
  if (comm.config.blocking == NCCL_CONFIG_UNDEF_INT) comm.config.blocking = 1;
  if (comm.config.splitShare == NCCL_CONFIG_UNDEF_INT) comm.config.splitShare = 0;
  return &comm;
}

ncclComm* alive(ncclComm_t handle, const char* function, ncclResult_t& result) {
  if (handle == nullptr) {
    result = refuse(ncclInvalidArgument, std::string(function) + ": the communicator is null");
    return nullptr;
  }
  if (communicators().count(handle) == 0) {
    result = refuse(ncclInvalidArgument, std::string(function) + ": this is no communicator");
    report_found(report_kind::bad_handle, std::string(function) + " is given a communicator that NCCL never made");
    return nullptr;
  }
  if (!handle->buried_by.empty()) {
    result = refuse(ncclInvalidArgument, std::string(function) + ": the communicator was ended before");
    report_found(report_kind::use_after_free,
                 std::string(function) + " is given " + describe(*handle) + ", which " + handle->buried_by + " freed");
    return nullptr;
  }
  return handle;
}

ncclComm* ready(ncclComm_t handle, const char* function, ncclResult_t& result) {
  ncclComm* comm = alive(handle, function, result);
  if (comm == nullptr) return nullptr;
  settle(*comm, false);
  if (comm->state == ncclInProgress) {
    result = refuse(ncclInvalidArgument, std::string(function) + ": an earlier call on " + describe(*comm) +
                                             " is still in progress: poll ncclCommGetAsyncError");
    return nullptr;
  }
  if (comm->state != ncclSuccess) {
    result = refuse(comm->state, std::string(function) + ": " + describe(*comm) + " has failed before");
    return nullptr;
  }
  return comm;
}

void stay_failed(ncclComm_t handle, ncclResult_t result) {
  for (ncclComm* comm : live()) {
    if (comm == handle && comm->config.blocking == 0) comm->state = result;
  }
}

void settle(ncclComm& comm, bool polled) {
  if (comm.state != ncclInProgress) return;
  if (polled && comm.held == nullptr) --comm.polls_to_go;
  if (!comm.initialised) {
    if (comm.shared == nullptr || !over(comm)) return;
    if (comm.shared->refused != ncclSuccess) comm.state = comm.shared->refused;
    if (comm.shared->arrived < comm.size || comm.state != ncclInProgress) return;
    comm.initialised = true;
    comm.state = ncclSuccess;
  } else if (comm.split != nullptr) {
    if (!comm.split->complete || !over(comm)) return;
    *comm.split->child = comm.split->made;
    comm.split.reset();
    comm.state = ncclSuccess;
  } else if (comm.held != nullptr) {
    const std::shared_ptr<held_group> group = comm.held;
    if (polled) --group->polls;
    if (group->polls >= 0 || !connected(group->plans)) return;
    ncclResult_t result = ncclSuccess;
    for (const auto& plan : group->plans) {
      const bool stopped = !plan->comm->buried_by.empty() || plan->comm->revoked;
      if (result == ncclSuccess && !stopped) result = queue(plan);
    }
    for (ncclComm* member : group->comms) {
      if (member->held != group) continue;
      member->held.reset();
      if (member->state == ncclInProgress) member->state = result;
    }
  } else if (over(comm) && comm.queue.empty()) {
    comm.state = ncclSuccess;  // finalized, or revoked
  }
}

void bury(ncclComm& comm, const char* by) {
  drop(comm);
  for (const auto& [handle, memory] : comm.registrations) {
    if (storage(memory.memory) == nullptr) {
      report_found(report_kind::use_after_free,
                   "memory registered with " + describe(comm) + " was freed before ncclCommDeregister");
    }
  }
  // A child that the program has not seen yet.
  if (comm.split != nullptr && comm.split->made != nullptr) bury(*comm.split->made, by);
  if (comm.join != nullptr) cudaEventDestroy(std::exchange(comm.join, nullptr));
  comm.buried_by = by;
  living().erase(std::remove(living().begin(), living().end(), &comm), living().end());
}

// ---- What tests say ----------------------------------------------------------------------------------------------

namespace {

// Settings are read under the lock; no fault is injected into these names.
template <class Change>
void set(Change&& change) {
  const entry call("shardkit_double");
  change(current_settings());
  wake();
}

}  // namespace

void set_version(int code) {
  set([&](settings& s) { s.version = code; });
}
void allow_duplicate_gpu(bool allowed) {
  set([&](settings& s) { s.duplicate_gpu = allowed; });
}
void set_group_limit(int operations) {
  set([&](settings& s) { s.group_limit = operations; });
}
void hold_initialisation(double seconds) {
  set([&](settings& s) { s.hold_initialisation = seconds; });
}
void connect_on_first_use(bool connect) {
  set([&](settings& s) { s.connect_on_first_use = connect; });
}
void hold_enqueue(int polls) {
  set([&](settings& s) { s.hold_enqueue = polls; });
}
void set_patience(double seconds) {
  set([&](settings& s) { s.patience = seconds; });
}
void stop_rank(int rank, bool stopped) {
  set([&](settings& s) { s.stopped[rank] = stopped; });
}
void slow_rank(int rank, double seconds) {
  set([&](settings& s) { s.slow[rank] = seconds; });
}
void fail_asynchronously(int rank, int result, int nth) {
  set([&](settings& s) { s.failures[rank] = {result, nth}; });
}
int live_communicators() {
  const entry call("shardkit_double");
  return static_cast<int>(live().size());
}

}  // namespace shardkit_double::nccl
