// A layer that needs a space operation, on device memory, in a file that does not include cuda/kernels.cuh.
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/tensor/cublaslt_gemm.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>

using namespace shardkit;

void misuse(any_communicator<cuda_space>& comm, matrix_view<float, cuda_space> any, cublaslt_gemm& gemm,
            cudaStream_t stream) {
  row_parallel_linear layer(comm, any, partition::balanced(8, comm.size()));
#if MISUSE == 0
  layer.partial(any, any, gemm, stream);
#elif MISUSE == 1
  layer.forward(any, any, gemm, stream);
#endif
}
