// Groups: calls are gathered by thread, and at the outermost end each communicator's calls become one launch.
#include <double/nccl_group.hpp>
#include <double/nccl_match.hpp>

#include <algorithm>

namespace shardkit_double::nccl {

namespace {

struct group {
  int depth = 0;
  int calls = 0;
  int operations = 0;
  ncclResult_t failure = ncclSuccess;
  std::vector<std::shared_ptr<launch_plan>> plans;  // one for each communicator, in the order of first use
  std::vector<job> jobs;
};

group& mine() {
  thread_local group open;
  return open;
}

// Makes a communicator's device the current one for a while.
class on_device {
 public:
  explicit on_device(int device) : before_(current_device()) {
    if (before_ != device) cudaSetDevice(device);
    changed_ = before_ != device;
  }
  ~on_device() {
    if (changed_) cudaSetDevice(before_);
  }
  on_device(const on_device&) = delete;
  on_device& operator=(const on_device&) = delete;

 private:
  int before_;
  bool changed_ = false;
};

bool overlap(const access& a, const access& b) {
  const auto* first = static_cast<const std::byte*>(a.address);
  const auto* second = static_cast<const std::byte*>(b.address);
  return first < second + b.bytes && second < first + a.bytes;
}

// Calls of one group run in any order, or at once: none may touch what another writes.
void check_apart(const launch_plan& plan) {
  struct use {
    access bytes;
    const task* by;
  };
  std::vector<use> all;
  for (const task& t : plan.tasks) {
    const bool to_itself_in_place = is_message(t) && t.root == plan.comm->rank;
    for (const access& a : accesses_of(t, *plan.comm)) {
      if (!to_itself_in_place) all.push_back({a, &t});
    }
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t k = i + 1; k < all.size(); ++k) {
      const bool written = all[i].bytes.mode == access_mode::write || all[k].bytes.mode == access_mode::write;
      if (all[i].by->call == all[k].by->call || !written || !overlap(all[i].bytes, all[k].bytes)) continue;
      report_found(report_kind::race, describe(*all[i].by) + " and " + describe(*all[k].by) + " of one group of " +
                                          describe(*plan.comm) +
                                          " use the same memory: " + shardkit_double::describe(all[k].bytes.address));
      return;
    }
  }
}

// NCCL matches messages to oneself inside the group.
bool messages_to_itself_pair_up(const launch_plan& plan) {
  int open = 0;
  for (const task& t : plan.tasks) {
    if (is_message(t) && t.root == plan.comm->rank) open += t.what == verb::send ? 1 : -1;
  }
  return open == 0;
}

ncclResult_t check(const launch_plan& plan) {
  if (!plan.comm->buried_by.empty()) {
    report_found(report_kind::use_after_free, "a group ends with " + describe(plan.tasks.front()) + " of " +
                                                  describe(*plan.comm) + ", which " + plan.comm->buried_by + " freed");
    return refuse(ncclInvalidArgument, "a communicator of the group was ended");
  }
  bool some_captured = false;
  bool all_captured = true;
  for (cudaStream_t stream : plan.streams) {
    (is_capturing(stream) ? some_captured : all_captured) = is_capturing(stream);
  }
  if (some_captured && !all_captured) {
    return refuse(ncclInvalidUsage, "some streams of a group are captured, and some are not");
  }
  if (!messages_to_itself_pair_up(plan)) {
    return refuse(ncclInvalidUsage, "a send to itself without its receive in the same group, or the other way round");
  }
  check_apart(plan);
  return ncclSuccess;
}

// What a communicator's calls need other ranks for; calls of a stopped communicator need nobody.
template <class Visitor>
void for_each_need(const std::vector<std::shared_ptr<launch_plan>>& plans, Visitor&& visitor) {
  for (const auto& plan : plans) {
    const ncclComm& comm = *plan->comm;
    if (!comm.buried_by.empty() || comm.revoked) continue;
    for (const task& t : plan->tasks) {
      for (int peer = 0; peer < comm.size; ++peer) {
        if (peer != comm.rank && (!is_message(t) || t.root == peer)) visitor(*comm.shared, comm.rank, peer);
      }
    }
  }
}

ncclResult_t run_blocking(group& ended) {
  const double patience = current_settings().patience;
  connect(ended.plans);
  if (!wait_until([&] { return connected(ended.plans); }, patience)) {
    const launch_plan& first = *ended.plans.front();
    report_found(report_kind::communicator,
                 "a rank that " + describe(first.tasks.front()) + " of " + describe(*first.comm) +
                     " needs never calls; the thread would wait forever: make the communicator non-blocking");
    return refuse(ncclSystemError, "a peer never connects");
  }
  for (const auto& plan : ended.plans) {
    if (const ncclResult_t result = queue(plan); result != ncclSuccess) return result;
  }
  for (const job& j : ended.jobs) j.begin();
  const bool finished = wait_until(
      [&] { return std::all_of(ended.jobs.begin(), ended.jobs.end(), [](const job& j) { return j.finished(); }); },
      patience);
  if (!finished) report_found(report_kind::communicator, "a blocking NCCL call would wait forever");
  ncclResult_t result = ncclSuccess;
  for (const job& j : ended.jobs) {
    const ncclResult_t one = j.finished() ? j.end() : ncclSystemError;
    if (result == ncclSuccess) result = one;
  }
  return result;
}

ncclResult_t run_in_background(group& ended) {
  for (const job& j : ended.jobs) {
    j.comm->state = ncclInProgress;
    j.comm->polls_to_go = 1;
    j.comm->not_before = clock::now();
    j.begin();
  }
  if (!ended.plans.empty()) {
    connect(ended.plans);
    auto held = std::make_shared<held_group>();
    held->plans = ended.plans;
    held->polls = current_settings().hold_enqueue;
    for (const auto& plan : ended.plans) {
      held->comms.push_back(plan->comm);
      plan->comm->held = held;
      plan->comm->state = ncclInProgress;
    }
  }
  return ncclInProgress;
}

ncclResult_t run(group& ended) {
  if (ended.failure != ncclSuccess) return ended.failure;
  if (!ended.plans.empty() && !ended.jobs.empty()) {
    report_found(report_kind::communicator, "initialisation and communication in one group");
    return refuse(ncclInvalidUsage, "initialisation and communication cannot share a group");
  }
  bool blocking = false;
  bool non_blocking = false;
  for (const auto& plan : ended.plans) (plan->comm->config.blocking != 0 ? blocking : non_blocking) = true;
  for (const job& j : ended.jobs) (j.comm->config.blocking != 0 ? blocking : non_blocking) = true;
  if (blocking && non_blocking) {
    return refuse(ncclInvalidArgument, "blocking and non-blocking communicators cannot share a group");
  }
  for (const auto& plan : ended.plans) {
    if (const ncclResult_t result = check(*plan); result != ncclSuccess) return result;
  }
  if (blocking) return run_blocking(ended);
  return non_blocking ? run_in_background(ended) : ncclSuccess;
}

ncclResult_t close() {
  group& open = mine();
  if (open.depth == 0) {
    report_found(report_kind::communicator, "ncclGroupEnd without ncclGroupStart");
    return refuse(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
  }
  if (--open.depth > 0) return ncclSuccess;
  group ended = std::move(open);
  open = group{};
  const ncclResult_t result = run(ended);
  if (result != ncclSuccess && result != ncclInProgress) {
    for (const auto& plan : ended.plans) {
      if (plan->comm->config.blocking == 0) plan->comm->state = result;
    }
    for (const job& j : ended.jobs) {
      if (j.comm->config.blocking == 0 && j.comm->buried_by.empty()) j.comm->state = result;
    }
  }
  return result;
}

// What the operations before it on the other streams of the group are to it, and it to those after it.
cudaError_t order(cudaStream_t first, cudaStream_t then, ncclComm& comm) {
  if (comm.join == nullptr) {
    if (const cudaError_t code = cudaEventCreateWithFlags(&comm.join, cudaEventDisableTiming)) return code;
  }
  if (const cudaError_t code = cudaEventRecord(comm.join, first)) return code;
  return cudaStreamWaitEvent(then, comm.join, 0);
}

}  // namespace

ncclResult_t in_group(const std::function<ncclResult_t()>& body) {
  group& open = mine();
  ++open.depth;
  ++open.calls;
  const ncclResult_t result = body();
  if (result != ncclSuccess && open.failure == ncclSuccess) open.failure = result;
  const ncclResult_t ended = close();
  return result != ncclSuccess ? result : ended;
}

void fail_group(ncclResult_t result) {
  group& open = mine();
  if (open.depth > 0 && result != ncclSuccess && open.failure == ncclSuccess) open.failure = result;
}

int call_number() { return mine().calls; }

ncclResult_t add(job j) {
  mine().jobs.push_back(std::move(j));
  return ncclSuccess;
}

ncclResult_t add(ncclComm& comm, cudaStream_t stream, std::vector<task> tasks) {
  group& open = mine();
  const int limit = current_settings().group_limit;
  if (++open.operations > limit) {
    return refuse(ncclInvalidUsage, "more than " + std::to_string(limit) + " operations in one group");
  }
  auto found = std::find_if(open.plans.begin(), open.plans.end(), [&](const auto& p) { return p->comm == &comm; });
  if (found == open.plans.end()) {
    open.plans.push_back(std::make_shared<launch_plan>());
    found = std::prev(open.plans.end());
    (*found)->comm = &comm;
  }
  launch_plan& plan = **found;
  if (std::find(plan.streams.begin(), plan.streams.end(), stream) == plan.streams.end()) plan.streams.push_back(stream);
  for (task& t : tasks) plan.tasks.push_back(std::move(t));
  return ncclSuccess;
}

void connect(const std::vector<std::shared_ptr<launch_plan>>& plans) {
  for_each_need(plans, [](clique& shared, int rank, int peer) { shared.connecting.insert({rank, peer}); });
  wake();
}

bool connected(const std::vector<std::shared_ptr<launch_plan>>& plans) {
  if (!current_settings().connect_on_first_use) return true;
  bool all = true;
  for_each_need(plans, [&](const clique& shared, int rank, int peer) {
    all = all && shared.connecting.count({peer, rank}) != 0;
  });
  return all;
}

ncclResult_t queue(const std::shared_ptr<launch_plan>& plan) {
  ncclComm& comm = *plan->comm;
  const on_device current(comm.device);
  const cudaStream_t stream = plan->streams.front();
  operation op;
  const int call = plan->tasks.front().call;
  const bool one_call =
      std::all_of(plan->tasks.begin(), plan->tasks.end(), [&](const task& t) { return t.call == call; });
  op.name = one_call ? plan->tasks.front().called : "ncclGroup";
  for (const task& t : plan->tasks) {
    op.parameters += (op.parameters.empty() ? "" : "; ") + describe(t);
    for (const access& a : accesses_of(t, comm)) op.accesses.push_back(a);
  }
  if (comm.size == 1 && plan->tasks.front().op < ncclNumOps && !is_message(plan->tasks.front())) {
    op.kind = node_kind::copy;
  }
  plan->captured = is_capturing(stream);
  const std::shared_ptr<const launch_plan> kept = plan;
  op.on_queued = [kept](operation& queued) {
    const std::shared_ptr<launch> l = begin(kept);
    queued.run = [l] { return advance(*l); };
  };
  op.run = [] { return progress::done; };
  if (plan->captured) comm.captured.push_back(kept);
  cudaError_t code = cudaSuccess;
  for (std::size_t i = 1; i < plan->streams.size() && code == cudaSuccess; ++i) {
    code = order(plan->streams[i], stream, comm);
  }
  if (code == cudaSuccess) code = enqueue(stream, std::move(op));
  for (std::size_t i = 1; i < plan->streams.size() && code == cudaSuccess; ++i) {
    code = order(stream, plan->streams[i], comm);
  }
  if (code == cudaSuccess) return ncclSuccess;
  return refuse(ncclUnhandledCudaError, std::string(cudaGetErrorName(code)) + " when " + describe(plan->tasks.front()) +
                                            " of " + describe(comm) + " was put on its stream");
}

}  // namespace shardkit_double::nccl

using namespace shardkit_double;
using namespace shardkit_double::nccl;

extern "C" {

ncclResult_t ncclGroupStart() {
  const entry call("ncclGroupStart");
  if (call.injected()) return static_cast<ncclResult_t>(call.code());
  ++mine().depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const entry call("ncclGroupEnd");
  if (call.injected()) {
    fail_group(static_cast<ncclResult_t>(call.code()));
    return call.code() == 0 ? ncclSuccess : close();
  }
  return close();
}

}  // extern "C"
