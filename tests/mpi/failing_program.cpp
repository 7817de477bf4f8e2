// A program whose ranks fail in the way that its argument names; failures.cpp runs it under mpiexec and reads what it
// leaves behind. Rank 1 is the culprit. Reports of what a rank caught start with "caught on rank".
#include <shardkit/backends/mpi.hpp>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

using shardkit::in_place;
using shardkit::mpi_communicator;
using shardkit::sum;

namespace {

// More than any transport buffers: a send of it waits for its receive.
constexpr std::size_t large = std::size_t{1} << 20;

void pass_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

void reduce_something(mpi_communicator& comm) {
  double value = 1;
  comm.all_reduce(in_place(shardkit::view(&value, 1)), sum);
}

// Before MPI knows.
bool is_launched_as(const std::string& rank) {
  for (const char* variable : {"OMPI_COMM_WORLD_RANK", "PMI_RANK"})
    if (const char* text = std::getenv(variable)) return text == rank;
  return false;
}

void throw_before_others_reduce(mpi_communicator& world) {
  if (world.rank() == 1) throw std::runtime_error("the disk is full");
  reduce_something(world);
}

// In the middle of the others' call.
template <class Leave>
void leave_before_others_reduce(mpi_communicator& world, Leave leave) {
  if (world.rank() == 1) {
    pass_seconds(0.2);
    leave();
  }
  reduce_something(world);
}

// Calls beside rank 1, which has to do with nobody's, until it is known to have failed.
void call_until_rank_1_has_failed(mpi_communicator& world, mpi_communicator& alone) {
  while (world.rank() != 1) reduce_something(alone);
}
// An exception that drops a request, and takes its time to its handler.
template <class Start>
void throw_beside_a_request(Start start) {
  const struct slow_to_end {
    ~slow_to_end() { pass_seconds(0.2); }
  } slow;
  const shardkit::request dropped = start();
  throw std::runtime_error("the disk is full");
}
void throw_beside_a_receive(mpi_communicator& world) {
  std::vector<float> data(large);
  mpi_communicator alone = world.split(world.rank());
  if (world.rank() == 1) throw_beside_a_request([&] { return world.recv_async(data, 0); });
  call_until_rank_1_has_failed(world, alone);
}

bool mpi_refuses = false;

}  // namespace
namespace {
bool mpi_refuses_to_start = false;
bool nodes_are_apart = false;       // no connection to another one comes about
bool strangers_come_first = false;  // where nodes connect
bool are_meeting = false;
void send_strangers(const sockaddr* address, socklen_t length) {
  // One with another token in the name of the rank that comes after it, one with nonsense, the rest silent. They stay
  // until the process has ended.
  for (int i = 0; i < 70; ++i) {
    const int stranger = ::socket(address->sa_family, SOCK_STREAM, 0);
    if (stranger < 0 || ::syscall(SYS_connect, stranger, address, length) != 0) std::abort();
    shardkit::detail::greeting other;
    other.rank = is_launched_as("1") ? 1 : 2;
    other.token = std::string(32, '0');
    auto hello = encode(other);
    if (i == 1) hello.fill('x');
    if (i < 2 && ::send(stranger, hello.data(), hello.size(), 0) < 0) std::abort();
  }
}
}  // namespace
extern "C" int connect(int socket, const sockaddr* address, socklen_t length) {
  if (are_meeting && address->sa_family != AF_UNIX) {
    if (nodes_are_apart) {
      errno = EHOSTUNREACH;
      return -1;
    }
    are_meeting = false;
    if (strangers_come_first) send_strangers(address, length);
  }
  return static_cast<int>(::syscall(SYS_connect, socket, address, length));
}
extern "C" int MPI_Comm_dup(MPI_Comm comm, MPI_Comm* copy) {
  return mpi_refuses_to_start ? MPI_ERR_OTHER : PMPI_Comm_dup(comm, copy);
}
// SHARDKIT_TEST_NODE ranks are taken for a node of their own, the first node may have fewer.
extern "C" int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm* part) {
  const char* ranks = std::getenv("SHARDKIT_TEST_NODE");
  if (ranks == nullptr) return PMPI_Comm_split_type(comm, type, key, info, part);
  int rank = 0;
  PMPI_Comm_rank(comm, &rank);
  const int in_node = std::atoi(ranks);
  are_meeting = true;
  return PMPI_Comm_split(comm, (rank + in_node - 1) / in_node, key, part);
}
extern "C" int MPI_Allreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  return mpi_refuses ? MPI_ERR_OP : PMPI_Allreduce(in, out, count, type, op, comm);
}
namespace {

// What outlives MPI.
std::optional<mpi_communicator> kept;
std::optional<shardkit::request> kept_request;

const std::map<std::string, std::function<void(mpi_communicator&)>> scenarios = {
    {"makes two environments", reduce_something},
    {"fine", [](mpi_communicator& world) { reduce_something(world); }},
    {"slow, but within the deadline of each call",
     [](mpi_communicator& world) {
       for (int i = 0; i < 4; ++i) {
         if (world.rank() == 1) pass_seconds(1.2);
         reduce_something(world);
       }
     }},
    {"never comes to the start", reduce_something},
    {"throws", throw_before_others_reduce},
    {"throws unreported", throw_before_others_reduce},
    {"throws and returns zero", throw_before_others_reduce},
    {"throws after others finished",
     [](mpi_communicator& world) {
       if (world.rank() != 1) return;
       pass_seconds(0.3);
       throw std::runtime_error("the disk is full");
     }},
    {"wrong size",
     [](mpi_communicator& world) {
       const std::vector<float> mine(3);
       std::vector<float> all(mine.size() * static_cast<std::size_t>(world.size()) - (world.rank() == 1));
       world.all_gather(mine, all);
     }},
    {"MPI refuses a call",
     [](mpi_communicator& world) {
       reduce_something(world);
       mpi_refuses = world.rank() == 1;
       reduce_something(world);
     }},
    {"never arrives",
     [](mpi_communicator& world) {
       if (world.rank() == 1) pass_seconds(60);
       reduce_something(world);
     }},
    {"declares itself failed",
     [](mpi_communicator& world) {
       if (world.rank() == 1) world.fail("out of memory");
       else pass_seconds(0.3);
       reduce_something(world);
     }},
    {"fails beside a part of the world",
     [](mpi_communicator& world) {
       mpi_communicator part = world.split(world.rank() == 1 ? 1 : 0);
       if (world.rank() == 1) throw std::runtime_error("the disk is full");
       pass_seconds(0.3);
       reduce_something(part);
     }},
    {"receives less than was sent",
     [](mpi_communicator& world) {
       std::vector<float> data(world.rank() == 1 ? 5 : 7);
       if (world.rank() == 0) world.send(data, 1);
       if (world.rank() == 1) world.recv(data, 0);
       pass_seconds(0.3);
       reduce_something(world);
     }},
    {"receives more than was sent",
     [](mpi_communicator& world) {
       std::vector<float> data(world.rank() == 1 ? 7 : 5);
       if (world.rank() == 0) world.send(data, 1);
       if (world.rank() == 1) world.recv(data, 0);
       pass_seconds(0.3);
       reduce_something(world);
     }},
    {"receives less than was sent, in a group",
     [](mpi_communicator& world) {
       // The memory itself is large enough: Open MPI 4.1 writes the whole of a long message before it looks at the
       // size.
       std::vector<float> outgoing(large), incoming(large);
       const int peer = 1 - world.rank();
       if (peer >= 0)
         world.group([&](auto& g) {
           g.send(outgoing, peer);
           g.recv(shardkit::view(incoming.data(), world.rank() == 1 ? large - 1 : large), peer);
         });
       pass_seconds(0.3);
       reduce_something(world);
     }},
    {"receives another number of pieces",
     [](mpi_communicator& world) {  // of 64 bytes, see main
       std::vector<double> data(world.rank() == 1 ? 16 : 32);
       if (world.rank() == 0) world.send(data, 1);
       if (world.rank() == 1) world.recv(data, 0);
       pass_seconds(0.3);
       reduce_something(world);
     }},
    {"drops a receive",
     [](mpi_communicator& world) {
       std::vector<float> data(large);
       if (world.rank() == 1) shardkit::request dropped = world.recv_async(data, 0);
       pass_seconds(0.3);
       reduce_something(world);
     }},
    {"drops a send",
     [](mpi_communicator& world) {
       const std::vector<float> data(large);
       if (world.rank() == 1) shardkit::request dropped = world.send_async(data, 0);
       pass_seconds(0.3);
       reduce_something(world);
     }},
    {"drops a started sum",
     [](mpi_communicator& world) {
       std::vector<float> data(large);
       if (world.rank() == 1) shardkit::request dropped = world.all_reduce_async(in_place(data), sum);
       pass_seconds(0.3);
       reduce_something(world);
     }},
    {"drops a started sum that every rank has started",
     [](mpi_communicator& world) {
       std::vector<float> data(large);
       shardkit::request pending = world.all_reduce_async(in_place(data), sum);
       if (world.rank() == 1) pending = {};
       else pass_seconds(0.3);
       pending.wait();
     }},
    {"throws beside a receive", throw_beside_a_receive},
    {"throws beside a receive, unreported", throw_beside_a_receive},
    {"throws beside a receive, and says so itself",
     [](mpi_communicator& world) {
       try {
         throw_beside_a_receive(world);
       } catch (const std::runtime_error& caught) {
         if (world.rank() == 1) world.fail(std::string("noted: ") + caught.what());
         throw;
       }
     }},
    {"swallows what it throws beside a receive",
     [](mpi_communicator& world) {
       try {
         throw_beside_a_receive(world);
       } catch (const std::runtime_error&) {
         if (world.rank() != 1) throw;
       }
       reduce_something(world);
     }},
    {"throws beside a send",
     [](mpi_communicator& world) {
       std::vector<float> data(large);
       mpi_communicator alone = world.split(world.rank());
       if (world.rank() == 1) throw_beside_a_request([&] { return world.send_async(data, 0); });
       call_until_rank_1_has_failed(world, alone);
     }},
    {"throws while a sum is waited for",
     [](mpi_communicator& world) {
       if (world.rank() == 1) {
         pass_seconds(0.3);
         throw std::runtime_error("the disk is full");
       }
       std::vector<float> data(large);
       world.all_reduce_async(in_place(data), sum).wait();
     }},
    {"throws while a sum is tested",
     [](mpi_communicator& world) {
       if (world.rank() == 1) {
         pass_seconds(0.3);
         throw std::runtime_error("the disk is full");
       }
       std::vector<float> data(large);
       shardkit::request pending = world.all_reduce_async(in_place(data), sum);
       try {
         while (!pending.test()) {
         }
       } catch (const shardkit::peer_failed& failure) {
         std::fprintf(stderr, "the test on rank %d says that rank %d failed\n", world.rank(), failure.culprit());
         throw;
       }
     }},
    {"a started sum is never joined",
     [](mpi_communicator& world) {
       std::vector<float> data(large);
       if (world.rank() == 1) pass_seconds(60);
       world.all_reduce_async(in_place(data), sum).wait();
     }},
    {"a group of two communicators is never joined",
     [](mpi_communicator& world) {
       auto other = world.split(0);
       std::vector<float> data(large);
       if (world.rank() == 1) pass_seconds(60);
       try {
         world.group([&](auto& g) {
           g.barrier();
           g.with(other).all_reduce(in_place(data), sum);
         });
       } catch (const shardkit::timeout_error& late) {
         std::fprintf(stderr, "the group on rank %d: %s\n", world.rank(), late.what());
         throw;
       }
     }},
    {"outlives MPI",
     [](mpi_communicator& world) {
       kept = world.split(0);
       reduce_something(*kept);
       static float value = 0;
       kept_request = kept->send_async(shardkit::view(&value, 1), kept->rank());
       kept->recv(shardkit::view(&value, 1), kept->rank());
     }},
    {"meets strangers", reduce_something},
    {"cannot reach other nodes", reduce_something},
    {"cannot reach other nodes, and need not", reduce_something},
    {"options differ", reduce_something},
    {"MPI refuses to start", reduce_something},
    {"an exception ends a communicator with posts that nobody takes",
     [](mpi_communicator& world) {
       mpi_communicator part = world.split(0);
       shardkit::control_lane& lane = part.control();
       if (world.rank() == 1) {
         lane.post(0, shardkit::control_topic::user, shardkit::control_lane::blob(large));
         throw std::runtime_error("the disk is full");
       }
       pass_seconds(0.3);
       reduce_something(part);
     }},
    {"exits with 0", [](mpi_communicator& world) { leave_before_others_reduce(world, [] { std::exit(0); }); }},
    {"exits with 1", [](mpi_communicator& world) { leave_before_others_reduce(world, [] { std::exit(1); }); }},
    {"ends by _exit(0)", [](mpi_communicator& world) { leave_before_others_reduce(world, [] { ::_exit(0); }); }},
    {"aborts", [](mpi_communicator& world) { leave_before_others_reduce(world, [] { std::abort(); }); }},
    {"gets SIGTERM", [](mpi_communicator& world) { leave_before_others_reduce(world, [] { ::raise(SIGTERM); }); }},
    {"gets SIGKILL", [](mpi_communicator& world) { leave_before_others_reduce(world, [] { ::raise(SIGKILL); }); }},
    {"gets SIGSTOP", [](mpi_communicator& world) { leave_before_others_reduce(world, [] { ::raise(SIGSTOP); }); }},
    {"ends by _exit(0) while nobody waits",
     [](mpi_communicator& world) {
       if (world.rank() == 1) ::_exit(0);
       pass_seconds(0.5);
       reduce_something(world);
     }},
    {"ends by _exit(0) while the others finalise",
     [](mpi_communicator& world) {
       if (world.rank() == 1) leave_before_others_reduce(world, [] { ::_exit(0); });
     }},
    {"uses two communicators in opposite order",
     [](mpi_communicator& world) {
       auto a = world.split(0), b = world.split(0);
       if (world.rank() == 1) b.barrier();
       reduce_something(a);
       if (world.rank() != 1) b.barrier();
     }},
    {"a receive is never sent",
     [](mpi_communicator& world) {
       float value = 0;
       if (world.rank() == 1) world.recv_async(shardkit::view(&value, 1), 0).wait();
     }},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || scenarios.count(argv[1]) == 0) {
    std::fprintf(stderr, "no such scenario\n");
    return 3;
  }
  int rank = -1;
  const auto says = [scenario = std::string(argv[1])](const char* text) {
    return scenario.find(text) != std::string::npos;
  };
  const int failed = says("returns zero") ? 0 : 1;
  try {
    shardkit::mpi_options options;
    options.limits = {30, 2, 1};
    if (says("never comes to the start")) {
      options.limits.init = 2;
      if (is_launched_as("1")) pass_seconds(60);
    }
    if (says("pieces")) options.piece_bytes = 64;
    if (says("options differ") && is_launched_as("1")) options.piece_bytes = 128;
    if (says("cannot reach")) options.limits.init = 4;
    if (says("need not")) options.listen = "none";
    mpi_refuses_to_start = says("MPI refuses to start");
    nodes_are_apart = says("cannot reach");
    strangers_come_first = says("meets strangers");
    shardkit::mpi_environment mpi(argc, argv, options);
    rank = mpi.rank();
    if (says("unreported")) {
      auto world = mpi.world();
      scenarios.at(argv[1])(world);
    } else {
      mpi.run(scenarios.at(argv[1]));
    }
  } catch (const shardkit::peer_failed& failure) {
    std::fprintf(stderr, "caught on rank %d: peer_failed, culprit %d: %s\n", rank, failure.culprit(), failure.what());
    return failed;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "caught on rank %d: %s\n", rank, failure.what());
    return failed;
  }
  if (says("makes two environments")) {
    try {
      shardkit::mpi_environment again(argc, argv);
    } catch (const shardkit::usage_error& refused) {
      std::fprintf(stderr, "again: %s\n", refused.what());
    }
  }
  if (kept) {
    try {
      kept->barrier();
    } catch (const shardkit::usage_error& refused) {
      std::fprintf(stderr, "refused: %s\n", refused.what());
    }
  }
  return 0;
}
