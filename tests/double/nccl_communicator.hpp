// The inside of the NCCL double: communicators, the clique that their ranks share, and the operations under way.
// Everything here is touched under the lock of the double (an `entry`, see runtime.hpp).
//
// An operation's way: a verb (nccl_verbs.cpp) makes a `task`; the group (nccl_group.cpp) gathers a communicator's tasks
// in a `launch_plan` and queues it as one operation of a stream; each time it is queued, by the call or by a replay of
// a graph, a `launch` joins the queue of its communicator; at the head of stream and queue it starts, and its tasks
// meet those of the other ranks (nccl_match.cpp).
#pragma once

#include <double/nccl_number.hpp>
#include <double/runtime.hpp>

#include <nccl.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace shardkit_double::nccl {

using clock = std::chrono::steady_clock;

enum class verb { all_reduce, reduce, reduce_scatter, broadcast, all_gather, send, recv };

/// One rank's part in a collective or a message, as the program has called it.
struct task {
  verb what = verb::all_reduce;
  const char* called = "";  ///< the function that was called: ncclAlltoAll is made of sends and receives
  int call = 0;             ///< number of the call inside its group; parts of one call may touch the same bytes
  const void* send = nullptr;
  void* recv = nullptr;
  std::size_t count = 0;
  ncclDataType_t type = ncclInt8;
  ncclRedOp_t op = ncclSum;
  const void* scalar_on_device = nullptr;  ///< of a pre-multiplied sum, when the program keeps it there
  std::vector<std::byte> scalar;           ///< of a pre-multiplied sum, when it was given
  int root = 0;                            ///< of a message: the peer
};

bool is_message(const task& t);
std::size_t bytes_of(const task& t);
std::vector<access> accesses_of(const task& t, const ncclComm& comm);
/// "ncclAllReduce of 12 f32, sum".
std::string describe(const task& t);

/// What a communicator puts on a stream at once: one call outside a group, or all its calls of a group.
struct launch_plan {
  ncclComm* comm = nullptr;
  std::vector<cudaStream_t> streams;  ///< that its calls named: it runs on the first, and all of them wait for it
  std::vector<task> tasks;
  bool captured = false;  ///< it is in a graph, whose launches choose the stream
};

struct launch;

struct pending_task {
  const task* what = nullptr;
  launch* owner = nullptr;
  bool done = false;
};

/// A launch_plan on its way through a stream.
struct launch {
  std::shared_ptr<const launch_plan> plan;
  std::vector<pending_task> tasks;
  bool at_head = false;  ///< of its stream
  bool started = false;  ///< at the head of its communicator's queue, too: its tasks look for their peers
  bool ended = false;    ///< done, or dropped by an abort
  bool broken = false;   ///< hangs until it is dropped
  clock::time_point earliest{};
};

/// Messages from one rank to another that have not met.
struct channel {
  std::deque<pending_task*> sends;
  std::deque<pending_task*> receives;
};

/// A collective call of the communicator.
struct collective {
  std::vector<pending_task*> ranks;  ///< null where a rank has not started it, or has dropped it
  int present = 0;                   ///< ranks that have started it
  bool disagreed = false;
  bool incomplete = false;  ///< a rank has dropped it: it never ends
};

/// One rank's arguments of ncclCommSplit.
struct split_request {
  ncclComm* parent = nullptr;
  int color = 0;
  int key = 0;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclComm_t* child = nullptr;
  ncclComm* made = nullptr;  ///< null for a rank without color
  bool complete = false;     ///< all ranks have called
};

/// What the ranks of one communicator share.
struct clique {
  std::string name;
  std::vector<ncclComm*> members;  ///< null until the rank has come
  int arrived = 0;
  ncclResult_t refused = ncclSuccess;  ///< why it cannot be made
  std::map<std::uint64_t, collective> collectives;
  std::map<std::pair<int, int>, channel> channels;    ///< by sender and receiver
  std::set<std::pair<int, int>> connecting;           ///< which rank has called what needs which other
  std::map<int, std::vector<split_request*>> splits;  ///< that not all ranks have called, by number
};

