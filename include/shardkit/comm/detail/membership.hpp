// Who a rank is in a communicator: what its typed face knows without asking the backend, and what it counts.
#pragma once

#include <shardkit/comm/backend.hpp>
#include <shardkit/comm/describe.hpp>
#include <shardkit/core/call_site.hpp>
#include <shardkit/core/detail/sentence.hpp>
#include <shardkit/core/detail/shared.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace shardkit::detail {

/// The name of a communicator, shared with the recorders of groups, and the control lane that bears it.
struct shared_name final : shared_object {
  explicit shared_name(std::string of) noexcept : text(std::move(of)) {}
  const std::string text;
  shared<shared_object> lane;  // a named_lane; null until it is asked for
};

/// Rank, size, name and the number of calls so far. What has been moved from belongs to no communicator: its next
/// count overflows, so that counting a call is also the check that there is a communicator to make it on.
class membership {
 public:
  membership(int rank, int size, shared<shared_name> name) noexcept
      : rank_(rank),
        size_(size),
        ranks_(static_cast<std::size_t>(size)),
        index_(static_cast<std::size_t>(rank)),
        calls_(0),
        name_(std::move(name)) {}
  membership(membership&& other) noexcept { swap(other); }
  membership& operator=(membership&& other) noexcept {
    membership taken(std::move(other));
    swap(taken);
    return *this;
  }

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  /// To calculate with: never 0, so that a division needs no check of its own.
  std::size_t ranks() const noexcept { return ranks_; }
  /// The rank, to calculate with: 0 after a move, so that no address is wrong until the call is refused.
  std::size_t index() const noexcept { return index_; }
  std::uint64_t calls() const noexcept { return calls_; }
  /// Null after a move.
  const shared<shared_name>& name() const noexcept { return name_; }
  bool moved_from() const noexcept { return !name_; }

  /// Throws usage_error instead of counting where this has been moved from.
  [[gnu::always_inline]] inline void count(const char* operation, const call_site& site) {
    if (++calls_ == 0) refuse(operation, site.file, site.line);
  }
  /// The same check without a call.
  void require(const char* operation, const call_site& site) {
    if (moved_from()) refuse(operation, site.file, site.line);
  }

  /// Tells a failure what this rank was doing, and what it did before, where nobody has told it yet.
  [[gnu::cold, gnu::noinline]] void explain(error& failure, const char* operation, const call_site& site,
                                            const call_history* history) const {
    if (!moved_from()) failure.attach({rank_, size_, name_->text, operation, calls_, site});
    if (history != nullptr) history->attach_to(failure);
  }
  [[gnu::cold, gnu::noinline]] void explain(error& failure, const described_call& call,
                                            const call_history* history) const {
    explain(failure, call.text().c_str(), call.site(), history);
  }

 private:
  membership() noexcept = default;

  // Not the site as a whole: its address would keep it in memory at every call.
  [[noreturn, gnu::cold, gnu::noinline]] void refuse(const char* operation, const char* file, int line) {
    calls_ = overflowing;
    sentence text;
    text << operation;
    if (line != 0) text << " at " << file << ":" << line;
    throw usage_error(text << ": the communicator was moved from; use the one that it was moved to");
  }
  void swap(membership& other) noexcept {
    std::swap(rank_, other.rank_);
    std::swap(size_, other.size_);
    std::swap(ranks_, other.ranks_);
    std::swap(index_, other.index_);
    std::swap(calls_, other.calls_);
    std::swap(name_, other.name_);
  }

  static constexpr std::uint64_t overflowing = ~std::uint64_t{0};

  int rank_ = -1, size_ = 0;
  std::size_t ranks_ = 1, index_ = 0;
  std::uint64_t calls_ = overflowing;
  shared<shared_name> name_;
};

}  // namespace shardkit::detail
