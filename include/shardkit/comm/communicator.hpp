// The typed face of every backend, written once: views in, sizes checked, one call descriptor out.
//
// Each verb has a form that returns when the call has taken effect on this rank (verbs.hpp), and one, X_async, that
// returns a request at once (started_verbs.hpp): the buffers, and a partition, must then stay until the request is
// complete, and may not be temporaries. What is under way goes on in every later call and wait of this rank. A
// collective is started, or listed in a group, by all ranks or by none: over MPI the two forms do not meet. On a device
// X_async takes a fork of two streams, fork{compute, communication}: the call runs on the second after what the first
// holds, and the request's wait() makes the first wait for it.
//
// A communicator is a set of ranks that call the same verbs in the same order. Calls take effect in program order;
// on a device they are ordered by their stream, which is never synchronised. What each verb exchanges and when a
// buffer may be in place is documented at its descriptor in calls.hpp. Wrong arguments fail the communicator, so
// that no peer waits, and then throw usage_error; after any failure the contents of outputs are unspecified. So do
// calls on a communicator that was moved from, which fail nobody.
#pragma once

#include <shardkit/comm/control.hpp>
#include <shardkit/comm/detail/named_lane.hpp>
#include <shardkit/comm/detail/refused_calls.hpp>
#include <shardkit/comm/verbs.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

template <class Space>
class grouping;

/// A set of ranks, over any backend; see the top of this file.
template <class Backend>
class communicator : private verbs<Backend>, private detail::refused_calls {
  using base = verbs<Backend>;
  using async_verbs = started_verbs<Backend>;
  using refused = detail::refused_calls;

 public:
  using backend_type = Backend;  ///< what carries the calls
  using space = typename base::space;
  using where = typename base::where;
  /// Where a call is started without waiting: on a device also a fork of two streams.
  using start_where = typename base::start_where;

  explicit communicator(Backend backend, std::string name = "world")
      : communicator(std::move(backend), detail::shared<detail::shared_name>::make(std::move(name))) {}
  communicator(communicator&&) = default;
  communicator& operator=(communicator&&) = default;
  communicator(const communicator&, detail::not_copied_but_moved_or_passed_by_reference_or_split = {}) =
      SHARDKIT_DELETE("shardkit: a communicator is not copied; move it, pass it by reference, or split it");

  /// This rank's number here, from 0; -1 after the communicator was moved from.
  int rank() const noexcept { return base::rank(); }
  /// Number of ranks; 0 after the communicator was moved from.
  int size() const noexcept { return base::size(); }
  /// Whether this rank is the root; by convention rank 0.
  bool is_root(int root = 0) const noexcept { return rank() == root; }
  /// Whether this rank has the highest number.
  bool is_last() const noexcept { return rank() == size() - 1; }
  /// Appears in error messages.
  const std::string& name() const noexcept {
    static const std::string none;
    return self_.moved_from() ? none : self_.name()->text;
  }
  /// The backend, for what only it offers (an MPI_Comm, a native handle).
  Backend& backend(call_site site = call_site::current()) {
    self_.require("backend", site);
    return backend_.base();
  }
  /// The same ranks over around(backend), as decorators are put on by `operation`; this communicator is moved from.
  template <class Around>
  auto wrap(const char* operation, const call_site& site, Around around) && {
    self_.require(operation, site);
    communicator taken(std::move(*this));
    const error_context doing{taken.rank(), taken.size(), taken.name(), operation, 0, site};
    try {
      return communicator<decltype(around(std::declval<Backend>()))>(around(std::move(taken.backend_.base())),
                                                                     taken.self_.name());
    } catch (error& failure) {
      failure.attach(doing);
      throw;
    }
  }

  // Each verb; see verbs.hpp.
  using base::all_gather;
  using base::all_reduce;
  using base::all_to_all;
  using base::barrier;
  using base::broadcast;
  using base::gather;
  using base::recv;
  using base::reduce;
  using base::reduce_scatter;
  using base::scatter;
  using base::send;
  using base::send_recv;

  // Each verb without waiting; see started_verbs.hpp.
  using async_verbs::all_gather_async;
  using async_verbs::all_reduce_async;
  using async_verbs::all_to_all_async;
  using async_verbs::barrier_async;
  using async_verbs::broadcast_async;
  using async_verbs::gather_async;
  using async_verbs::recv_async;
  using async_verbs::reduce_async;
  using async_verbs::reduce_scatter_async;
  using async_verbs::scatter_async;
  using async_verbs::send_async;
  using async_verbs::send_recv_async;

  using refused::all_reduce;
  using refused::all_reduce_async;
  using refused::reduce;
  using refused::reduce_async;
  using refused::reduce_scatter;
  using refused::reduce_scatter_async;

