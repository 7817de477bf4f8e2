// Matrices in either dimension: shares of rows or columns as views, and the whole again from the ranks' shares.
// [m, n] below is a row-major matrix of m rows and n columns.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include <shardkit/data/detail/items.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace shardkit {
namespace detail {

template <class X>
constexpr void require_matrix() {
  static_assert(is_matrix<plain<X>>::value, "shardkit: not a matrix; pass matrix_view(pointer, rows, columns)");
}

template <class X>
constexpr auto matrix_of(X& x) {
  require_matrix<X>();
  if constexpr (is_matrix<plain<X>>::value) return rows_of(x);
  else return matrix_view<std::byte>();
}

template <class Backend>
constexpr void require_immediate() {
  static_assert(!defers_calls<Backend>::value,
                "shardkit: this gather ends with copies of its own and cannot be listed in a group; call it on the "
                "communicator, outside the group");
}

// Wrong layouts are found before anything is looked up in them.
inline void require_gatherable(const participant& who, const char* operation, const partition& part) {
  cut(part).over(part.total(), who, operation);
  if (part.replica_count() != 1)
    who.reject(operation,
               "the partition has replicas: its ranges coincide; gather among the ranks that hold different "
               "ranges");
}

/// `out` [rows.total(), columns] from the ranks' `local` [rows.count(rank), columns]; only owned rows travel.
template <class Backend, class T>
void gather_rows(communicator<Backend>& comm, const char* operation,
                 matrix_view<const T, typename Backend::space> local, matrix_view<T, typename Backend::space> out,
                 const partition& rows, const at<typename Backend::space>& w) {
  using space = typename Backend::space;
  const participant who(comm, w.site);
  require_gatherable(who, operation, rows);
  require_shape(who, operation, "local", local.rows(), local.columns(), rows.count(comm.rank()), out.columns());
  require_shape(who, operation, "out", out.rows(), out.columns(), rows.total(), out.columns());
  if (!out.contiguous())
    who.reject(operation, "the rows of out have gaps between them; gather into a matrix without gaps");
  const partition elements = rows.scaled(out.columns());
  if (local.contiguous()) return comm.all_gather(local.flat(), out.flat(), elements, w);
  space::copy_2d(out.data() + elements.offset(comm.rank()), out.columns() * sizeof(T), local.data(),
                 local.row_stride() * sizeof(T), local.columns() * sizeof(T), local.rows(), w);
  comm.all_gather(in_place(out.flat()), elements, w);
}

}  // namespace detail

/// This rank's rows of a matrix: a view of the same memory. With layout or partition as in split.
template <class Matrix>
constexpr auto split_rows(participant who, Matrix&& matrix, const cut& how = {}) {
  detail::require_lasting_list<Matrix>();
  const auto all = detail::matrix_of(matrix);
  const partition part = how.over(all.rows(), who, "split_rows");
  return all.row_range(part.offset(who.rank()), part.count(who.rank()));
}

/// This rank's columns of a matrix: a view of the same memory, whose row stride is that of the whole.
template <class Matrix>
constexpr auto split_columns(participant who, Matrix&& matrix, const cut& how = {}) {
  detail::require_lasting_list<Matrix>();
  const auto all = detail::matrix_of(matrix);
  const partition part = how.over(all.columns(), who, "split_columns");
  return all.column_range(part.offset(who.rank()), part.count(who.rank()));
}

/// `out` [m, n] on every rank = the ranks' `local` [rows.count(rank), n] one below the other, m = rows.total().
/// `out` has no gaps between its rows; `local` may have, and may be its own rows of `out` (in place). No workspace,
/// no allocation; ordered on the stream. Wrong shapes fail the communicator and throw usage_error.
template <class Backend, class Local, class Out>
void gather_rows(communicator<Backend>& comm, const Local& local, Out&& out, const partition& rows,
                 at<typename Backend::space> w = {}) {
  using T = detail::element_of<const Local>;
  detail::require_immediate<Backend>();
  detail::require_lasting_output<Out>();
  detail::gather_rows<Backend, T>(comm, "gather_rows", detail::input_rows<typename Backend::space>(local),
                                  detail::output_rows<T, typename Backend::space>(out), rows, w);
}

/// Elements of workspace that gather_columns needs for `rows` rows: none for a single row or a single rank.
constexpr std::size_t gather_columns_workspace(std::size_t rows, const partition& columns) noexcept {
  return rows <= 1 || columns.parts() == 1 ? 0 : rows * columns.total();
}

/// `out` [m, n] on every rank = the ranks' `local` [m, columns.count(rank)] side by side, n = columns.total(); the
/// widths may differ. Collectives concatenate whole blocks, so the blocks are gathered in `workspace` (at least
/// gather_columns_workspace(m, columns) elements, contiguous; more is fine) and copied to their columns from there.
///
/// Rows of `local` and `out` may have gaps; `local` may be its own columns of `out`, no other overlap is allowed.
/// Allocates nothing; ordered on the stream. Wrong shapes fail the communicator and throw usage_error.
template <class Backend, class Local, class Out, class Workspace>
void gather_columns(communicator<Backend>& comm, const Local& local, Out&& out, const partition& columns,
                    Workspace&& workspace, at<typename Backend::space> w = {}) {
  using space = typename Backend::space;
  using T = detail::element_of<const Local>;
  detail::require_immediate<Backend>();
  detail::require_matrix<Local>();
  detail::require_matrix<Out>();
  detail::require_lasting_output<Out>();
  const matrix_view<const T, space> mine = detail::input_rows<space>(local);
  const matrix_view<T, space> all = detail::output_rows<T, space>(out);
  const view<T, space> blocks = detail::output_of<space>(std::forward<Workspace>(workspace));

  const participant who(comm, w.site);
  const std::size_t rows = all.rows();
  detail::require_gatherable(who, "gather_columns", columns);
  detail::require_shape(who, "gather_columns", "local", mine.rows(), mine.columns(), rows, columns.count(comm.rank()));
  detail::require_shape(who, "gather_columns", "out", rows, all.columns(), rows, columns.total());
  if (blocks.size() < gather_columns_workspace(rows, columns))
    who.reject("gather_columns", "the workspace has " + std::to_string(blocks.size()) + " elements and needs " +
                                     std::to_string(gather_columns_workspace(rows, columns)) +
                                     "; see gather_columns_workspace");

  const partition elements = columns.scaled(rows);
  if (rows <= 1) return comm.all_gather(mine.flat(), view<T, space>(all.data(), elements.total()), elements, w);
  const auto copy_block = [&](matrix_view<T, space> to, matrix_view<const T, space> from) {
    space::copy_2d(to.data(), to.row_stride() * sizeof(T), from.data(), from.row_stride() * sizeof(T),
                   from.columns() * sizeof(T), rows, w);
  };
  if (comm.size() == 1) return copy_block(all, mine);

  // Block r of the workspace is [m, columns.count(r)].
  const auto block = [&](int rank) {
    return matrix_view<T, space>(blocks.data() + elements.offset(rank), rows, columns.count(rank));
  };
  const view<T, space> gathered(blocks.data(), elements.total());
  if (mine.contiguous()) {
    comm.all_gather(mine.flat(), gathered, elements, w);
  } else {
    copy_block(block(comm.rank()), mine);
    comm.all_gather(in_place(gathered), elements, w);
  }
  for (int rank = 0; rank < comm.size(); ++rank)
    copy_block(all.column_range(columns.offset(rank), columns.count(rank)), block(rank));
}

}  // namespace shardkit
