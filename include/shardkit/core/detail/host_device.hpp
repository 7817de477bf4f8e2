// Marks what kernels call as well as the host, so that both have one definition. Only nvcc knows the marks.
#pragma once

#if defined(__CUDACC__)
#define SHARDKIT_HOST_DEVICE __host__ __device__
#else
#define SHARDKIT_HOST_DEVICE
#endif
