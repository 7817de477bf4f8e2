// The immutable, shared table of cut points behind partition::from_bounds. A hand-written reference count,
// because std::shared_ptr is no literal type and would cost partition its constexpr.
#pragma once

#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstring>
#include <new>
#include <string>

// constexpr destructors need C++20; in C++17 the same functions are ordinary inline ones.
#if __cplusplus >= 202002L
#define SHARDKIT_CONSTEXPR20 constexpr
#else
#define SHARDKIT_CONSTEXPR20 inline
#endif

namespace shardkit::detail {

/// Items [first, last).
struct item_bounds {
  std::size_t first, last;
};

class bounds_table {
 public:
  SHARDKIT_CONSTEXPR20 bounds_table() noexcept {}
  SHARDKIT_CONSTEXPR20 bounds_table(const bounds_table& other) noexcept : shared_(other.shared_) {
    if (shared_ != nullptr) retain(shared_);
  }
  SHARDKIT_CONSTEXPR20 bounds_table(bounds_table&& other) noexcept : shared_(other.shared_) { other.shared_ = nullptr; }
  SHARDKIT_CONSTEXPR20 bounds_table& operator=(bounds_table other) noexcept {
    header* mine = shared_;
    shared_ = other.shared_;
    other.shared_ = mine;
    return *this;
  }
  SHARDKIT_CONSTEXPR20 ~bounds_table() {
    if (shared_ != nullptr) release(shared_);
  }

  /// Checks and copies `count` bounds.
  static bounds_table make(const std::size_t* bounds, std::size_t count) {
    if (count < 2 || bounds[0] != 0)
      throw usage_error("partition::from_bounds: give ranks + 1 bounds, the first of them 0");
    for (std::size_t i = 1; i < count; ++i)
      if (bounds[i] < bounds[i - 1])
        throw usage_error(sentence() << "partition::from_bounds: bound " << i << " (" << bounds[i]
                                     << ") lies below the one before it (" << bounds[i - 1] << ")");
    bounds_table table;
    table.shared_ = new (::operator new(sizeof(header) + count * sizeof(std::size_t))) header;
    std::memcpy(values(table.shared_), bounds, count * sizeof(std::size_t));
    return table;
  }

  std::size_t bound(std::size_t index) const noexcept { return values(shared_)[index]; }
  SHARDKIT_CONSTEXPR20 bool operator==(std::nullptr_t) const noexcept { return shared_ == nullptr; }
  SHARDKIT_CONSTEXPR20 bool operator!=(std::nullptr_t) const noexcept { return shared_ != nullptr; }

 private:
  struct header {
    atomic<std::size_t> references{1};
  };

  static std::size_t* values(header* shared) noexcept { return reinterpret_cast<std::size_t*>(shared + 1); }
  static void retain(header* shared) noexcept { shared->references.fetch_add(1, memory_order_relaxed); }
  static void release(header* shared) noexcept {
    if (shared->references.fetch_sub(1, memory_order_acq_rel) != 1) return;
    shared->~header();
    ::operator delete(shared);
  }

  header* shared_ = nullptr;
};

/// Turns counts into bounds.
class bounds_builder {
 public:
  explicit bounds_builder(std::size_t parts) {
    bounds_.reserve(parts + 1);
    bounds_.push_back(0);
  }
  void add(std::size_t count) { bounds_.push_back(bounds_.back() + count); }
  const std::size_t* data() const noexcept { return bounds_.data(); }
  std::size_t size() const noexcept { return bounds_.size(); }

 private:
  list<std::size_t> bounds_;
};

}  // namespace shardkit::detail
