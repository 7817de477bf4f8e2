// Stands for the vendor's engine (TensorRT's IExecutionContext has the same shape): tensors by name, addresses that the
// program sets, work that is enqueued on a stream. This one cuts images into patches, as the first layer of a vision
// transformer does. It knows nothing of ranks.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstring>

class network {
 public:
  static constexpr std::size_t side = 8, patch = 4;  // of an image, of a patch
  static constexpr std::size_t pixels = side * side, patches = pixels / (patch * patch);

  explicit network(std::size_t images) : images_(images) {}

  /// "images" is [images, side, side], "patches" is [images, patches, patch, patch].
  bool set_tensor_address(const char* name, void* address) {
    if (std::strcmp(name, "images") == 0) input_ = static_cast<float*>(address);
    else if (std::strcmp(name, "patches") == 0) output_ = static_cast<float*>(address);
    else return false;
    return true;
  }

  bool enqueue(cudaStream_t stream) {
    float* to = output_;
    for (std::size_t image = 0; image < images_; ++image)
      for (std::size_t y = 0; y < side; y += patch)
        for (std::size_t x = 0; x < side; x += patch, to += patch * patch)
          if (cudaMemcpy2DAsync(to, patch * sizeof(float), input_ + image * pixels + y * side + x, side * sizeof(float),
                                patch * sizeof(float), patch, cudaMemcpyDeviceToDevice, stream) != cudaSuccess)
            return false;
    return true;
  }

 private:
  std::size_t images_;
  float *input_ = nullptr, *output_ = nullptr;
};
