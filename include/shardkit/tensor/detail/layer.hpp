// What all parallel layers check, and how they say so: a rank that finds its arguments wrong fails the communicator
// first, so that no peer waits for it, and then throws usage_error with its rank, the layer and the user's line.
#pragma once

#include <shardkit/core/at.hpp>
#include <shardkit/core/operations.hpp>
#include <shardkit/data/detail/items.hpp>
#include <shardkit/tensor/gemm.hpp>
#include <shardkit/tensor/layout.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>

namespace shardkit::detail {

/// Weights whose extents can be read. Opaque ones (packed, quantised) need not have any.
template <class Weights>
concept has_extents = requires(const Weights& weights) {
  { weights.rows() } -> std::convertible_to<std::size_t>;
  { weights.columns() } -> std::convertible_to<std::size_t>;
};

/// The elements of x that a layer takes: those of y, unless its weights say otherwise.
template <class Weights, class T>
struct input_of_weights {
  using type = T;
};
template <class Weights, class T>
requires requires { typename Weights::input_type; }
struct input_of_weights<Weights, T> {
  using type = typename Weights::input_type;
};
template <class Weights, class T>
using input_element = typename input_of_weights<Weights, T>::type;

inline void require_parts(const participant& who, const char* layer, const char* what, int parts) {
  if (parts != who.size())
    who.reject(layer, std::string("the partition of ") + what + " is over " + std::to_string(parts) +
                          " ranks and the communicator has " + std::to_string(who.size()) +
                          "; make it for the communicator's size");
}

/// What is summed or searched over the ranks must not be held twice.
inline void require_held_once(const participant& who, const char* layer, const char* what, const partition& cut) {
  if (cut.replica_count() != 1)
    who.reject(layer, std::string("the partition of ") + what + " has replicas, which would be counted " +
                          std::to_string(cut.replica_count()) + " times; divide them over all ranks");
}

/// Calls the GEMM of a layer; one readable line where it is none. Where it throws, nobody waits for this rank.
template <class T, class Space, class Input, class Gemm, class Weights>
void multiply(const participant& who, const char* layer, Gemm& gemm, matrix_view<const Input, Space> x,
              const Weights& weights, matrix_view<T, Space> y, const gemm_args<T, Space>& args,
              const at<Space>& where) {
  static_assert(gemm_for<Gemm, Weights, T, Space, Input>,
                "shardkit: this GEMM cannot be called as gemm(x, weights, y, gemm_args<T, Space>, stream) with the "
                "layer's weights and element type; see shardkit/tensor/gemm.hpp");
  if constexpr (gemm_for<Gemm, Weights, T, Space, Input>) {
    try {
      gemm(x, weights, y, args, where);
    } catch (const std::exception& failure) {
      who.fail(layer, failure.what());
      throw;
    } catch (...) {
      who.fail(layer, "the GEMM threw what is not a std::exception");
      throw;
    }
  }
}

/// Weights, where their extents can be read, are this rank's shard.
template <class Weights>
void require_weight_rows(const participant& who, const char* layer, const Weights& weights, std::size_t rows) {
  if constexpr (has_extents<Weights>)
    if (weights.rows() != rows)
      who.reject(layer, "the weights have " + std::to_string(weights.rows()) + " rows and this rank's shard has " +
                            std::to_string(rows) + "; pass the shard of this rank, [out_features, in_features]");
}
template <class Weights>
void require_weight_columns(const participant& who, const char* layer, const Weights& weights, std::size_t columns) {
  if constexpr (has_extents<Weights>)
    if (weights.columns() != columns)
      who.reject(layer, "the weights have " + std::to_string(weights.columns()) + " columns and need " +
                            std::to_string(columns) + "; pass the shard of this rank, [out_features, in_features]");
}

template <class T, class Space>
void require_bias(const participant& who, const char* layer, view<const T, Space> bias, std::size_t needed) {
  if (bias.data() != nullptr && bias.size() != needed)
    who.reject(layer, "the bias has " + std::to_string(bias.size()) + " elements and needs " + std::to_string(needed));
}

/// [rows, columns], whatever was tagged or plain.
template <class T, class Space>
void require_extents(const participant& who, const char* layer, const char* what, matrix_view<T, Space> matrix,
                     std::size_t rows, std::size_t columns) {
  require_shape(who, layer, what, matrix.rows(), matrix.columns(), rows, columns);
}

/// Workspace bytes as elements; throws where there are too few, or where they are not aligned.
template <class T, class Space>
view<T, Space> workspace_of(const participant& who, const char* layer, view<std::byte, Space> workspace,
                            std::size_t elements) {
  if (workspace.size() < elements * sizeof(T))
    who.reject(layer, "the workspace has " + std::to_string(workspace.size()) + " bytes and needs " +
                          std::to_string(elements * sizeof(T)) + "; see workspace_bytes");
  if (elements != 0 && reinterpret_cast<std::uintptr_t>(workspace.data()) % alignof(T) != 0)
    who.reject(layer, "the workspace is not aligned to " + std::to_string(alignof(T)) + " bytes");
  return {reinterpret_cast<T*>(workspace.data()), elements};
}

/// "2+1+1" for messages.
inline std::string counts_of(const partition& cut) {
  std::string text;
  for (int rank = 0; rank < cut.parts(); ++rank) {
    if (rank == 16) return text + "+...";
    if (rank != 0) text += "+";
    text += std::to_string(cut.count(rank));
  }
  return text;
}

}  // namespace shardkit::detail
