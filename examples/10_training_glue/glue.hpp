// The multi-GPU glue of a training program: how its processes meet, and an optimiser sharded over them (ZeRO stage 1).
#pragma once

#include <shardkit/shardkit.hpp>
#ifdef WITH_MPI
#include <shardkit/backends/mpi.hpp>
#endif

#include <string>

struct launch {
  std::string method = "threads";  // or mpi, tcp, file
  int processes = 1, rank = 0;     // mpi knows by itself
  std::string server = "127.0.0.1", folder = "/tmp", job = "training";
  int port = 29500;
};

// Calls train(communicator) on every rank.
template <class Train>
void on_ranks(const launch& how, Train train) {
  if (how.method == "threads") return shardkit::run_ranks(how.processes, train);
#ifdef WITH_MPI
  if (how.method == "mpi") return shardkit::mpi_environment().run(train);
#endif
  shardkit::tcp_options meet{how.rank, how.processes, {how.server, how.port, 8, how.server, how.job}, {}};
  if (how.method != "file") return shardkit::tcp_environment(meet).run(train);
  // Rank 0 takes any port and says in the folder which.
  shardkit::file_bootstrap files(how.rank, how.processes, how.folder, how.job);
  const auto exchange = [&](std::string port) {
    const auto told = files.broadcast({port.begin(), port.end()});
    return std::stoi(std::string(told.begin(), told.end()));
  };
  meet.where.port = how.rank == 0 ? 0 : exchange("");
  meet.where.on_listening = [&](int port) { exchange(std::to_string(port)); };
  shardkit::tcp_environment(meet).run(train);
}

// Where every rank updates its shard of the parameters and keeps the optimiser's state of that alone.
template <class Communicator>
struct sharded_optimizer {
  using space = typename Communicator::space;
  using floats = shardkit::view<float, space>;

  Communicator& comm;
  shardkit::partition shards;  // of the parameters; they need not divide

  floats shard(floats all) const { return all.subview(shards.offset(comm.rank()), shards.count(comm.rank())); }

  // Before the update: the mean of the ranks' gradients, each rank those of its shard.
  void reduce(floats gradients, shardkit::at<space> where = {}) {
    comm.reduce_scatter(gradients, shard(gradients), shardkit::average, shards, where);
  }
  // After it: everybody's parameters.
  void gather(floats parameters, shardkit::at<space> where = {}) {
    comm.all_gather(shardkit::in_place(parameters), shards, where);
  }
};
