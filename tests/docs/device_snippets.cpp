// What cuda.md quotes: needs CUDA and NCCL, or their double, and two devices.
#include <shardkit/backends/nccl.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/fork.hpp>
#include <shardkit/shardkit.hpp>

#include <cstdio>
#include <vector>

using namespace shardkit;

int main() {
  run_ranks(2, [](thread_communicator& threads) {
    // [start]
    cuda_check(cudaSetDevice(threads.rank()), "cudaSetDevice");
    const cuda_stream compute, communication;
    auto comm = nccl_world(threads);  // or over mpi.world(), tcp.world(), a file_bootstrap
    // [start]
    std::vector<float> host(7, 1.0f);
    // [overlap]
    buffer<float, cuda_space> gradients(7), parameters(7);
    copy(gradients, host, compute);
    auto pending = comm.all_reduce_async(in_place(gradients), sum, shardkit::fork{compute, communication});
    copy(parameters, host, compute);  // kernels that need no gradients run meanwhile
    pending.wait();                   // the compute stream waits from here on, the host does not
    // [overlap]
    // [uneven]
    const partition cut = partition::balanced(7, comm.size());  // 4 and 3
    comm.all_gather(in_place(parameters), cut, compute);
    // [uneven]
    // [wait]
    copy(host, gradients, compute);
    synchronize(compute, 60, comm);  // at most 60 seconds, and no longer than until a peer has failed
    // [wait]
    if (comm.is_root()) std::printf("sum %g\n", static_cast<double>(host[6]));
  });
}
