#include "kernels.hpp"

#include <shardkit/tensor/cblas_gemm.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace llama {
namespace {

// exp(x) for x <= 0 to 2 ulp, in a form that compilers vectorise: 2^k times a polynomial on [-ln2/2, ln2/2] (Cephes).
inline float exp_of_negative(float x) {
  const float clamped = std::max(x, -87.0f);
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // rounds to an integer in the low mantissa bits
  const float k = shifted - 12582912.0f;
  const float r = (clamped - k * 0.693359375f) + k * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  std::int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits + 127) << 23;  // the constant's own bits are shifted out
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

// Combines map(value) of all values in 16 independent lanes, which compilers turn into vectors without being told to
// reorder sums.
template <class Map, class Combine>
float reduce_lanes(const float* values, std::size_t count, float start, Map map, Combine combine) {
  constexpr std::size_t lanes = 16;
  float lane[lanes];
  std::fill_n(lane, lanes, start);
  const std::size_t whole = count / lanes * lanes;
  for (std::size_t i = 0; i < whole; i += lanes)
    for (std::size_t j = 0; j < lanes; ++j) lane[j] = combine(lane[j], map(values[i + j]));
  for (std::size_t i = whole; i < count; ++i) lane[0] = combine(lane[0], map(values[i]));
  for (std::size_t j = 1; j < lanes; ++j) lane[0] = combine(lane[0], lane[j]);
  return lane[0];
}

constexpr auto itself = [](float value) { return value; };
constexpr auto square = [](float value) { return value * value; };
constexpr auto plus = [](float a, float b) { return a + b; };
constexpr auto larger = [](float a, float b) { return a < b ? b : a; };

// Softmax over the first `visible` scores; the rest of the row becomes 0.
void softmax(float* row, std::size_t visible, std::size_t length) {
  const float largest = reduce_lanes(row, visible, row[0], itself, larger);
  for (std::size_t i = 0; i < visible; ++i) row[i] = exp_of_negative(row[i] - largest);
  const float scale = 1.0f / reduce_lanes(row, visible, 0.0f, itself, plus);
  for (std::size_t i = 0; i < visible; ++i) row[i] *= scale;
  std::fill(row + visible, row + length, 0.0f);
}

// Rows of q that read the same keys: out = softmax(q keys^T / sqrt(head_dim)) values. Row i sees `visible(i)` keys.
template <class Visible>
void attend_rows(const_matrix q, const kv_cache& cache, std::size_t kv_head, matrix scores, Visible visible,
                 matrix out) {
  const std::size_t length = scores.columns();
  const shardkit::cblas_gemm gemm;
  shardkit::gemm_args<float> scaled;
  scaled.alpha = 1.0f / std::sqrt(static_cast<float>(q.columns()));
  gemm(q, cache.keys(kv_head, length), scores, scaled, {});
  for (std::size_t i = 0; i < q.rows(); ++i) softmax(&scores(i, 0), visible(i), length);
  gemm(const_matrix(scores), cache.transposed_values(kv_head, length), out, {}, {});
}

}  // namespace

void rms_norm(const_matrix x, shardkit::view<const float> weight, float epsilon, matrix out) {
  for (std::size_t i = 0; i < x.rows(); ++i) {
    const float* from = &x(i, 0);
    float* to = &out(i, 0);
    const float squares = reduce_lanes(from, x.columns(), 0.0f, square, plus);
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(x.columns()) + epsilon);
    for (std::size_t j = 0; j < x.columns(); ++j) to[j] = from[j] * scale * weight[j];
  }
}

rotary_embedding::rotary_embedding(std::size_t head_dim, float base, std::size_t positions)
    : head_dim_(head_dim), cosine_(positions * head_dim / 2), sine_(positions * head_dim / 2) {
  const std::size_t half = head_dim / 2;
  for (std::size_t pair = 0; pair < half; ++pair) {
    // In single precision, as the models were trained and as transformers computes it.
    const float frequency = 1.0f / std::pow(base, static_cast<float>(2 * pair) / static_cast<float>(head_dim));
    for (std::size_t position = 0; position < positions; ++position) {
      const float angle = static_cast<float>(position) * frequency;
      cosine_[position * half + pair] = std::cos(angle);
      sine_[position * half + pair] = std::sin(angle);
    }
  }
}

