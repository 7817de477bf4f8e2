// The elementwise steps and the attention of a Llama layer, on float32 host buffers.
#pragma once

#include <shardkit/core/buffer.hpp>
#include <shardkit/core/view.hpp>

#include <cstddef>
#include <vector>

namespace llama {

using matrix = shardkit::matrix_view<float>;
using const_matrix = shardkit::matrix_view<const float>;

/// out[i,:] = x[i,:] / sqrt(mean(x[i,:]^2) + epsilon) * weight (arXiv 1910.07467).
void rms_norm(const_matrix x, shardkit::view<const float> weight, float epsilon, matrix out);

/// Rotary position embedding (arXiv 2104.09864) in the layout of Hugging Face: the two members of a pair lie half a
/// head apart.
class rotary_embedding {
 public:
  rotary_embedding(std::size_t head_dim, float base, std::size_t positions);

  /// Rotates x [tokens, heads * head_dim]; row i stands at first_position + i.
  void apply(matrix x, std::size_t first_position) const;

  std::size_t head_dim() const noexcept { return head_dim_; }
  /// Of the angles, [positions, head_dim / 2].
  const std::vector<float>& cosine() const noexcept { return cosine_; }
  const std::vector<float>& sine() const noexcept { return sine_; }

 private:
  std::size_t head_dim_;
  std::vector<float> cosine_, sine_;
};

/// gate = silu(gate) * up, where silu(x) = x / (1 + exp(-x)).
void silu_multiply(matrix gate, const_matrix up);

/// Keys and values of one sequence in one layer, for this rank's key/value heads. Values are kept transposed, so that
/// both products of attention multiply with contiguous rows.
class kv_cache {
 public:
  kv_cache(std::size_t kv_heads, std::size_t head_dim, std::size_t positions);

  /// Appends k and v [tokens, kv_heads * head_dim] at first_position.
  void store(const_matrix k, const_matrix v, std::size_t first_position);

  const_matrix keys(std::size_t kv_head, std::size_t length) const;               ///< [length, head_dim]
  const_matrix transposed_values(std::size_t kv_head, std::size_t length) const;  ///< [head_dim, length]

 private:
  std::size_t kv_heads_, head_dim_, positions_;
  shardkit::buffer<float> keys_, values_;
};

/// A query head of this rank and the key/value head, also of this rank, that it reads.
struct head_pair {
  std::size_t query, kv;
};

/// Causal attention of q [tokens, heads * head_dim], whose row i stands at first_position + i and sees the cache up to
/// itself; out has the shape of q. `scores` is scratch, grown as needed and kept.
void attend(const_matrix q, const kv_cache& cache, const std::vector<head_pair>& heads, std::size_t head_dim,
            std::size_t first_position, std::vector<float>& scores, matrix out);

}  // namespace llama
