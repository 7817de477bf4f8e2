// Copies between host and device, on a stream:
//
//   buffer<float, pinned_space> host(n);
//   buffer<float, cuda_space> device(n);
//   copy(device, host, stream);              // to the device; back: copy(host, device, stream)
//
// Nothing is complete before the stream has got there: until then the host may not write what is copied from, nor read
// what is copied to. Host memory that is not pinned is taken as well, but CUDA then makes the host wait where it cannot
// copy beside it; where that matters, use pinned_space.
#pragma once

#include <shardkit/core/operations.hpp>
#include <shardkit/cuda/space.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {
namespace detail {

// At least one end is memory that CUDA knows.
template <class To, class From>
inline constexpr bool copies_by_cuda =
    std::is_base_of<cuda_space, To>::value || std::is_base_of<cuda_space, From>::value;

template <class To, class From>
void require_copyable() {
  using element = typename To::element_type;
  static_assert(!std::is_const<element>::value,
                "shardkit: the target of a copy is const; pass one that may be written");
  static_assert(std::is_same<element, typename From::value_type>::value,
                "shardkit: the two ends of a copy have different element types");
  static_assert(std::is_trivially_copyable<element>::value, "shardkit: only plain elements are copied");
}

}  // namespace detail

/// Copies all elements of `from` to `to` (buffers, views, vectors, spans), which has as many. Throws usage_error where
/// it has not.
template <class To, class From, class ToView = decltype(detail::as_view(std::declval<To&>())),
          class FromView = decltype(detail::as_view(std::declval<const From&>())),
          std::enable_if_t<detail::copies_by_cuda<typename ToView::space, typename FromView::space>, int> = 0>
void copy(To&& to, const From& from, at<cuda_space> where = {}) {
  detail::require_copyable<ToView, FromView>();
  static_assert(std::is_lvalue_reference<To>::value || detail::is_borrowing<To>(),
                "shardkit: the target is a temporary that owns its elements; name it, so that the copy survives");
  const auto target = detail::as_view(to);
  const auto source = detail::as_view(from);
  if (target.size() != source.size())
    throw usage_error("a copy of " + std::to_string(source.size()) + " elements into " + std::to_string(target.size()) +
                      "; take a subview of the longer one");
  cuda_space::copy(target.data(), source.data(), source.bytes(), where);
}

/// Copies a matrix of the same shape between spaces, by one 2-D copy. Throws usage_error where the shapes differ.
template <class T, class To, class U, class From,
          std::enable_if_t<detail::copies_by_cuda<To, From> && !std::is_same<To, From>::value, int> = 0>
void copy(matrix_view<T, To> to, matrix_view<U, From> from, at<cuda_space> where = {}) {
  detail::require_copyable<matrix_view<T, To>, matrix_view<U, From>>();
  if (to.rows() != from.rows() || to.columns() != from.columns())
    throw usage_error("a copy of [" + std::to_string(from.rows()) + ", " + std::to_string(from.columns()) + "] into [" +
                      std::to_string(to.rows()) + ", " + std::to_string(to.columns()) + "]; the shapes have to agree");
  cuda_space::copy_2d(to.data(), to.row_stride() * sizeof(T), from.data(), from.row_stride() * sizeof(T),
                      to.columns() * sizeof(T), to.rows(), where);
}

/// Writes zero bytes to all of `to`, which lies where CUDA can write.
template <class To, class ToView = decltype(detail::as_view(std::declval<To&>())),
          std::enable_if_t<std::is_base_of<cuda_space, typename ToView::space>::value, int> = 0>
void fill_zero(To&& to, at<cuda_space> where = {}) {
  const auto target = detail::as_view(to);
  cuda_space::fill_bytes(target.data(), 0, target.bytes(), where);
}

}  // namespace shardkit
