// A communicator whose backend is chosen at run time. Engines are written over it in ordinary .cpp files that compile
// fast, in C++17 where they like: one C++20 file makes the ranks (run_ranks, MPI) and hands them over by `erase`.
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

namespace detail {

/// One pure virtual `perform` and `start` of one call.
template <class Call>
class performer {
 public:
  virtual void perform(const Call& call) = 0;
  virtual request start(const Call& call) = 0;

 protected:
  ~performer() = default;
};

template <class List>
class performer_of;
template <class... Calls>
class performer_of<call_list<Calls...>> : public performer<Calls>... {
 public:
  using performer<Calls>::perform...;
  using performer<Calls>::start...;
};

template <class Backend, class = void>
struct offers_control : std::false_type {};
template <class Backend>
struct offers_control<Backend, std::void_t<decltype(std::declval<Backend&>().control())>> : std::true_type {};

/// Every verb and whatever else a backend offers, behind one table.
template <class Space>
class erased_backend : public performer_of<all_calls>, public performer<group_call> {
 public:
  using performer_of<all_calls>::perform;
  using performer<group_call>::perform;
  using performer_of<all_calls>::start;
  using performer<group_call>::start;

  virtual ~erased_backend() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;
  virtual std::unique_ptr<erased_backend> split(int colour, int key, const call_site& site) = 0;
  virtual void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) = 0;
  virtual control_lane& control() = 0;
  virtual void fail(const std::string& reason) noexcept = 0;
  virtual void throw_if_failed(const call_site& site) = 0;
  virtual std::uint64_t group_order() noexcept = 0;
  virtual const call_history* remembered() noexcept = 0;
};

// Implements perform and start for each call of the list, one class on top of the other.
template <class Backend, class Base, class List>
class erase_calls;
template <class Backend, class Base>
class erase_calls<Backend, Base, call_list<>> : public Base {
 public:
  explicit erase_calls(Backend backend) : wrapped_(std::move(backend)) {}

 protected:
  complete<Backend> wrapped_;
};
template <class Backend, class Base, class Call, class... Rest>
class erase_calls<Backend, Base, call_list<Call, Rest...>> : public erase_calls<Backend, Base, call_list<Rest...>> {
 public:
  using erase_calls<Backend, Base, call_list<Rest...>>::erase_calls;
  using erase_calls<Backend, Base, call_list<Rest...>>::perform;
  using erase_calls<Backend, Base, call_list<Rest...>>::start;
  void perform(const Call& call) override { this->wrapped_.perform(call); }
  request start(const Call& call) override { return this->wrapped_.start(call); }
};

template <class List, class Call>
struct with_call;
template <class... Calls, class Call>
struct with_call<call_list<Calls...>, Call> {
  using type = call_list<Calls..., Call>;
};

template <class Backend>
class erased final : public erase_calls<Backend, erased_backend<typename Backend::space>,
                                        typename with_call<all_calls, group_call>::type> {
  using base =
      erase_calls<Backend, erased_backend<typename Backend::space>, typename with_call<all_calls, group_call>::type>;

 public:
  using base::base;

  int rank() const noexcept override { return this->wrapped_.rank(); }
  int size() const noexcept override { return this->wrapped_.size(); }
  std::unique_ptr<erased_backend<typename Backend::space>> split(int colour, int key, const call_site& site) override {
    return std::make_unique<erased>(this->wrapped_.split(colour, key, site));
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) override {
    this->wrapped_.exchange(in, out, bytes, site);
  }
  control_lane& control() override {
    if constexpr (offers_control<Backend>::value) return this->wrapped_.base().control();
    else throw unsupported_error("the backend of this communicator has no control lane");
  }
  void fail(const std::string& reason) noexcept override { this->wrapped_.fail(reason); }
  std::uint64_t group_order() noexcept override { return group_order_of(this->wrapped_.base()); }
  const call_history* remembered() noexcept override { return history_of(this->wrapped_.base()); }
  void throw_if_failed(const call_site& site) override {
    if constexpr (tells_failure<Backend>::value) this->wrapped_.base().throw_if_failed(site);
  }
};

}  // namespace detail

/// The backend of any_communicator: one indirect call around another backend.
template <class Space>
class any_backend {
 public:
  using space = Space;

  explicit any_backend(std::unique_ptr<detail::erased_backend<Space>> wrapped) noexcept
      : rank_(wrapped->rank()), size_(wrapped->size()), wrapped_(std::move(wrapped)) {}

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }

  template <class Call>
  auto perform(const Call& call) -> decltype(std::declval<detail::erased_backend<Space>&>().perform(call)) {
    wrapped_->perform(call);
  }
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<detail::erased_backend<Space>&>().start(call)) {
    return wrapped_->start(call);
  }
  any_backend split(int colour, int key, const call_site& site) {
    return any_backend(wrapped_->split(colour, key, site));
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    wrapped_->exchange(in, out, bytes, site);
  }
  control_lane& control() { return wrapped_->control(); }
  void fail(const std::string& reason) noexcept { wrapped_->fail(reason); }
  void throw_if_failed(const call_site& site) { wrapped_->throw_if_failed(site); }
  std::uint64_t group_order() const noexcept { return wrapped_->group_order(); }
  const call_history* remembered() const noexcept { return wrapped_->remembered(); }

 private:
  int rank_, size_;  // asked for often; not through the table
  std::unique_ptr<detail::erased_backend<Space>> wrapped_;
};

/// Made by erase.
template <class Space>
using any_communicator = communicator<any_backend<Space>>;

/// Hides the backend of a communicator, which is moved from:
///
///     run_ranks(4, [](thread_communicator& comm) { engine(erase(std::move(comm))); });
template <class Backend>
any_communicator<typename Backend::space> erase(communicator<Backend>&& comm, call_site site = call_site::current()) {
  return std::move(comm).wrap("erase", site, [](Backend&& backend) {
    return any_backend<typename Backend::space>(std::make_unique<detail::erased<Backend>>(std::move(backend)));
  });
}

}  // namespace shardkit
