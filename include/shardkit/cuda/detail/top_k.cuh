// Choosing the first k candidates of a row: a block for each row chooses one after the other, each time the first of
// those that come after the last. No memory beside the outputs, the same answer whatever the number of threads, and
// for k = 1, greedy decoding, one pass. For nvcc alone.
#pragma once

#include <shardkit/core/operations.hpp>
#include <shardkit/cuda/detail/launching.cuh>

#include <algorithm>
#include <cstddef>

namespace shardkit::detail {

/// Candidates of a row of scores.
template <class T>
struct scored_columns {
  const T* scores;
  std::size_t row_stride, columns, first_index;

  __host__ __device__ std::size_t size() const { return columns; }
  __host__ __device__ candidate<T> operator()(std::size_t row, std::size_t i) const {
    return {static_cast<typename candidate<T>::score_type>(widen(scores[row * row_stride + i])),
            static_cast<typename candidate<T>::index_type>(first_index + i)};
  }
};

/// Candidates that `top_k` has chosen: [list_count, rows, k].
template <class T>
struct candidate_lists {
  const candidate<T>* lists;
  std::size_t list_count, rows, k;

  __host__ __device__ std::size_t size() const { return list_count * k; }
  __host__ __device__ candidate<T> operator()(std::size_t row, std::size_t i) const {
    return lists[(i / k * rows + row) * k + i % k];
  }
};

/// Where chosen candidates go: as they are, or their indices and, where they are wanted, scores.
template <class T>
struct candidate_cells {
  candidate<T>* best;
  std::size_t row_stride;

  __host__ __device__ void put(std::size_t row, std::size_t place, const candidate<T>& one) const {
    best[row * row_stride + place] = one;
  }
};
template <class T, class Id>
struct index_cells {
  Id* indices;
  std::size_t index_stride;
  T* scores;
  std::size_t score_stride;

  __host__ __device__ void put(std::size_t row, std::size_t place, const candidate<T>& one) const {
    indices[row * index_stride + place] = static_cast<Id>(one.index);
    if (scores != nullptr) scores[row * score_stride + place] = narrow<T>(static_cast<computed<T>>(one.score));
  }
};

constexpr unsigned choosing_threads = 256;

template <class T, class From, class To>
__global__ void __launch_bounds__(choosing_threads) choose(From from, To to, std::size_t rows, std::size_t k) {
  __shared__ candidate<T> first_of[choosing_threads];
  for (std::size_t row = blockIdx.x; row < rows; row += gridDim.x) {
    candidate<T> last = candidate<T>::none();
    for (std::size_t place = 0; place < k; ++place) {
      candidate<T> first = candidate<T>::none();
      if (place == 0 || last.index >= 0) {
        for (std::size_t i = threadIdx.x; i < from.size(); i += choosing_threads) {
          const candidate<T> one = from(row, i);
          if (place != 0 && !chosen_before(last, one)) continue;
          if (chosen_before(one, first)) first = one;
        }
      }
      first_of[threadIdx.x] = first;
      __syncthreads();
      for (unsigned half = choosing_threads / 2; half != 0; half /= 2) {
        if (threadIdx.x < half && chosen_before(first_of[threadIdx.x + half], first_of[threadIdx.x]))
          first_of[threadIdx.x] = first_of[threadIdx.x + half];
        __syncthreads();
      }
      last = first_of[0];
      if (threadIdx.x == 0) to.put(row, place, last);
      __syncthreads();  // everyone has read it before it is written anew
    }
  }
}

template <class T, class From, class To>
void launch_choose(const char* name, const From& from, const To& to, std::size_t rows, std::size_t k,
                   const at<cuda_space>& where) {
  if (rows == 0 || k == 0) return;
  constexpr std::size_t most_blocks = 65535;
  launch(name, &choose<T, From, To>, dim3(static_cast<unsigned>(std::min(rows, most_blocks))), dim3(choosing_threads),
         where, from, to, rows, k);
}

}  // namespace shardkit::detail
