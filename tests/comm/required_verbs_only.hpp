// A backend stripped down to what every backend must have, so that complete<B> composes all other verbs.
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

template <class Call, class List>
struct is_listed;
template <class Call, class... Calls>
struct is_listed<Call, shardkit::call_list<Calls...>> : std::disjunction<std::is_same<Call, Calls>...> {};

template <class Backend>
class required_verbs_only {
 public:
  using space = typename Backend::space;

  explicit required_verbs_only(Backend base) : base_(std::move(base)) {}

  int rank() const noexcept { return base_.rank(); }
  int size() const noexcept { return base_.size(); }

  template <class Call>
  auto perform(const Call& call) -> std::enable_if_t<is_listed<Call, shardkit::required_calls>::value> {
    base_.perform(call);
  }
  void perform(const shardkit::group_call& group) {
    for (std::size_t i = 0; i < group.count; ++i)
      visit(
          [](const auto& call) {
            if (!is_listed<std::decay_t<decltype(call)>, shardkit::required_calls>::value)
              throw std::logic_error(std::string("a group was to hold ") + call.name);
          },
          group.calls[i]);
    base_.perform(group);
  }
  template <class Call>
  shardkit::request start(const Call& call) {
    return base_.start(call);
  }
  required_verbs_only split(int colour, int key, const shardkit::call_site& site) {
    return required_verbs_only(base_.split(colour, key, site));
  }
  void exchange(const void* in, void* out, std::size_t bytes, const shardkit::call_site& site) {
    base_.exchange(in, out, bytes, site);
  }
  shardkit::control_lane& control() { return base_.control(); }
  void fail(const std::string& reason) noexcept { base_.fail(reason); }

 private:
  Backend base_;
};

/// The same ranks with composed verbs; the communicator is moved from.
template <class Backend>
auto with_composed_verbs(shardkit::communicator<Backend>&& comm) {
  using stripped = required_verbs_only<Backend>;
  static_assert(shardkit::is_backend<stripped>);
  static_assert(!shardkit::detail::performs<stripped, shardkit::gather_call>::value);
  return shardkit::communicator<stripped>(stripped(std::move(comm.backend())), comm.name());
}
