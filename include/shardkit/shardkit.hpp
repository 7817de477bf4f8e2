// Everything that needs no third party. What needs one (MPI, CBLAS, a JSON library) is a header of its own and a
// component of the CMake package.
#pragma once

#include <shardkit/backends/self.hpp>
#include <shardkit/comm/communicator.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/partition.hpp>
#include <shardkit/version.hpp>
