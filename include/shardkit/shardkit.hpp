// Everything that needs no third party. What needs one (MPI, CBLAS, a JSON library) is a header of its own and a
// component of the CMake package.
#pragma once

#if __cplusplus < 202002L
#error "shardkit: this needs C++20, -std=c++20; C++17 sources include from core/ and comm/, as any_communicator.hpp"
#endif

#include <shardkit/backends/self.hpp>
#include <shardkit/backends/tcp.hpp>
#include <shardkit/backends/threads.hpp>
#include <shardkit/comm/agreement.hpp>
#include <shardkit/comm/any_call.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/blobs.hpp>
#include <shardkit/comm/checked.hpp>
#include <shardkit/comm/communicator.hpp>
#include <shardkit/comm/control.hpp>
#include <shardkit/comm/faulty.hpp>
#include <shardkit/comm/mesh.hpp>
#include <shardkit/comm/on_rank.hpp>
#include <shardkit/comm/overlay.hpp>
#include <shardkit/comm/pad_to_max.hpp>
#include <shardkit/comm/subset.hpp>
#include <shardkit/comm/traced.hpp>
#include <shardkit/comm/verify_replay.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/operations.hpp>
#include <shardkit/core/partition.hpp>
#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/matrix_split.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/segmented_partition.hpp>
#include <shardkit/data/split.hpp>
#include <shardkit/data/split_indices.hpp>
#include <shardkit/data/split_segments.hpp>
#include <shardkit/launch/callback_bootstrap.hpp>
#include <shardkit/launch/communicator_bootstrap.hpp>
#include <shardkit/launch/file_bootstrap.hpp>
#include <shardkit/launch/launch_environment.hpp>
#include <shardkit/launch/launched_size.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/launch/tcp_bootstrap.hpp>
#include <shardkit/launch/tcp_launch.hpp>
#include <shardkit/launch/thread_bootstrap.hpp>
#include <shardkit/pipeline/balance.hpp>
#include <shardkit/pipeline/decode_ring.hpp>
#include <shardkit/pipeline/deliver.hpp>
#include <shardkit/pipeline/stage.hpp>
#include <shardkit/tensor/column_parallel_linear.hpp>
#include <shardkit/tensor/gated_mlp.hpp>
#include <shardkit/tensor/packed_column_linear.hpp>
#include <shardkit/tensor/qkv.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>
#include <shardkit/tensor/simd_gemm.hpp>
#include <shardkit/tensor/vocabulary.hpp>
#include <shardkit/version.hpp>