  /// Performs the verbs that `body(g)` calls on g as one, so that none of them waits for another. g.with(other) lists
  /// verbs of another communicator, on which all of its ranks make a group, too:
  ///
  ///     comm.group([&](auto& g) { g.send(right, next); g.recv(left, previous); });
  ///     comm.group([&](auto& g) { g.all_reduce(in_place(a), sum); g.with(tensor).all_gather(x, y); });
  ///
  /// The body only lists them, with buffers and partitions that outlive it; where it throws, nothing has been started.
  /// On a device they run on the stream of the group, unless they name another.
  template <class Body>
  void group(Body&& body, where w = {}) {
    grouping<space> listed(*this);
    record(listed, std::forward<Body>(body), w);
    if (listed.others_.empty()) return run(listed.as_one(recorded_, w));
    start_all(listed, w).wait();
  }
  /// The same without waiting: one request for all of them.
  template <class Body>
  request group_async(Body&& body, start_where w = {}) {
    grouping<space> listed(*this);
    record(listed, std::forward<Body>(body), w);
    if (listed.others_.empty()) return launch(listed.as_one(recorded_, w), w);
    return forked(group_call::name, w, [&, this] { return start_all(listed, w); });
  }

  /// Collective: the ranks of one colour form a communicator, ordered by key, then by rank here. That all ranks make a
  /// split is compared like any call; their colours and keys are not, because any are right. Where the ranks mean one
  /// division, `mesh` and `subset` compare it before they split.
  communicator split(int colour, int key = 0, std::string name = {}, where w = {}) {
    static_assert(detail::require_outside_group<Backend>::value);
    if (colour < 0) reject("split", detail::sentence() << "colour " << colour << " is negative", w);
    if (name.empty()) name = detail::sentence() << this->name() << "/" << colour;
    return guarded("split", w,
                   [&, this] { return communicator(backend_.split(colour, key, w.site), std::move(name)); });
  }

  /// Collective over host memory whatever the space: element r of the result is rank r's value. For metadata:
  /// small and plain.
  template <class T>
  std::vector<T> exchange(const T& value, where w = {}) {
    static_assert(std::is_trivially_copyable<T>::value, "shardkit: exchange carries plain values");
    static_assert(detail::require_outside_group<Backend>::value);
    std::vector<T> all(ranks());
    guarded("exchange", w, [&, this] { backend_.exchange(&value, all.data(), sizeof(T), w.site); });
    return all;
  }

  /// Small host messages between these ranks beside their calls, whatever the space: see comm/control.hpp. The first
  /// call is collective; the lane lives as long as this communicator.
  control_lane& control(where w = {}) {
    static_assert(detail::require_outside_group<Backend>::value);
    return *guarded("control", w, [&, this] {
      Backend& backend = backend_.base();
      return &detail::named_lane<>::of(*self_.name(), backend.control(), detail::history_of(backend));
    });
  }

  /// Throws where this communicator is known to have failed: an asynchronous error of its transport, a failed peer.
  /// Never waits. Where the host does not wait in calls (CUDA), this is how it hears; see cuda/synchronize.hpp. The
  /// error says that it was found in `operation`.
  void throw_if_failed(const call_site& site = call_site::current(), const char* operation = "throw_if_failed") {
    self_.require(operation, site);
    if constexpr (detail::tells_failure<Backend>::value)
      explaining(operation, site, [&, this] { backend_.base().throw_if_failed(site); });
  }

  /// Declares this rank failed: calls of the others, on every communicator of the launch, throw peer_failed.
  void fail(const std::string& reason) noexcept {
    if (!self_.moved_from()) backend_.fail(reason);
  }

  // For functions over communicators, whose errors then read like those of verbs: tells an error that passes what this
  // rank was doing; fails the communicator and throws usage_error for arguments that are wrong.
  using base::explain;
  using base::reject;

 private:
  template <class Other>
  friend class communicator;
  template <class Space>
  friend class grouping;

  using base::backend_;
  using base::begin;
  using base::explaining;
  using base::forked;
  using base::guarded;
  using base::launch;
  using base::ranks;
  using base::run;
  using base::self_;

  communicator(Backend backend, detail::shared<detail::shared_name> name) : base(std::move(backend), std::move(name)) {}

  template <class Body>
  void record(grouping<space>& listed, Body&& body, const where& w) {
    static_assert(detail::require_outside_group<Backend>::value);
    self_.require("group", w.site);
    try {
      std::forward<Body>(body)(listed);
    } catch (error& wrong) {
      backend_.fail(wrong.message());
      for (const auto& other : listed.others_) other->fail(wrong.message());
      explain(wrong, "group", w.site);
      throw;
    }
  }
  request start_all(grouping<space>& listed, const where& w) {
    // Own first, then as listed, unless the backends say otherwise.
    const std::size_t before = listed.sort_others(detail::group_order_of(backend_.base()));
    return joined_requests::of([&, this](joined_requests& started) {
      for (std::size_t i = 0; i <= listed.others_.size(); ++i) {
        if (i == before) started.add(begin(listed.as_one(recorded_, w)));
        if (i < listed.others_.size()) started.add(listed.others_[i]->start(w));
      }
    });
  }

  detail::list<any_call> recorded_;  // kept, so that a steady state allocates nothing
};

}  // namespace shardkit

#undef SHARDKIT_DELETE

#include <shardkit/comm/detail/grouping.hpp>
