// Several calls as one: none of them waits for another of the same group. A group is recorded first and performed
// as a whole, so that a body that throws has started nothing.
#pragma once

#include <shardkit/comm/any_call.hpp>
#include <shardkit/comm/request.hpp>
#include <shardkit/core/detail/list.hpp>

#include <cstddef>
#include <string>
#include <type_traits>

namespace shardkit {

namespace detail {

/// Whether a call concerns two ranks and not all.
template <class Call>
inline constexpr bool is_message = std::is_same<Call, send_call>::value || std::is_same<Call, recv_call>::value ||
                                   std::is_same<Call, send_recv_call>::value;

}  // namespace detail

/// `count` calls that progress together. Sends and receives between the same two ranks match in the order listed, and
/// collectives match in the order listed, the same on all ranks. No call may use the result of another of its group.
struct group_call {
  static constexpr const char* name = "group";
  const any_call* calls;
  std::size_t count;
  void* stream;
  call_site site;
};

/// A backend that only writes down what it is told to perform: `group` hands it to its body behind the ordinary
/// typed face.
template <class Space>
class call_recorder {
 public:
  using space = Space;
  /// Calls of this backend have no result before the group has ended.
  static constexpr bool defers = true;

  call_recorder(int rank, int size, detail::list<any_call>& calls) noexcept
      : rank_(rank), size_(size), calls_(&calls) {}

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }

  template <class Call>
  void perform(const Call& call) {
    calls_->emplace_back(call);
  }
  /// Refused by the typed face: a group has one request for all.
  template <class Call>
  request start(const Call&) {
    return {};
  }

  /// A misuse inside the body passes through `group`, which tells the peers.
  void fail(const std::string&) noexcept {}

 private:
  int rank_, size_;
  detail::list<any_call>* calls_;
};

}  // namespace shardkit
