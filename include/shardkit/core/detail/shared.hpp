// Objects with several owners. In the place of std::shared_ptr, whose header and instances took compilers longer than
// the verbs, and whose deleter every program compiled that only passes a communicator on.
#pragma once

#include <shardkit/core/detail/atomic.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

/// Base of what has several owners: the last one deletes it.
class shared_object {
 public:
  shared_object(const shared_object&) = delete;
  shared_object& operator=(const shared_object&) = delete;

 protected:
  shared_object() noexcept = default;
  virtual ~shared_object() = default;

 private:
  template <class T>
  friend class shared;

  void retain() const noexcept { owners_.fetch_add(1, memory_order_relaxed); }
  [[gnu::noinline]] void release() const noexcept {
    if (owners_.fetch_sub(1, memory_order_acq_rel) == 1) delete this;
  }

  mutable atomic<std::size_t> owners_{0};
};

/// One owner of a T, or of nothing.
template <class T>
class shared {
 public:
  shared() noexcept = default;
  /// One more owner of an object that has some, or the first of one that was made by `new`.
  explicit shared(T* object) noexcept : object_(object) {
    if (object_ != nullptr) base(object_).retain();
  }
  shared(const shared& other) noexcept : shared(other.object_) {}
  shared(shared&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <class U, std::enable_if_t<std::is_convertible<U*, T*>::value, int> = 0>
  shared(const shared<U>& other) noexcept : shared(other.get()) {}
  shared& operator=(shared other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~shared() {
    if (object_ != nullptr) base(object_).release();
  }

  template <class... Arguments>
  static shared make(Arguments&&... arguments) {
    return shared(new T(std::forward<Arguments>(arguments)...));
  }

  T* get() const noexcept { return object_; }
  T& operator*() const noexcept { return *object_; }
  T* operator->() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }

 private:
  static const shared_object& base(const shared_object* object) noexcept { return *object; }

  T* object_ = nullptr;
};

}  // namespace shardkit::detail
