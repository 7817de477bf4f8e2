// Values that several threads read and write, by the compiler's own operations: std::atomic is the same behind a header
// that costs more than the verbs (from C++20 on it waits, too).
#pragma once

namespace shardkit::detail {

// As their namesakes in std; each operation is sequentially consistent unless it says otherwise.
inline constexpr int memory_order_relaxed = __ATOMIC_RELAXED;
inline constexpr int memory_order_acquire = __ATOMIC_ACQUIRE;
inline constexpr int memory_order_release = __ATOMIC_RELEASE;
inline constexpr int memory_order_acq_rel = __ATOMIC_ACQ_REL;
inline constexpr int memory_order_seq_cst = __ATOMIC_SEQ_CST;

/// A number, bool or pointer.
template <class T>
class atomic {
  static_assert(__atomic_always_lock_free(sizeof(T), nullptr),
                "shardkit: atomics do without locks, also between processes");

 public:
  atomic() noexcept = default;
  constexpr atomic(T value) noexcept : value_(value) {}
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  [[gnu::always_inline]] T load(int order = memory_order_seq_cst) const noexcept {
    return __atomic_load_n(&value_, order);
  }
  [[gnu::always_inline]] void store(T value, int order = memory_order_seq_cst) noexcept {
    __atomic_store_n(&value_, value, order);
  }
  [[gnu::always_inline]] T exchange(T value, int order = memory_order_seq_cst) noexcept {
    return __atomic_exchange_n(&value_, value, order);
  }
  [[gnu::always_inline]] T fetch_add(T value, int order = memory_order_seq_cst) noexcept {
    return __atomic_fetch_add(&value_, value, order);
  }
  [[gnu::always_inline]] T fetch_sub(T value, int order = memory_order_seq_cst) noexcept {
    return __atomic_fetch_sub(&value_, value, order);
  }
  [[gnu::always_inline]] T fetch_or(T value, int order = memory_order_seq_cst) noexcept {
    return __atomic_fetch_or(&value_, value, order);
  }
  /// Puts `desired` where `expected` is, and else tells in `expected` what is there.
  [[gnu::always_inline]] bool compare_exchange_strong(T& expected, T desired, int order = memory_order_seq_cst,
                                                      int otherwise = memory_order_seq_cst) noexcept {
    return __atomic_compare_exchange_n(&value_, &expected, desired, false, order, otherwise);
  }

 private:
  T value_{};
};

}  // namespace shardkit::detail
