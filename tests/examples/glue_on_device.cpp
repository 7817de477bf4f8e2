// The glue of 10_training_glue on device memory and NCCL, unchanged: the mean of the ranks' gradients arrives at the
// rank that keeps the shard, and the updated shards at all ranks.
#include "../../examples/10_training_glue/glue.hpp"

#include <shardkit/backends/nccl.hpp>
#include <shardkit/cuda/copy.hpp>

#include <cstdio>
#include <vector>

using namespace shardkit;

int main() {
  on_ranks({.method = "threads", .processes = 2}, [](auto& host_ranks) {
    cuda_check(cudaSetDevice(host_ranks.rank()), "cudaSetDevice");
    const cuda_stream stream;
    auto comm = nccl_world(host_ranks);
    constexpr std::size_t parameters = 7;
    sharded_optimizer<nccl_communicator> optimizer{comm, partition::balanced(parameters, comm.size())};

    std::vector<float> host(parameters, static_cast<float>(2 + 4 * comm.rank()));  // 2 and 6: the mean is 4
    buffer<float, cuda_space> gradients(parameters), weights(parameters);
    copy(gradients, host, stream);
    optimizer.reduce(view_of(gradients), stream);
    copy(optimizer.shard(view_of(weights)), optimizer.shard(view_of(gradients)), stream);  // stands for the update
    optimizer.gather(view_of(weights), stream);
    copy(host, weights, stream);
    synchronize(stream, 60, comm);

    bool right = true;
    for (float weight : host) right = right && weight == 4;
    const int agreeing = host_ranks.all_reduce(right ? 1 : 0, sum);
    if (host_ranks.is_root()) std::printf("%d ranks are right\n", agreeing);
  });
}
