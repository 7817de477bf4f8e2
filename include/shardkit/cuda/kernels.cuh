// The space operations of device memory, for translation units that nvcc compiles: include this beside the layers. An
// engine that has kernels of its own specialises operations<cuda_space> instead. What each operation computes is
// documented at operations<host_space>; the results have the same bits, but for the exponential of silu_multiply.
#pragma once

#include <shardkit/core/operations.hpp>
#include <shardkit/cuda/detail/launching.cuh>
#include <shardkit/cuda/detail/top_k.cuh>
#include <shardkit/cuda/ordered_reduce.cuh>
#include <shardkit/cuda/space.hpp>

#include <cstddef>
#include <type_traits>

namespace shardkit {
namespace detail {

/// Where a row-major matrix lies.
template <class T>
struct cells {
  T* data;
  std::size_t row_stride;

  __host__ __device__ T& operator()(std::size_t row, std::size_t column) const {
    return data[row * row_stride + column];
  }
};
template <class T>
cells<T> cells_of(matrix_view<T, cuda_space> matrix) {
  return {matrix.data(), matrix.row_stride()};
}

template <class T>
__host__ __device__ T added(const T& a, const T& b) {
  return narrow<T>(widen(a) + widen(b));
}

template <class T>
struct add_bias_cell {
  cells<T> rows;
  const T* bias;

  __host__ __device__ void operator()(std::size_t m, std::size_t n) const { rows(m, n) = added(rows(m, n), bias[n]); }
};

template <class T>
struct add_cell {
  cells<T> rows;
  cells<const T> addend;

  __host__ __device__ void operator()(std::size_t m, std::size_t n) const {
    rows(m, n) = added<T>(rows(m, n), addend(m, n));
  }
};

template <class T, class Id>
struct gather_rows_cell {
  cells<const T> table;
  std::size_t table_rows, first_id;
  const Id* ids;
  cells<T> rows;

  __host__ __device__ void operator()(std::size_t i, std::size_t n) const {
    // An id below first_id wraps around to a huge one.
    const std::size_t row = static_cast<std::size_t>(ids[i]) - first_id;
    rows(i, n) = row < table_rows ? table(row, n) : T();
  }
};

template <class T>
struct silu_multiply_cell {
  cells<T> gate;
  cells<const T> up;

  __host__ __device__ void operator()(std::size_t m, std::size_t n) const {
    const computed<T> x = widen(gate(m, n));
    gate(m, n) = narrow<T>(x / (1 + ::exp(-x)) * widen(up(m, n)));
  }
};

}  // namespace detail

/// Each enqueues one kernel on the stream, waits for nothing and can be captured; an empty matrix enqueues nothing.
template <>
struct operations<cuda_space> {
  using stream = cuda_space::stream;
  using where = at<cuda_space>;

  template <class T>
  static void add_bias(matrix_view<T, cuda_space> rows, view<const detail::as_given_t<T>, cuda_space> bias,
                       where w = {}) {
    detail::launch_over_cells("add_bias<<<>>>", detail::add_bias_cell<T>{detail::cells_of(rows), bias.data()},
                              rows.rows(), rows.columns(), w);
  }

  template <class T>
  static void add(matrix_view<T, cuda_space> rows, matrix_view<const detail::as_given_t<T>, cuda_space> addend,
                  where w = {}) {
    detail::launch_over_cells("add<<<>>>",
                              detail::add_cell<T>{detail::cells_of(rows), detail::cells_of<const T>(addend)},
                              rows.rows(), rows.columns(), w);
  }

  template <class T, class Id>
  static void gather_rows(matrix_view<const detail::as_given_t<T>, cuda_space> table, std::size_t first_id,
                          view<const Id, cuda_space> ids, matrix_view<T, cuda_space> rows, where w = {}) {
    detail::launch_over_cells("gather_rows<<<>>>",
                              detail::gather_rows_cell<T, Id>{detail::cells_of<const T>(table), table.rows(), first_id,
                                                              ids.data(), detail::cells_of(rows)},
                              ids.size(), rows.columns(), w);
  }

  template <class T>
  static void silu_multiply(matrix_view<T, cuda_space> gate, matrix_view<const detail::as_given_t<T>, cuda_space> up,
                            where w = {}) {
    detail::launch_over_cells("silu_multiply<<<>>>",
                              detail::silu_multiply_cell<T>{detail::cells_of(gate), detail::cells_of<const T>(up)},
                              gate.rows(), gate.columns(), w);
  }

  template <class T>
  static void top_k(matrix_view<const detail::as_given_t<T>, cuda_space> scores, std::size_t first_index,
                    matrix_view<candidate<T>, cuda_space> best, where w = {}) {
    const detail::scored_columns<T> from{scores.data(), scores.row_stride(), scores.columns(), first_index};
    const detail::candidate_cells<T> to{best.data(), best.row_stride()};
    detail::launch_choose<T>("top_k<<<>>>", from, to, scores.rows(), best.columns(), w);
  }

  template <class T, class Id>
  static void merge_top_k(view<candidate<T>, cuda_space> lists, std::size_t list_count,
                          matrix_view<detail::as_given_t<T>, cuda_space> scores, matrix_view<Id, cuda_space> indices,
                          where w = {}) {
    const detail::candidate_lists<T> from{lists.data(), list_count, indices.rows(), indices.columns()};
    const detail::index_cells<T, Id> to{indices.data(), indices.row_stride(), scores.data(), scores.row_stride()};
    detail::launch_choose<T>("merge_top_k<<<>>>", from, to, indices.rows(), indices.columns(), w);
  }
};

}  // namespace shardkit
