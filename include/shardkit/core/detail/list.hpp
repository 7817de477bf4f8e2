// Elements one after the other, as in std::vector, for the library's own state: of std::vector each element type costs
// a compiler sixty functions, of this one the few that are used.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

template <class T>
class list {
 public:
  list() noexcept = default;
  /// `size` elements with their initial values.
  explicit list(std::size_t size) : data_(allocate(size)), capacity_(size) {
    static_assert(std::is_nothrow_default_constructible<T>::value);
    for (; size_ < size; ++size_) ::new (static_cast<void*>(data_ + size_)) T();
  }
  list(list&& other) noexcept { swap(other); }
  list& operator=(list&& other) noexcept {
    swap(other);
    return *this;
  }
  ~list() {
    clear();
    ::operator delete (data_, std::align_val_t{alignof(T)});
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T* begin() noexcept { return data_; }
  const T* begin() const noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* end() const noexcept { return data_ + size_; }
  T& operator[](std::size_t index) noexcept { return data_[index]; }
  const T& operator[](std::size_t index) const noexcept { return data_[index]; }
  T& front() noexcept { return data_[0]; }
  const T& front() const noexcept { return data_[0]; }
  T& back() noexcept { return data_[size_ - 1]; }

  /// Room for one more, so that adding it cannot fail.
  void make_room() {
    if (size_ == capacity_) move_to(2 * capacity_ + 4);
  }
  void reserve(std::size_t size) {
    if (size > capacity_) move_to(size);
  }
  /// The arguments are not parts of this list.
  template <class... Arguments>
  void emplace_back(Arguments&&... arguments) {
    make_room();
    ::new (static_cast<void*>(data_ + size_)) T(std::forward<Arguments>(arguments)...);
    ++size_;
  }
  void push_back(T added) { emplace_back(std::move(added)); }
  void erase(T* at) noexcept {
    for (--size_; at != data_ + size_; ++at) *at = std::move(at[1]);
    at->~T();
  }
  /// Takes out the first element that is equal, if one is.
  void remove(const T& value) noexcept {
    for (T* at = begin(); at != end(); ++at)
      if (*at == value) return erase(at);
  }
  /// Keeps the first `size` elements.
  void shorten(std::size_t size) noexcept {
    while (size_ > size) data_[--size_].~T();
  }
  void clear() noexcept { shorten(0); }

 private:
  static T* allocate(std::size_t size) {
    return static_cast<T*>(::operator new (size * sizeof(T), std::align_val_t{alignof(T)}));
  }
  [[gnu::cold, gnu::noinline]] void move_to(std::size_t capacity) {
    static_assert(std::is_nothrow_move_constructible<T>::value);
    list larger;
    larger.data_ = allocate(capacity);
    larger.capacity_ = capacity;
    for (T& element : *this) larger.emplace_back(std::move(element));
    swap(larger);
  }
  void swap(list& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
  }

  T* data_ = nullptr;
  std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace shardkit::detail