/// A group of a non-blocking communicator whose operations are not on their streams yet.
struct held_group {
  std::vector<std::shared_ptr<launch_plan>> plans;
  std::vector<ncclComm*> comms;
  int polls = 0;
};

struct made_operator {
  ncclDataType_t type = ncclInt8;
  std::vector<std::byte> scalar;
  const void* scalar_on_device = nullptr;
  bool alive = false;
};

struct registration {
  void* memory = nullptr;
  std::size_t bytes = 0;
};

struct settings {
  int version = NCCL_VERSION_CODE;
  bool duplicate_gpu = false;
  int group_limit = 1024;
  double hold_initialisation = 0;
  int hold_enqueue = 1;
  bool connect_on_first_use = false;
  double patience = 20;
  std::map<int, bool> stopped;
  std::map<int, double> slow;
  struct failure {
    int result;
    int launches;
  };
  std::map<int, failure> failures;
};
settings& current_settings();

/// Sets what ncclGetLastError answers in this thread, and returns `result`.
ncclResult_t refuse(ncclResult_t result, const std::string& why);
const char* why_refused();

/// The communicator behind a handle; otherwise null, with a report, and `result` says what the call returns.
ncclComm* alive(ncclComm_t handle, const char* function, ncclResult_t& result);

/// alive(), and ready to be used: initialised, nothing in progress, no error.
ncclComm* ready(ncclComm_t handle, const char* function, ncclResult_t& result);

/// A failed call on a non-blocking communicator: ncclCommGetAsyncError answers it from now on.
void stay_failed(ncclComm_t handle, ncclResult_t result);

/// Makes the object behind a handle that has no clique yet.
ncclComm* make_communicator(int size, int rank, const ncclConfig_t& config, int device);
std::vector<ncclComm*> live();

/// Lets a non-blocking communicator get on with what it has in progress. Only ncclCommGetAsyncError polls.
void settle(ncclComm& comm, bool polled);

/// Drops all operations of a communicator: their streams go on.
void drop(ncclComm& comm);

/// Ends the life of a handle.
void bury(ncclComm& comm, const char* by);

/// "rank 1 of 4 of communicator 3".
std::string describe(const ncclComm& comm);
/// What a launch holds: "ncclSend of 3 f32 to rank 1".
std::string describe(const launch& l);

/// With connect_on_first_use(): announces what the ranks of these plans need their peers for, and whether the peers
/// have announced the same.
void connect(const std::vector<std::shared_ptr<launch_plan>>& plans);
bool connected(const std::vector<std::shared_ptr<launch_plan>>& plans);

/// Queues a plan on its stream, for now or into the graph that the stream captures.
ncclResult_t queue(const std::shared_ptr<launch_plan>& plan);

}  // namespace shardkit_double::nccl

/// One rank's communicator. Objects stay until the program ends, so that no handle is ever given out twice.
struct ncclComm {
  int number = 0;
  int size = 0;
  int rank = 0;
  int world_rank = 0;
  int device = 0;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  std::string buried_by;  ///< the function that ended it; empty while it lives
  std::shared_ptr<shardkit_double::nccl::clique> shared;
  ncclComm* shares_with = nullptr;  ///< splitShare: an abort of one stops the operations of all
  ncclResult_t state = ncclSuccess;
  bool initialised = false;
  bool finalized = false;
  bool revoked = false;
  shardkit_double::nccl::clock::time_point not_before{};  ///< until then what is in progress stays so
  int polls_to_go = 0;
  std::deque<std::shared_ptr<shardkit_double::nccl::launch>> queue;
  std::vector<std::weak_ptr<const shardkit_double::nccl::launch_plan>> captured;
  std::uint64_t next_collective = 0;
  int next_split = 0;
  cudaEvent_t join = nullptr;                                   ///< made when a group uses several streams
  std::unique_ptr<shardkit_double::nccl::split_request> split;  ///< under way
  std::shared_ptr<shardkit_double::nccl::held_group> held;
  std::vector<shardkit_double::nccl::made_operator> operators;
  std::map<void*, shardkit_double::nccl::registration> registrations;
};
