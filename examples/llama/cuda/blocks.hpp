// The CUDA kernels of this engine, as the code of one block of threads: simple ones, that a faster engine replaces.
// nvcc compiles it for the GPU. A host compiler takes it, too: so the tests run this very code without a GPU.
//
// `Team` is the block's threads: thread() of threads(), `shared` memory of shared_floats, and meet(), the barrier.
#pragma once

#include "../kernels.hpp"

#include <cmath>
#include <cstddef>

#ifdef __CUDACC__
#define LLAMA_ON_DEVICE __device__
#else
#define LLAMA_ON_DEVICE
#endif

namespace llama::blocks {

/// The most threads of a block.
inline constexpr unsigned most_threads = 256;

/// A row-major matrix.
template <class T>
struct rows_of {
  T* data;
  std::size_t stride;

  LLAMA_ON_DEVICE T* operator[](std::size_t row) const { return data + row * stride; }
};

/// Block i: out[i,:] = x[i,:] / sqrt(mean(x[i,:]^2) + epsilon) * weight.
struct rms_norm {
  static constexpr unsigned shared_floats = most_threads;

  rows_of<const float> x;
  const float* weight;
  float epsilon;
  rows_of<float> out;
  std::size_t columns;

  template <class Team>
  LLAMA_ON_DEVICE void operator()(std::size_t row, const Team& team) const {
    const float* from = x[row];
    float own = 0;
    for (std::size_t j = team.thread(); j < columns; j += team.threads()) own += from[j] * from[j];
    team.shared[team.thread()] = own;
    team.meet();
    float squares = 0;
    for (unsigned i = 0; i < team.threads(); ++i) squares += team.shared[i];
    const float scale = 1.0f / sqrtf(squares / static_cast<float>(columns) + epsilon);
    for (std::size_t j = team.thread(); j < columns; j += team.threads()) out[row][j] = from[j] * scale * weight[j];
  }
};

/// Block i: rotates row i of x [tokens, heads * head_dim], which stands at first_position + i; see rotary_embedding.
struct rotate {
  static constexpr unsigned shared_floats = 1;

  rows_of<float> x;
  rows_of<const float> cosine, sine;  // [positions, head_dim / 2]
  std::size_t head_count, head_dim, first_position;

  template <class Team>
  LLAMA_ON_DEVICE void operator()(std::size_t row, const Team& team) const {
    const std::size_t half = head_dim / 2;
    for (std::size_t i = team.thread(); i < head_count * half; i += team.threads()) {
      const std::size_t pair = i % half;
      float* const first = x[row] + i / half * head_dim + pair;
      float* const second = first + half;
      const float c = cosine[first_position + row][pair], s = sine[first_position + row][pair];
      const float a = *first, b = *second;
      *first = a * c - b * s;
      *second = b * c + a * s;
    }
  }
};

/// Block i: row i of k and v [tokens, kv_heads * head_dim] to the caches [kv_heads, positions, head_dim].
struct store {
  static constexpr unsigned shared_floats = 1;

  rows_of<const float> k, v;
  float *keys, *values;
  std::size_t kv_heads, head_dim, positions, first_position;

  template <class Team>
  LLAMA_ON_DEVICE void operator()(std::size_t row, const Team& team) const {
    for (std::size_t i = team.thread(); i < kv_heads * head_dim; i += team.threads()) {
      const std::size_t to = (i / head_dim * positions + first_position + row) * head_dim + i % head_dim;
      keys[to] = k[row][i];
      values[to] = v[row][i];
    }
  }
};

/// Block i * head_count + h: query head h of row i, which stands at first_position + i and sees the cache up to itself.
/// The softmax is taken over some keys at a time, with what came before scaled down when a larger score turns up
/// (arXiv 1805.02867), so that sequences may have any length.
struct attend {
  static constexpr unsigned shared_floats = 128;  // as many keys at a time

  rows_of<const float> q;
  const float *keys, *values;  // [kv_heads, positions, head_dim]
  const head_pair* heads;
  std::size_t head_count, head_dim, positions, first_position;
  rows_of<float> out;

  template <class Team>
  LLAMA_ON_DEVICE void operator()(std::size_t block, const Team& team) const {
    const std::size_t row = block / head_count, visible = first_position + row + 1;
    const head_pair head = heads[block % head_count];
    const float* const query = q[row] + head.query * head_dim;
    const float* const key = keys + head.kv * positions * head_dim;
    const float* const value = values + head.kv * positions * head_dim;
    float* const result = out[row] + head.query * head_dim;
    float* const scores = team.shared;
    const float scale = 1.0f / sqrtf(static_cast<float>(head_dim));

    float largest = -INFINITY, total = 0;
    for (std::size_t j = team.thread(); j < head_dim; j += team.threads()) result[j] = 0;
    for (std::size_t first = 0; first < visible; first += shared_floats) {
      const std::size_t count = visible - first < shared_floats ? visible - first : shared_floats;
      for (std::size_t i = team.thread(); i < count; i += team.threads()) {
        float product = 0;
        for (std::size_t j = 0; j < head_dim; ++j) product += query[j] * key[(first + i) * head_dim + j];
        scores[i] = product * scale;
      }
      team.meet();
      const float before = largest;
      for (std::size_t i = 0; i < count; ++i) largest = fmaxf(largest, scores[i]);
      team.meet();
      for (std::size_t i = team.thread(); i < count; i += team.threads()) scores[i] = expf(scores[i] - largest);
      team.meet();
      const float shrink = expf(before - largest);  // 0 at first
      total *= shrink;
      for (std::size_t i = 0; i < count; ++i) total += scores[i];
      for (std::size_t j = team.thread(); j < head_dim; j += team.threads()) {
        float sum = result[j] * shrink;
        for (std::size_t i = 0; i < count; ++i) sum += scores[i] * value[(first + i) * head_dim + j];
        result[j] = sum;
      }
      team.meet();
    }
    for (std::size_t j = team.thread(); j < head_dim; j += team.threads()) result[j] /= total;
  }
};

}  // namespace llama::blocks
