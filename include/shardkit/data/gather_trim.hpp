// The whole list again from the ranks' shares: the inverse of split and of pad_and_split.
#pragma once

#include <shardkit/core/buffer.hpp>
#include <shardkit/data/matrix_split.hpp>

#include <cstddef>
#include <string>
#include <type_traits>

namespace shardkit {
namespace detail {

template <class Backend, class T>
void gather_trim(communicator<Backend>& comm, matrix_view<const T, typename Backend::space> local,
                 matrix_view<T, typename Backend::space> out, const cut& how, const at<typename Backend::space>& w) {
  const participant who(comm, w.site);
  const partition part = how.over(out.rows(), who, "gather_trim");
  const std::size_t owned = part.count(comm.rank());
  if (local.rows() != owned && local.rows() != part.padded_count())
    who.reject("gather_trim", "local has " + std::to_string(local.rows()) + " items; of " + std::to_string(out.rows()) +
                                  " this rank holds " + std::to_string(owned) + ", with padding " +
                                  std::to_string(part.padded_count()));
  gather_rows<Backend, T>(comm, "gather_trim", local.row_range(0, owned), out, part, w);
}

}  // namespace detail

/// All `n` items in their order, on every rank, from the ranks' shares: those of pad_and_split, whose padding is left
/// out, or those of split, which have none.
///
///     auto mine = pad_and_split(comm, prompts);
///     auto answers = answer(mine);                                   // one for each item of mine
///     auto all = gather_trim(comm, answers, prompts.size());         // answers to prompts[0] .. prompts[n - 1]
///
/// The layout or partition is the one of the split, balanced where it is left out. Only owned items travel, so the
/// content of the padding does not matter. Returns a buffer, for matrices (an item is a row) a matrix_buffer; host
/// communicators only. A share of another size fails the communicator and throws usage_error.
template <class Backend, class Local>
auto gather_trim(communicator<Backend>& comm, const Local& local, std::size_t n, const cut& how = {},
                 at<typename Backend::space> w = {}) {
  using space = typename Backend::space;
  using T = detail::element_of<const Local>;
  detail::require_immediate<Backend>();
  static_assert(std::is_same<space, host_space>::value,
                "shardkit: on a device give the memory for the result: gather_trim_into(comm, local, out, ...)");
  const auto rows = detail::input_rows<space>(local);
  if constexpr (detail::is_matrix<detail::plain<Local>>::value) {
    matrix_buffer<T, space> all(n, rows.columns());
    detail::gather_trim<Backend, T>(comm, rows, all.matrix(), how, w);
    return all;
  } else {
    buffer<T, space> all(n);
    detail::gather_trim<Backend, T>(comm, rows, detail::as_rows(view_of(all)), how, w);
    return all;
  }
}

/// The same into the caller's memory, host or device: `out` has n items, for matrices rows without gaps. `local` may
/// be its own place in `out`. No workspace, no allocation; ordered on the stream.
template <class Backend, class Local, class Out>
void gather_trim_into(communicator<Backend>& comm, const Local& local, Out&& out, const cut& how = {},
                      at<typename Backend::space> w = {}) {
  using T = detail::element_of<const Local>;
  detail::require_immediate<Backend>();
  detail::require_lasting_output<Out>();
  detail::gather_trim<Backend, T>(comm, detail::input_rows<typename Backend::space>(local),
                                  detail::output_rows<T, typename Backend::space>(out), how, w);
}

}  // namespace shardkit
