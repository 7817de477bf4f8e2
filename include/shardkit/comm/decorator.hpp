// What all decorators have in common. A decorator is a backend around another backend. It has every verb, by one
// template `perform` and one template `start`, so that no verb can slip past it; verbs that the inner backend lacks are
// composed below it. Decorators stack, and the children of `split` are decorated, too:
//
//   auto comm = with_checks(with_trace(std::move(world)));
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace shardkit {
namespace detail {

// What the ranks do together beside the verbs, for decorators that note or compare it.
struct split_operation {
  static constexpr const char* name = "split";
  call_site site;
};
struct exchange_operation {
  static constexpr const char* name = "exchange";
  std::size_t count;
  dtype type;
  call_site site;
};

}  // namespace detail

/// Forwards what a decorator does not change. The derived class adds perform, start and split.
template <class Backend>
class decorator {
 public:
  using space = typename Backend::space;
  using decorated_type = Backend;

  int rank() const noexcept { return next_.rank(); }
  int size() const noexcept { return next_.size(); }
  /// The backend inside.
  Backend& decorated() noexcept { return next_.base(); }

  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    next_.exchange(in, out, bytes, site);
  }
  template <class Inner = Backend>
  auto control() -> decltype(std::declval<Inner&>().control()) {
    return next_.base().control();
  }
  void fail(const std::string& reason) noexcept { next_.fail(reason); }
  template <class Inner = Backend>
  auto throw_if_failed(const call_site& site) -> decltype(std::declval<Inner&>().throw_if_failed(site)) {
    next_.base().throw_if_failed(site);
  }

 protected:
  explicit decorator(Backend backend) : next_(std::move(backend)) {}

  complete<Backend> next_;  ///< where calls go on
};

}  // namespace shardkit
