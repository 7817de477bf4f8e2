// A kernel as users write them; on the double, kernels.cpp says what it does.
#include <cuda_double/scale.hpp>

namespace cuda_double_test {
namespace {

template <class T>
__global__ void scale_kernel(T* values, T factor, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) values[i] *= factor;
}

__global__ void without_stand_in() {}

}  // namespace

void scale(float* values, float factor, int count, unsigned blocks, cudaStream_t stream) {
  scale_kernel<<<blocks, 128, 0, stream>>>(values, factor, count);
}
void scale(double* values, double factor, int count, unsigned blocks, cudaStream_t stream) {
  scale_kernel<<<blocks, 128, 0, stream>>>(values, factor, count);
}
void launch_without_stand_in(cudaStream_t stream) { without_stand_in<<<1, 1, 0, stream>>>(); }

}  // namespace cuda_double_test
