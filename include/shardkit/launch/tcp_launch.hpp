// From what a launcher set to the options of a tcp_environment: torchrun and srun steps without MPI, explicit values.
#pragma once

#include <shardkit/backends/tcp.hpp>
#include <shardkit/launch/launch_environment.hpp>

#include <cstdlib>
#include <string>

namespace shardkit {

/// Rank 0 is met at MASTER_ADDR (torchrun), on the first host of the step (srun) or at SHARDKIT_HOST. The port is
/// SHARDKIT_PORT where that is set. Else rank 0 takes a free one of eight that every rank derives by itself: from
/// MASTER_PORT + 1 on, because MASTER_PORT itself may serve torchrun's own store, or from the job and step of srun; the
/// others try the eight in turn and recognise rank 0 by the token.
///
/// Rank 0 listens on the address that this host name has on its machine, or on SHARDKIT_LISTEN: set it where the name
/// stands for the loopback address there and there are several nodes. The token is SHARDKIT_JOB_TOKEN, or the run id of
/// torchrun, or job and step: anybody who knows the job can tell these, so set a secret one where strangers can reach
/// the port. Where none of these is set, only a loopback address is accepted.
inline tcp_options tcp_options_for(const launch_environment& launch) {
  tcp_options options;
  options.rank = launch.rank;
  options.size = launch.size;
  options.where.token = launch.job;
  options.where.port = launch.port;
  options.where.ports = launch.ports;
  if (!launch.host.empty()) {
    options.where.host = launch.host;
    options.where.listen = launch.host;
  }
  if (const char* listen = std::getenv("SHARDKIT_LISTEN")) options.where.listen = listen;
  return options;
}

}  // namespace shardkit