void rotary_embedding::apply(matrix x, std::size_t first_position) const {
  const std::size_t half = head_dim_ / 2;
  for (std::size_t i = 0; i < x.rows(); ++i) {
    const float* cosine = &cosine_[(first_position + i) * half];
    const float* sine = &sine_[(first_position + i) * half];
    for (std::size_t head = 0; head < x.columns(); head += head_dim_) {
      float* first = &x(i, head);
      float* second = first + half;
      for (std::size_t pair = 0; pair < half; ++pair) {
        const float a = first[pair], b = second[pair];
        first[pair] = a * cosine[pair] - b * sine[pair];
        second[pair] = b * cosine[pair] + a * sine[pair];
      }
    }
  }
}

void silu_multiply(matrix gate, const_matrix up) {
  for (std::size_t i = 0; i < gate.rows(); ++i) {
    float* x = &gate(i, 0);
    const float* other = &up(i, 0);
    for (std::size_t j = 0; j < gate.columns(); ++j) {
      // sigmoid(x) from exp(-|x|), which cannot overflow.
      const float e = exp_of_negative(-std::abs(x[j]));
      x[j] *= (x[j] < 0 ? e : 1.0f) / (1.0f + e) * other[j];
    }
  }
}

kv_cache::kv_cache(std::size_t kv_heads, std::size_t head_dim, std::size_t positions)
    : kv_heads_(kv_heads),
      head_dim_(head_dim),
      positions_(positions),
      keys_(kv_heads * head_dim * positions),
      values_(kv_heads * head_dim * positions) {}

void kv_cache::store(const_matrix k, const_matrix v, std::size_t first_position) {
  for (std::size_t i = 0; i < k.rows(); ++i)
    for (std::size_t head = 0; head < kv_heads_; ++head) {
      const std::size_t position = first_position + i;
      std::copy_n(&k(i, head * head_dim_), head_dim_, &keys_[(head * positions_ + position) * head_dim_]);
      for (std::size_t j = 0; j < head_dim_; ++j)
        values_[(head * head_dim_ + j) * positions_ + position] = v(i, head * head_dim_ + j);
    }
}

const_matrix kv_cache::keys(std::size_t kv_head, std::size_t length) const {
  return {&keys_[kv_head * positions_ * head_dim_], length, head_dim_};
}
const_matrix kv_cache::transposed_values(std::size_t kv_head, std::size_t length) const {
  return {&values_[kv_head * head_dim_ * positions_], head_dim_, length, positions_};
}

void attend(const_matrix q, const kv_cache& cache, const std::vector<head_pair>& heads, std::size_t head_dim,
            std::size_t first_position, std::vector<float>& scratch, matrix out) {
  // Blocks of rows, each multiplied with no more keys than its last row sees. The query heads of a key/value head are
  // rows of one product.
  constexpr std::size_t block = 64;
  for (std::size_t first = 0, last; first < heads.size(); first = last) {
    last = first + 1;
    while (last < heads.size() && heads[last].kv == heads[first].kv) ++last;
    const std::size_t group = last - first, column = heads[first].query * head_dim;
    for (std::size_t row = 0; row < q.rows(); row += block) {
      const std::size_t rows = std::min(block, q.rows() - row), length = first_position + row + rows;
      const std::size_t part = rows * group * head_dim;
      scratch.resize(std::max(scratch.size(), 2 * part + rows * group * length));
      const matrix queries(scratch.data(), rows * group, head_dim);
      const matrix results(scratch.data() + part, rows * group, head_dim);
      const matrix scores(scratch.data() + 2 * part, rows * group, length);
      for (std::size_t i = 0; i < rows; ++i) std::copy_n(&q(row + i, column), group * head_dim, &queries(i * group, 0));
      attend_rows(
          queries, cache, heads[first].kv, scores, [&](std::size_t i) { return first_position + row + i / group + 1; },
          results);
      for (std::size_t i = 0; i < rows; ++i)
        std::copy_n(&results(i * group, 0), group * head_dim, &out(row + i, column));
    }
  }
}

}  // namespace llama
