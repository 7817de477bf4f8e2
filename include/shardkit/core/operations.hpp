// Space operations: the few elementwise steps that layers need beside a GEMM and a collective. Layers are templates
// on the space and call operations<Space>; the host's are plain C++ and live here, CUDA's in cuda/kernels.cuh, and
// an engine may specialise operations for a space with kernels of its own. Only what a layer really calls must exist.
#pragma once

#include <shardkit/core/at.hpp>
#include <shardkit/core/detail/host_device.hpp>
#include <shardkit/core/ordered_reduce.hpp>
#include <shardkit/core/view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace shardkit {

/// A score and the index where it was found. Plain bytes without padding, so that it can travel between ranks.
template <class T>
struct candidate {
  using score_type = detail::accumulator<T>;  ///< float for 16-bit floats, else T
  /// As wide as the score, so that there is no padding.
  using index_type = std::conditional_t<sizeof(score_type) == 8, std::int64_t, std::int32_t>;

  score_type score;  ///< by which candidates are chosen
  index_type index;  ///< -1: no candidate

  /// Fills up where there are fewer candidates than places; chosen last.
  SHARDKIT_HOST_DEVICE static constexpr candidate none() noexcept { return {score_type(), -1}; }
};

/// The order in which candidates are chosen, the same on every rank and space: NaN first (so that it shows), then
/// the higher score, then the lower index; none() last.
template <class T>
SHARDKIT_HOST_DEVICE constexpr bool chosen_before(const candidate<T>& a, const candidate<T>& b) noexcept {
  if ((a.index < 0) != (b.index < 0)) return b.index < 0;
  const bool a_is_nan = a.score != a.score, b_is_nan = b.score != b.score;
  if (a_is_nan != b_is_nan) return a_is_nan;
  if (a.score > b.score) return true;
  if (a.score < b.score) return false;
  return a.index < b.index;
}

namespace detail {

template <class... T>
inline constexpr bool never = false;

// A parameter from which no template argument is deduced.
template <class T>
struct as_given {
  using type = T;
};
template <class T>
using as_given_t = typename as_given<T>::type;

}  // namespace detail

#define SHARDKIT_MISSING_OPERATION(name)                                                                        \
  template <class... Arguments>                                                                                 \
  static void name(Arguments&&...) {                                                                            \
    static_assert(detail::never<Space, Arguments...>,                                                           \
                  "shardkit: this memory space has no operation '" #name                                        \
                  "' here; include shardkit/cuda/kernels.cuh (compiled by nvcc) for cuda_space, or specialise " \
                  "shardkit::operations for the space with a kernel of your own");                              \
  }

/// The primary template: a space without operations. Each call is a compile error that names the operation. A
/// specialisation for a space has the static members of operations<host_space>, with its own views and stream.
template <class Space>
struct operations {
  SHARDKIT_MISSING_OPERATION(add_bias)
  SHARDKIT_MISSING_OPERATION(add)
  SHARDKIT_MISSING_OPERATION(gather_rows)
  SHARDKIT_MISSING_OPERATION(silu_multiply)
  SHARDKIT_MISSING_OPERATION(top_k)
  SHARDKIT_MISSING_OPERATION(merge_top_k)
};

#undef SHARDKIT_MISSING_OPERATION

/// The host's. 16-bit floats are computed in float and rounded once.
template <>
struct operations<host_space> {
  using stream = host_space::stream;

  /// rows[m, n] += bias[n].
  template <class T>
  static void add_bias(matrix_view<T> rows, view<const detail::as_given_t<T>> bias, stream = {}) {
    for (std::size_t m = 0; m < rows.rows(); ++m) {
      T* row = rows.row(m).data();
      for (std::size_t n = 0; n < rows.columns(); ++n) row[n] = plus(row[n], bias[n]);
    }
  }

  /// rows[m, n] += addend[m, n].
  template <class T>
  static void add(matrix_view<T> rows, matrix_view<const detail::as_given_t<T>> addend, stream = {}) {
    for (std::size_t m = 0; m < rows.rows(); ++m) {
      T* row = rows.row(m).data();
      const T* other = addend.row(m).data();
      for (std::size_t n = 0; n < rows.columns(); ++n) row[n] = plus(row[n], other[n]);
    }
  }

