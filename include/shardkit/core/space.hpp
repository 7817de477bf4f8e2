// A memory space is a compile-time tag that says where a buffer lives and how it is allocated, copied and
// filled there. host_space is ordinary memory; algorithms are templates on the space.
#pragma once

#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstring>
#include <new>
#include <type_traits>

namespace shardkit {

/// Ordinary memory. Its stream is empty: an operation on the host has ended when it returns.
struct host_space {
  struct stream {};

  /// For messages.
  static constexpr const char* name = "host";
  /// Alignment of every allocation: a cache line, and enough for any vector unit.
  static constexpr std::size_t alignment = 64;

  /// The handle that a call descriptor carries.
  static void* native(stream) noexcept { return nullptr; }
  /// The stream that a descriptor's handle stands for.
  static stream from_native(void*) noexcept { return {}; }

  /// Uninitialised memory. Throws std::bad_alloc.
  static void* allocate(std::size_t bytes, const call_site& = {}) {
    return ::operator new (bytes, std::align_val_t{alignment});
  }
  /// Frees what `allocate` gave; null is fine.
  static void deallocate(void* memory) noexcept { ::operator delete (memory, std::align_val_t{alignment}); }

  /// Copies `bytes`; the ranges may not overlap unless they are the same.
  static void copy(void* to, const void* from, std::size_t bytes, stream = {}) noexcept {
    if (bytes != 0 && to != from) std::memcpy(to, from, bytes);
  }

  /// Copies `rows` rows of `row_bytes`, each row `to_stride` and `from_stride` bytes after the one before it.
  static void copy_2d(void* to, std::size_t to_stride, const void* from, std::size_t from_stride, std::size_t row_bytes,
                      std::size_t rows, stream = {}) noexcept {
    if (to_stride == row_bytes && from_stride == row_bytes) return copy(to, from, row_bytes * rows);
    for (std::size_t row = 0; row < rows; ++row)
      copy(static_cast<char*>(to) + row * to_stride, static_cast<const char*>(from) + row * from_stride, row_bytes);
  }

  /// Sets each of `bytes` bytes to `value`.
  static void fill_bytes(void* to, int value, std::size_t bytes, stream = {}) noexcept {
    if (bytes != 0) std::memset(to, value, bytes);
  }

  /// The same for `rows` rows of `row_bytes`, each `stride` bytes after the one before it.
  static void fill_2d(void* to, std::size_t stride, int value, std::size_t row_bytes, std::size_t rows,
                      stream = {}) noexcept {
    if (stride == row_bytes) return fill_bytes(to, value, row_bytes * rows);
    for (std::size_t row = 0; row < rows; ++row) fill_bytes(static_cast<char*>(to) + row * stride, value, row_bytes);
  }
};

/// A list of spaces.
template <class... Spaces>
struct spaces {};

namespace detail {

template <class Space, class List>
struct is_listed : std::false_type {};
template <class Space, class... Listed>
struct is_listed<Space, spaces<Listed...>> : std::disjunction<std::is_same<Space, Listed>...> {};

template <class Of, class Space, class = void>
struct lies_in : std::is_same<Of, Space> {};
template <class Of, class Space>
struct lies_in<Of, Space, std::void_t<typename Of::also>>
    : std::disjunction<std::is_same<Of, Space>, is_listed<Space, typename Of::also>> {};

}  // namespace detail

/// Whether memory of `Of` is memory of `Space` as well, so that a view of the one converts to a view of the other. A
/// space that is reached from others, too, lists those:  using also = shardkit::spaces<host_space, cuda_space>;
template <class Of, class Space>
inline constexpr bool is_memory_of = detail::lies_in<Of, Space>::value;

}  // namespace shardkit
