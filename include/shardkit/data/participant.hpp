// Which rank of how many: all that a split needs to know of a communicator. Splits compute their ranges from it
// alone and never communicate.
#pragma once

#include <shardkit/core/call_site.hpp>
#include <shardkit/core/error.hpp>

#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {
namespace detail {

template <class Communicator, class = void>
struct can_take_part : std::false_type {};
template <class Communicator>
struct can_take_part<
    Communicator,
    std::void_t<decltype(std::declval<Communicator&>().rank()), decltype(std::declval<Communicator&>().size()),
                decltype(std::declval<Communicator&>().explain(std::declval<error&>(), "",
                                                               std::declval<const call_site&>())),
                decltype(std::declval<Communicator&>().fail(std::declval<const std::string&>()))>> : std::true_type {};

}  // namespace detail

/// One rank of a group. Every communicator converts to it, so that a call reads `split(comm, x)`; written out, as in
/// `split(participant(1, 4), x)`, it needs no communicator. Refers to the communicator, which must outlive it.
class participant {
 public:
  /// Rank `rank` of `size`. Throws usage_error where there is no such rank.
  constexpr participant(int rank, int size, call_site site = call_site::current())
      : rank_(rank), size_(size), site_(site) {
    if (rank < 0 || rank >= size) refuse(rank, size);
  }

  template <class Communicator, std::enable_if_t<detail::can_take_part<Communicator>::value, int> = 0>
  constexpr participant(Communicator& communicator, call_site site = call_site::current()) noexcept
      : rank_(communicator.rank()),
        size_(communicator.size()),
        site_(site),
        communicator_(&communicator),
        explain_([](void* self, error& failure, const char* operation, const call_site& line) {
          static_cast<Communicator*>(self)->explain(failure, operation, line);
        }),
        fail_([](void* self, const std::string& reason) { static_cast<Communicator*>(self)->fail(reason); }) {}

  constexpr int rank() const noexcept { return rank_; }
  constexpr int size() const noexcept { return size_; }
  /// The line that made this participant, for errors.
  constexpr const call_site& site() const noexcept { return site_; }

  /// Fails the communicator, where there is one, so that no peer waits for this rank.
  [[gnu::cold, gnu::noinline]] void fail(const char* operation, const std::string& reason) const {
    if (communicator_ != nullptr) fail_(communicator_, detail::sentence() << operation << ": " << reason);
  }

  /// The same, then throws usage_error.
  [[noreturn, gnu::cold]] void reject(const char* operation, const std::string& message) const {
    reject(operation, message, site_);
  }
  /// The same on account of another line than the one that made this participant.
  [[noreturn, gnu::cold, gnu::noinline]] void reject(const char* operation, const std::string& message,
                                                     const call_site& site) const {
    fail(operation, message);
    usage_error wrong(message);
    if (communicator_ != nullptr) explain_(communicator_, wrong, operation, site);
    else wrong.attach({rank_, size_, {}, operation, 0, site});
    throw wrong;
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] static void refuse(int rank, int size) {
    throw usage_error(detail::sentence() << "participant: there is no rank " << rank << " among " << size);
  }

  int rank_;
  int size_;
  call_site site_;
  void* communicator_ = nullptr;
  void (*explain_)(void*, error&, const char*, const call_site&) = nullptr;
  void (*fail_)(void*, const std::string&) = nullptr;
};

}  // namespace shardkit