  /// rows[i] = table[ids[i] - first_id], and zeros where that row lies outside of `table`: the part of an embedding
  /// lookup that this rank's rows [first_id, first_id + table.rows()) of the table answer.
  template <class T, class Id>
  static void gather_rows(matrix_view<const detail::as_given_t<T>> table, std::size_t first_id, view<const Id> ids,
                          matrix_view<T> rows, stream = {}) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      // An id below first_id wraps around to a huge one.
      const std::size_t row = static_cast<std::size_t>(ids[i]) - first_id;
      if (row < table.rows()) host_space::copy(rows.row(i).data(), table.row(row).data(), rows.row(i).bytes());
      else host_space::fill_bytes(rows.row(i).data(), 0, rows.row(i).bytes());
    }
  }

  /// gate[m, n] = silu(gate[m, n]) * up[m, n], with silu(x) = x / (1 + exp(-x)).
  template <class T>
  static void silu_multiply(matrix_view<T> gate, matrix_view<const detail::as_given_t<T>> up, stream = {}) {
    using wide = detail::accumulator<T>;
    for (std::size_t m = 0; m < gate.rows(); ++m) {
      T* row = gate.row(m).data();
      const T* other = up.row(m).data();
      for (std::size_t n = 0; n < gate.columns(); ++n) {
        const wide x = static_cast<wide>(row[n]);
        row[n] = static_cast<T>(x / (1 + std::exp(-x)) * static_cast<wide>(other[n]));
      }
    }
  }

  /// best[m] = the best.columns() first candidates of scores[m] by `chosen_before`, in that order, filled up with
  /// none(). The index of column n is first_index + n.
  template <class T>
  static void top_k(matrix_view<const detail::as_given_t<T>> scores, std::size_t first_index,
                    matrix_view<candidate<T>> best, stream = {}) {
    using score_type = typename candidate<T>::score_type;
    using index_type = typename candidate<T>::index_type;
    if (best.columns() == 0) return;
    for (std::size_t m = 0; m < scores.rows(); ++m) {
      chosen<T> row(best.row(m));
      const T* values = scores.row(m).data();
      for (std::size_t n = 0; n < scores.columns(); ++n) {
        const score_type score = static_cast<score_type>(values[n]);
        // Indices ascend, so an equal score comes too late. A NaN passes on to the full comparison.
        if (row.full() && score <= row.worst_score()) continue;
        row.offer({score, static_cast<index_type>(first_index + n)});
      }
      row.sort();
    }
  }

  /// Merges `lists` [list_count, rows, k], each row of a list made by `top_k` over indices of its own:
  /// indices[m] (k) = those of the first k candidates of all lists' rows m, in order, and scores[m] their scores
  /// (a null view: not wanted). `lists` serves as scratch memory.
  template <class T, class Id>
  static void merge_top_k(view<candidate<T>> lists, std::size_t list_count, matrix_view<detail::as_given_t<T>> scores,
                          matrix_view<Id> indices, stream = {}) {
    const std::size_t rows = indices.rows(), k = indices.columns();
    for (std::size_t m = 0; m < rows; ++m) {
      const view<candidate<T>> best = lists.subview(m * k, k);
      chosen<T> row(best, k);
      for (std::size_t list = 1; list < list_count; ++list) {
        const candidate<T>* others = lists.data() + (list * rows + m) * k;
        // Each list is in order: after one that is not among the best, none is.
        for (std::size_t i = 0; i < k && row.offer(others[i]); ++i) {
        }
      }
      row.sort();
      for (std::size_t i = 0; i < k; ++i) {
        indices(m, i) = static_cast<Id>(best[i].index);
        if (scores.data() != nullptr) scores(m, i) = static_cast<T>(best[i].score);
      }
    }
  }

 private:
  template <class T>
  static T plus(T a, T b) {
    using wide = detail::accumulator<T>;
    return static_cast<T>(static_cast<wide>(a) + static_cast<wide>(b));
  }

  /// The best so many of the candidates offered: a heap with the worst of them in front.
  template <class T>
  class chosen {
   public:
    explicit chosen(view<candidate<T>> places, std::size_t taken = 0) : places_(places), count_(taken) {
      if (full()) std::make_heap(places_.begin(), places_.end(), chosen_before<T>);
    }

    /// False where the candidate is not among the best.
    bool offer(const candidate<T>& next) {
      if (!full()) {
        places_[count_++] = next;
        if (full()) std::make_heap(places_.begin(), places_.end(), chosen_before<T>);
        return true;
      }
      if (!chosen_before(next, places_[0])) return false;
      std::pop_heap(places_.begin(), places_.end(), chosen_before<T>);
      places_[places_.size() - 1] = next;
      std::push_heap(places_.begin(), places_.end(), chosen_before<T>);
      return true;
    }

    void sort() {
      std::fill(places_.begin() + count_, places_.end(), candidate<T>::none());
      std::sort(places_.begin(), places_.begin() + count_, chosen_before<T>);
    }

    bool full() const { return count_ == places_.size(); }
    /// Only where full, and places > 0.
    typename candidate<T>::score_type worst_score() const { return places_[0].score; }

   private:
    view<candidate<T>> places_;
    std::size_t count_;
  };
};

/// Copies a matrix of the same shape; the two may not overlap.
template <class T, class Space>
void copy(matrix_view<T, Space> to, detail::as_given_t<matrix_view<const T, Space>> from,
          detail::as_given_t<at<Space>> where = {}) {
  Space::copy_2d(to.data(), to.row_stride() * sizeof(T), from.data(), from.row_stride() * sizeof(T),
                 to.columns() * sizeof(T), to.rows(), where);
}

/// Writes zeros.
template <class T, class Space>
void fill_zero(matrix_view<T, Space> to, detail::as_given_t<at<Space>> where = {}) {
  Space::fill_2d(to.data(), to.row_stride() * sizeof(T), 0, to.columns() * sizeof(T), to.rows(), where);
}

}  // namespace shardkit
