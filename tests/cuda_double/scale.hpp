// Launches of the kernels in scale.cu.
#pragma once

#include <cuda_runtime_api.h>

namespace cuda_double_test {

/// values[i] *= factor for i < count, by `blocks` blocks of 128 threads.
void scale(float* values, float factor, int count, unsigned blocks, cudaStream_t stream);
void scale(double* values, double factor, int count, unsigned blocks, cudaStream_t stream);

void launch_without_stand_in(cudaStream_t stream);

}  // namespace cuda_double_test
