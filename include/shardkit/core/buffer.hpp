// Owning memory of a space.
#pragma once

#include <shardkit/core/view.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace shardkit {

/// Owns `size` uninitialised elements of T in Space, aligned to Space::alignment. Move-only.
template <class T, class Space = host_space>
class buffer {
  static_assert(std::is_trivially_copyable<T>::value, "shardkit: a buffer holds plain elements");

 public:
  using value_type = T;
  using space = Space;

  buffer() noexcept = default;
  explicit buffer(std::size_t size, const call_site& site = call_site::current())
      : data_(size == 0 ? nullptr : static_cast<T*>(Space::allocate(size * sizeof(T), site))), size_(size) {}
  buffer(buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~buffer() {
    if (data_ != nullptr) Space::deallocate(data_);
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }
  T& operator[](std::size_t index) noexcept { return data_[index]; }
  const T& operator[](std::size_t index) const noexcept { return data_[index]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// Its elements.
template <class T, class Space>
view<T, Space> view_of(buffer<T, Space>& owner) noexcept {
  return {owner.data(), owner.size()};
}
/// Its elements.
template <class T, class Space>
view<const T, Space> view_of(const buffer<T, Space>& owner) noexcept {
  return {owner.data(), owner.size()};
}

}  // namespace shardkit
