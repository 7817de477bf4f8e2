// What `group` hands to its body: verbs called here are written down, to be performed as one.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include <shardkit/comm/detail/call_pool.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

/// The communicator of a group's body; `with` adds the verbs of other communicators to the same group.
template <class Space>
class grouping : public communicator<call_recorder<Space>> {
 public:
  using where = at<Space>;

  /// Lists verbs of `other`, of which this rank is a member, too. All ranks of `other` make a group that lists them.
  template <class Backend>
  [[gnu::always_inline]] inline communicator<call_recorder<typename Backend::space>>& with(
      communicator<Backend>& other, const call_site& site = call_site::current()) {
    other.self_.require("with", site);
    return recorder_of(other);
  }

 private:
  template <class Backend>
  friend class communicator;

  template <class Backend>
  communicator<call_recorder<typename Backend::space>>& recorder_of(communicator<Backend>& other) {
    for (member* one : others_)
      if (one->comm == &other) return static_cast<member_of<Backend>&>(*one).face.front();
    member_of<Backend>& added = member_of<Backend>::idle().take();
    others_.push_back(&added);
    added.bind(other);
    return added.face.front();
  }

  struct member {
    virtual request start(const where& w) = 0;
    virtual void fail(const std::string& reason) noexcept = 0;
    virtual std::uint64_t order() noexcept = 0;
    virtual void retire() noexcept = 0;

    const void* comm = nullptr;

   protected:
    ~member() = default;
  };
  template <class Backend>
  struct member_of : member {
    using space = typename Backend::space;
    using face_type = communicator<call_recorder<space>>;

    /// Those of this thread that no group uses.
    static detail::call_pool<member_of>& idle() {
      static thread_local detail::call_pool<member_of> mine;
      return mine;
    }

    virtual ~member_of() = default;
    void bind(communicator<Backend>& of) {
      this->comm = other = &of;
      face.push_back(face_type(call_recorder<space>(of.rank(), of.size(), empty(of.recorded_)), of.self_.name()));
    }
    request start(const where& w) override {
      at<space> there({}, w.site);
      if constexpr (std::is_same<space, Space>::value) there.stream = w.stream;
      return other->begin(as_one(other->recorded_, there));
    }
    void fail(const std::string& reason) noexcept override { other->fail(reason); }
    std::uint64_t order() noexcept override { return detail::group_order_of(other->backend_.base()); }
    void retire() noexcept override {
      face.clear();
      idle().give_back(*this);
    }

    communicator<Backend>* other = nullptr;
    detail::list<face_type> face;  // one while bound
  };
  using members = detail::list<member*>;
  static detail::call_pool<members>& idle_lists() {
    static thread_local detail::call_pool<members> mine;
    return mine;
  }

  template <class Backend>
  explicit grouping(communicator<Backend>& own)
      : communicator<call_recorder<Space>>(call_recorder<Space>(own.rank(), own.size(), empty(own.recorded_)),
                                           own.self_.name()) {}
  ~grouping() {
    for (member* one : others_) one->retire();
    others_.clear();
    idle_lists().give_back(others_);
  }

  /// By the order of their backends; returns how many come before `own`.
  std::size_t sort_others(std::uint64_t own) noexcept {
    std::size_t before = 0;
    for (std::size_t i = 0; i < others_.size(); ++i) {
      before += others_[i]->order() < own ? 1 : 0;
      for (std::size_t k = i; k > 0 && others_[k]->order() < others_[k - 1]->order(); --k)
        std::swap(others_[k], others_[k - 1]);
    }
    return before;
  }

  static detail::list<any_call>& empty(detail::list<any_call>& calls) noexcept {
    calls.clear();
    return calls;
  }
  /// On a device, calls that were listed without a stream run on that of the group.
  template <class OfSpace>
  static group_call as_one(detail::list<any_call>& calls, const at<OfSpace>& w) noexcept {
    if constexpr (!std::is_same<OfSpace, host_space>::value) {
      const auto place = [&](auto& call) {
        if (call.stream == nullptr) call.stream = OfSpace::native(w.stream);
      };
      for (any_call& one : calls) visit(place, one);
    }
    return {calls.data(), calls.size(), OfSpace::native(w.stream), w.site};
  }

  members& others_ = idle_lists().take();
};

}  // namespace shardkit
