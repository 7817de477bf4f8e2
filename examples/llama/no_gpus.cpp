#include "run.hpp"

#include <shardkit/core/error.hpp>

namespace llama {
namespace {

[[noreturn]] void refuse() {
  throw shardkit::usage_error(
      "--device cuda: this program was built without CUDA. Run llama_cuda, which is built where CMake finds CUDA with "
      "nvcc and cuBLASLt; or leave --device out");
}

}  // namespace

void run_on_gpus(shardkit::thread_communicator&, const options&) { refuse(); }
#ifdef LLAMA_WITH_MPI
void run_on_gpus(shardkit::mpi_communicator&, const options&) { refuse(); }
#endif

}  // namespace llama
