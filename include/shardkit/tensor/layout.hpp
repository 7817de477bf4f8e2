// How a matrix of activations lies on the ranks, said in its type, so that a wrong hand-over between layers does not
// compile. Layers return tagged views and take tagged or plain ones: a plain matrix_view is taken for what the layer
// expects, its shape being checked.
#pragma once

#include <shardkit/core/partition.hpp>
#include <shardkit/core/view.hpp>

#include <type_traits>

namespace shardkit {

/// [rows, features], the same on every rank.
template <class T, class Space = host_space>
struct replicated {
  matrix_view<T, Space> data;  ///< this rank's copy
};

/// [rows, cut.count(rank)] on each rank: its range of the features, which the cut divides.
template <class T, class Space = host_space>
struct sharded {
  matrix_view<T, Space> data;  ///< this rank's range
  partition cut;               ///< of the features
};

/// [rows, features] on each rank: a summand. The sum over the ranks is the value.
template <class T, class Space = host_space>
struct partial {
  matrix_view<T, Space> data;  ///< this rank's summand
};

template <class T, class Space>
replicated(matrix_view<T, Space>) -> replicated<T, Space>;
template <class T, class Space>
sharded(matrix_view<T, Space>, partition) -> sharded<T, Space>;
template <class T, class Space>
partial(matrix_view<T, Space>) -> partial<T, Space>;

namespace detail {

template <class X>
struct is_replicated : std::false_type {};
template <class T, class Space>
struct is_replicated<replicated<T, Space>> : std::true_type {};
template <class X>
struct is_sharded : std::false_type {};
template <class T, class Space>
struct is_sharded<sharded<T, Space>> : std::true_type {};
template <class X>
struct is_partial : std::false_type {};
template <class T, class Space>
struct is_partial<partial<T, Space>> : std::true_type {};

template <class X>
inline constexpr bool is_tagged = is_replicated<X>::value || is_sharded<X>::value || is_partial<X>::value;

template <class X>
const auto& untagged(const X& x) {
  if constexpr (is_tagged<X>) return x.data;
  else return x;
}

/// The matrix of a tagged or plain argument, as T elements of Space; T is const for inputs.
template <class T, class Space, class X>
matrix_view<T, Space> matrix_argument(const X& x) {
  using given = std::remove_cv_t<std::remove_reference_t<decltype(untagged(x))>>;
  constexpr bool fits = std::is_convertible_v<const given&, matrix_view<T, Space>>;
  static_assert(fits,
                "shardkit: this argument is no matrix of the layer's element type in the layer's memory space; pass "
                "matrix_view(pointer, rows, columns), writable where it is an output");
  if constexpr (fits) return untagged(x);
  else return {};
}

/// The input of a layer that needs it whole.
template <class T, class Space, class X>
matrix_view<const T, Space> replicated_input(const X& x) {
  static_assert(!is_sharded<X>::value,
                "shardkit: this layer needs its input whole on every rank and got one that is sharded; end the layer "
                "before it with forward_gathered, or feed it to a row_parallel_linear");
  static_assert(!is_partial<X>::value,
                "shardkit: this layer needs its input whole on every rank and got partial sums; end the layer before "
                "it with finish");
  if constexpr (is_sharded<X>::value || is_partial<X>::value) return {};
  else return matrix_argument<const T, Space>(x);
}

/// The input of a layer that works on shards; a whole one is cut by the caller.
template <class T, class Space, class X>
matrix_view<const T, Space> sharded_input(const X& x) {
  static_assert(!is_partial<X>::value,
                "shardkit: this layer needs shards of its input and got partial sums; end the layer before it with "
                "finish");
  if constexpr (is_partial<X>::value) return {};
  else return matrix_argument<const T, Space>(x);
}

/// Partial sums that are to be reduced.
template <class T, class Space, class X>
matrix_view<T, Space> partial_input(const X& x) {
  static_assert(!is_replicated<X>::value && !is_sharded<X>::value,
                "shardkit: finish needs the partial sums that row.partial returned and got a finished or sharded "
                "matrix, whose sum over the ranks would be wrong");
  if constexpr (is_replicated<X>::value || is_sharded<X>::value) return {};
  else return matrix_argument<T, Space>(x);
}

}  // namespace detail
}  // namespace shardkit
