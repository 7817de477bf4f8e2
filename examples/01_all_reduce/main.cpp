// Four ranks, each with gradients of its own; after the all_reduce every rank holds their mean.
#include <shardkit/shardkit.hpp>

#include <cstdio>
#include <vector>

using namespace shardkit;

int main() {
  run_ranks(4, [](thread_communicator& comm) {
    std::vector<float> gradients(3, static_cast<float>(10 * comm.rank()));  // 0, 10, 20 and 30
    comm.all_reduce(in_place(gradients), average);

    const int agreeing = comm.all_reduce(gradients[0] == 15 ? 1 : 0, sum);  // single numbers need no buffer
    if (comm.is_root()) std::printf("mean gradient %g on %d of %d ranks\n", gradients[0], agreeing, comm.size());
  });
}
