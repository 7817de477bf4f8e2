// Whole matrices in double (tests/tensor/dense_model.hpp) as device matrices, and back.
#pragma once

#include "../tensor/dense_model.hpp"

#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/space.hpp>

#include <cstddef>
#include <vector>

namespace cublaslt_tests {

/// A double as a T, by way of f32.
template <class T>
T element(double value) {
  return static_cast<T>(static_cast<float>(value));
}

/// Rows [r0, r0 + r) and columns [c0, c0 + c) of a whole matrix, in device memory of their own, `gap` elements of
/// nonsense after each row and `shift` before the first.
template <class T>
class on_device {
 public:
  on_device(const dense::matrix& whole, std::size_t r0, std::size_t r, std::size_t c0, std::size_t c,
            cudaStream_t stream, std::size_t gap = 0, std::size_t shift = 0)
      : rows_(r), columns_(c), stride_(c + gap), shift_(shift), memory_(shift + r * (c + gap)) {
    host_.assign(memory_.size(), element<T>(-12345.5));
    for (std::size_t i = 0; i < r; ++i)
      for (std::size_t j = 0; j < c; ++j) host_[shift + i * stride_ + j] = element<T>(whole(r0 + i, c0 + j));
    shardkit::cuda_space::copy(memory_.data(), host_.data(), host_.size() * sizeof(T), stream);
    shardkit::cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize", stream);
  }
  on_device(const dense::matrix& whole, cudaStream_t stream, std::size_t gap = 0, std::size_t shift = 0)
      : on_device(whole, 0, whole.rows, 0, whole.columns, stream, gap, shift) {}

  shardkit::matrix_view<T, shardkit::cuda_space> view() { return {memory_.data() + shift_, rows_, columns_, stride_}; }
  shardkit::matrix_view<const T, shardkit::cuda_space> view() const {
    return {memory_.data() + shift_, rows_, columns_, stride_};
  }
  /// Of one row.
  shardkit::view<const T, shardkit::cuda_space> flat() const { return {memory_.data() + shift_, columns_}; }

  /// What it holds after everything that the stream holds; false where the nonsense was touched.
  bool fetch(dense::matrix& to, cudaStream_t stream) const {
    std::vector<T> now(memory_.size());
    shardkit::cuda_space::copy(now.data(), memory_.data(), now.size() * sizeof(T), stream);
    shardkit::cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize", stream);
    bool untouched = true;
    for (std::size_t i = 0; i < now.size(); ++i) {
      const std::size_t at = i - shift_;
      if (i < shift_ || at % stride_ >= columns_) untouched = untouched && now[i] == host_[i];
      else to(at / stride_, at % stride_) = static_cast<double>(now[i]);
    }
    return untouched;
  }

 private:
  std::size_t rows_, columns_, stride_, shift_;
  shardkit::buffer<T, shardkit::cuda_space> memory_;
  std::vector<T> host_;
};

/// The value as T holds it.
template <class T>
dense::matrix rounded(dense::matrix m) {
  for (double& value : m.values) value = static_cast<double>(element<T>(value));
  return m;
}

}  // namespace cublaslt_tests
