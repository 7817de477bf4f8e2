// Memory of the wrong side for each value of MISUSE; MISUSE 0 is right and must compile.
#include <shardkit/backends/nccl.hpp>
#include <shardkit/backends/self.hpp>
#include <shardkit/core/buffer.hpp>

#include <vector>

using namespace shardkit;

void use(nccl_communicator& device, self_communicator& host, cuda_stream& stream) {
  std::vector<float> here(1);
  buffer<float, cuda_space> there(1);
#if MISUSE == 0
  device.all_reduce(in_place(there), sum, stream);
  host.all_reduce(in_place(here), sum);
#elif MISUSE == 1
  device.all_reduce(in_place(here), sum, stream);
#elif MISUSE == 2
  host.all_reduce(in_place(there), sum);
#endif
}
