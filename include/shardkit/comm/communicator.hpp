// The typed face of every backend, written once: views in, sizes checked, one call descriptor out.
//
// A communicator is a set of ranks that call the same verbs in the same order. Calls take effect in program order;
// on a device they are ordered by their stream, which is never synchronised. What each verb exchanges and when a
// buffer may be in place is documented at its descriptor in calls.hpp. Wrong arguments fail the communicator, so
// that no peer waits, and then throw usage_error; after any failure the contents of outputs are unspecified.
#pragma once

#include <shardkit/comm/complete.hpp>
#include <shardkit/comm/describe.hpp>
#include <shardkit/comm/in_place.hpp>
#include <shardkit/core/at.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

template <class Backend>
class communicator {
 public:
  using backend_type = Backend;
  using space = typename Backend::space;
  using where = at<space>;

  explicit communicator(Backend backend, std::string name = "world")
      : communicator(std::move(backend), std::make_shared<const std::string>(std::move(name))) {}
  communicator(communicator&&) = default;
  communicator& operator=(communicator&&) = default;

  int rank() const noexcept { return backend_.rank(); }
  int size() const noexcept { return backend_.size(); }
  bool is_root(int root = 0) const noexcept { return rank() == root; }
  bool is_last() const noexcept { return rank() == size() - 1; }
  /// Appears in error messages.
  const std::string& name() const noexcept { return *name_; }
  /// The backend, for what only it offers (an MPI_Comm, a native handle).
  Backend& backend() noexcept { return backend_.base(); }

  /// Returns after every rank has called it.
  void barrier(where w = {}) { run(barrier_call{space::native(w.stream), w.site}); }

  /// Every rank's `data` becomes the root's; sizes are equal.
  template <class Data>
  void broadcast(Data&& data, int root, where w = {}) {
    const auto x = checked("broadcast", detail::output_of<space>(std::forward<Data>(data)), w);
    require_root("broadcast", root, w);
    run(broadcast_call{x.data(), x.size(), type<decltype(x)>, root, space::native(w.stream), w.site});
  }

  /// The root's `out` = the ranks' `in` combined; elsewhere `out` may be empty.
  template <class In, class Out>
  void reduce(const In& in, Out&& out, reduction op, int root, where w = {}) {
    const auto [x, y] = pair("reduce", in, std::forward<Out>(out), w);
    require_root("reduce", root, w);
    if (rank() == root) {
      require_size("reduce", "out", y.size(), x.size(), w);
      require_disjoint("reduce", x, y, 0, w);
    }
    reduce(x, y.data(), op, root, w);
  }
  template <class T>
  void reduce(in_place_view<T, space> both, reduction op, int root, where w = {}) {
    checked("reduce", both.data, w);
    require_root("reduce", root, w);
    reduce(view<const T, space>(both.data), both.data.data(), op, root, w);
  }

  /// `out` = the ranks' `in` combined, the same bits on every rank.
  template <class In, class Out, class = std::enable_if_t<!std::is_same<detail::bare<Out>, reduction>::value>>
  void all_reduce(const In& in, Out&& out, reduction op, where w = {}) {
    const auto [x, y] = pair("all_reduce", in, std::forward<Out>(out), w);
    require_size("all_reduce", "out", y.size(), x.size(), w);
    require_disjoint("all_reduce", x, y, 0, w);
    all_reduce(x, y.data(), op, w);
  }
  template <class T>
  [[gnu::always_inline]] inline void all_reduce(in_place_view<T, space> both, reduction op, where w = {}) {
    checked("all_reduce", both.data, w);
    all_reduce(view<const T, space>(both.data), both.data.data(), op, w);
  }
  /// One number from every rank, combined; host communicators.
  template <class T, std::enable_if_t<detail::has_dtype<T>::value, int> = 0>
  T all_reduce(T value, reduction op, where w = {}) {
    require_host_result();
    all_reduce(in_place(view(&value, 1)), op, w);
    return value;
  }

  /// `out` (size * in.size()) = the ranks' `in` in rank order.
  template <class In, class Out, class = std::enable_if_t<!std::is_same<detail::bare<Out>, partition>::value>>
  void all_gather(const In& in, Out&& out, where w = {}) {
    const auto [x, y] = pair("all_gather", in, std::forward<Out>(out), w);
    require_size("all_gather", "out", y.size(), x.size() * ranks(), w);
    require_disjoint("all_gather", x, y, index() * x.size(), w);
    run(all_gather_call{x.data(), y.data(), x.size(), type<decltype(x)>, space::native(w.stream), w.site});
  }
  /// Each rank's part already lies at its place in `all`.
  template <class T>
  void all_gather(in_place_view<T, space> all, where w = {}) {
    checked("all_gather", all.data, w);
    const std::size_t count = whole_share("all_gather", all.data.size(), w);
    run(all_gather_call{all.data.data() + index() * count, all.data.data(), count, dtype_of<T>,
                        space::native(w.stream), w.site});
  }
  /// Unequal counts: rank r's `in` has layout.count(r) elements, `out` has layout.total().
  template <class In, class Out>
  void all_gather(const In& in, Out&& out, const partition& layout, where w = {}) {
    const auto [x, y] = pair("all_gather", in, std::forward<Out>(out), w);
    require_layout("all_gather", layout, w);
    require_size("all_gather", "in", x.size(), layout.count(rank()), w);
    require_size("all_gather", "out", y.size(), layout.total(), w);
    require_disjoint("all_gather", x, y, layout.offset(rank()), w);
    run(all_gather_uneven_call{x.data(), y.data(), &layout, type<decltype(x)>, space::native(w.stream), w.site});
  }
  template <class T>
  void all_gather(in_place_view<T, space> all, const partition& layout, where w = {}) {
    checked("all_gather", all.data, w);
    require_layout("all_gather", layout, w);
    require_size("all_gather", "buffer", all.data.size(), layout.total(), w);
    run(all_gather_uneven_call{all.data.data() + layout.offset(rank()), all.data.data(), &layout, dtype_of<T>,
                               space::native(w.stream), w.site});
  }

  /// `out` on rank r = block r of the ranks' `in` (size * out.size()) combined.
  template <class In, class Out, class = std::enable_if_t<!std::is_same<detail::bare<Out>, reduction>::value>>
  void reduce_scatter(const In& in, Out&& out, reduction op, where w = {}) {
    const auto [x, y] = pair("reduce_scatter", in, std::forward<Out>(out), w);
    require_size("reduce_scatter", "in", x.size(), y.size() * ranks(), w);
    require_disjoint("reduce_scatter", y, x, index() * y.size(), w);
    require_reduction("reduce_scatter", type<decltype(x)>, op, w);
    run(reduce_scatter_call{x.data(), y.data(), y.size(), type<decltype(x)>, op, combine<decltype(x)>(),
                            space::native(w.stream), w.site});
  }
  /// Unequal counts: rank r gets layout's range r, `in` has layout.total() elements.
  template <class In, class Out>
  void reduce_scatter(const In& in, Out&& out, reduction op, const partition& layout, where w = {}) {
    const auto [x, y] = pair("reduce_scatter", in, std::forward<Out>(out), w);
    require_layout("reduce_scatter", layout, w);
    require_size("reduce_scatter", "in", x.size(), layout.total(), w);
    require_size("reduce_scatter", "out", y.size(), layout.count(rank()), w);
    require_disjoint("reduce_scatter", y, x, layout.offset(rank()), w);
    require_reduction("reduce_scatter", type<decltype(x)>, op, w);
    run(reduce_scatter_uneven_call{x.data(), y.data(), &layout, type<decltype(x)>, op, combine<decltype(x)>(),
                                   space::native(w.stream), w.site});
  }

  /// The root's `out` (size * in.size()) = the ranks' `in` in rank order; elsewhere `out` may be empty.
  template <class In, class Out>
  void gather(const In& in, Out&& out, int root, where w = {}) {
    const auto [x, y] = pair("gather", in, std::forward<Out>(out), w);
    require_root("gather", root, w);
    if (rank() == root) {
      require_size("gather", "out", y.size(), x.size() * ranks(), w);
      require_disjoint("gather", x, y, index() * x.size(), w);
    }
    run(gather_call{x.data(), y.data(), x.size(), type<decltype(x)>, root, space::native(w.stream), w.site});
  }
  template <class In, class Out>
  void gather(const In& in, Out&& out, const partition& layout, int root, where w = {}) {
    const auto [x, y] = pair("gather", in, std::forward<Out>(out), w);
    require_root("gather", root, w);
    require_layout("gather", layout, w);
    require_size("gather", "in", x.size(), layout.count(rank()), w);
    if (rank() == root) {
      require_size("gather", "out", y.size(), layout.total(), w);
      require_disjoint("gather", x, y, layout.offset(rank()), w);
    }
    run(gather_uneven_call{x.data(), y.data(), &layout, type<decltype(x)>, root, space::native(w.stream), w.site});
  }

  /// `out` on rank r = block r of the root's `in` (size * out.size()); elsewhere `in` may be empty.
  template <class In, class Out>
  void scatter(const In& in, Out&& out, int root, where w = {}) {
    const auto [x, y] = pair("scatter", in, std::forward<Out>(out), w);
    require_root("scatter", root, w);
    if (rank() == root) {
      require_size("scatter", "in", x.size(), y.size() * ranks(), w);
      require_disjoint("scatter", y, x, index() * y.size(), w);
    }
    run(scatter_call{x.data(), y.data(), y.size(), type<decltype(x)>, root, space::native(w.stream), w.site});
  }
  template <class In, class Out>
  void scatter(const In& in, Out&& out, const partition& layout, int root, where w = {}) {
    const auto [x, y] = pair("scatter", in, std::forward<Out>(out), w);
    require_root("scatter", root, w);
    require_layout("scatter", layout, w);
    require_size("scatter", "out", y.size(), layout.count(rank()), w);
    if (rank() == root) {
      require_size("scatter", "in", x.size(), layout.total(), w);
      require_disjoint("scatter", y, x, layout.offset(rank()), w);
    }
    run(scatter_uneven_call{x.data(), y.data(), &layout, type<decltype(x)>, root, space::native(w.stream), w.site});
  }

  /// Block r of `in` goes to rank r, block r of `out` comes from it; the sizes are equal multiples of size().
  template <class In, class Out>
  void all_to_all(const In& in, Out&& out, where w = {}) {
    const auto [x, y] = pair("all_to_all", in, std::forward<Out>(out), w);
    require_size("all_to_all", "out", y.size(), x.size(), w);
    require_apart("all_to_all", x, y, w);
    const std::size_t count = whole_share("all_to_all", x.size(), w);
    run(all_to_all_call{x.data(), y.data(), count, type<decltype(x)>, space::native(w.stream), w.site});
  }
  /// Unequal counts: rank s's to_each.count(r) equals rank r's from_each.count(s).
  template <class In, class Out>
  void all_to_all(const In& in, const partition& to_each, Out&& out, const partition& from_each, where w = {}) {
    const auto [x, y] = pair("all_to_all", in, std::forward<Out>(out), w);
    require_layout("all_to_all", to_each, w);
    require_layout("all_to_all", from_each, w);
    require_size("all_to_all", "in", x.size(), to_each.total(), w);
    require_size("all_to_all", "out", y.size(), from_each.total(), w);
    require_apart("all_to_all", x, y, w);
    run(all_to_all_uneven_call{x.data(), &to_each, y.data(), &from_each, type<decltype(x)>, space::native(w.stream),
                               w.site});
  }

  /// Messages between two ranks arrive in the order sent; the receiver names the exact size.
  template <class In>
  void send(const In& in, int peer, where w = {}) {
    run(send_descriptor(in, peer, w));
  }
  template <class Out>
  void recv(Out&& out, int peer, where w = {}) {
    run(recv_descriptor(std::forward<Out>(out), peer, w));
  }
  /// Sends to `to` while receiving from `from`, which may be the same rank, or this one.
  template <class In, class Out>
  void send_recv(const In& in, int to, Out&& out, int from, where w = {}) {
    const auto [x, y] = pair("send_recv", in, std::forward<Out>(out), w);
    require_apart("send_recv", x, y, w);
    run(send_recv_call{x.data(), x.size(), checked_peer("send_recv", to, w), y.data(), y.size(),
                       checked_peer("send_recv", from, w), type<decltype(x)>, space::native(w.stream), w.site});
  }
  /// The same without waiting: `in` may be changed, `out` read, once the request is complete.
  template <class In>
  request send_async(const In& in, int peer, where w = {}) {
    static_assert(detail::require_outside_group<Backend>::value);
    return begin(send_descriptor(in, peer, w));
  }
  template <class Out>
  request recv_async(Out&& out, int peer, where w = {}) {
    static_assert(detail::require_outside_group<Backend>::value);
    return begin(recv_descriptor(std::forward<Out>(out), peer, w));
  }

  /// Performs the verbs that `body(g)` calls on g as one, so that none of them waits for another:
  ///   comm.group([&](auto& g) { g.send(right, next); g.recv(left, previous); });
  /// The body only lists them; where it throws, nothing has been started.
  template <class Body>
  void group(Body&& body, where w = {}) {
    static_assert(detail::require_outside_group<Backend>::value);
    recorded_.clear();
    communicator<call_recorder<space>> recorder(call_recorder<space>(rank(), size(), recorded_), name_);
    try {
      std::forward<Body>(body)(recorder);
    } catch (const error& wrong) {
      backend_.fail(wrong.message());
      throw;
    }
    run(group_call{recorded_.data(), recorded_.size(), space::native(w.stream), w.site});
  }

  /// Collective: the ranks of one colour form a communicator, ordered by key, then by rank here.
  communicator split(int colour, int key = 0, std::string name = {}, where w = {}) {
    static_assert(detail::require_outside_group<Backend>::value);
    if (colour < 0) reject("split", "colour " + std::to_string(colour) + " is negative", w);
    if (name.empty()) name = *name_ + "/" + std::to_string(colour);
    return guarded("split", w, [&] { return communicator(backend_.split(colour, key, w.site), std::move(name)); });
  }

  /// Collective over host memory whatever the space: element r of the result is rank r's value. For metadata:
  /// small and plain.
  template <class T>
  std::vector<T> exchange(const T& value, where w = {}) {
    static_assert(std::is_trivially_copyable<T>::value, "shardkit: exchange carries plain values");
    static_assert(detail::require_outside_group<Backend>::value);
    std::vector<T> all(ranks());
    guarded("exchange", w, [&] { backend_.exchange(&value, all.data(), sizeof(T), w.site); });
    return all;
  }

  /// Declares this rank failed: calls of the others, on every communicator of the launch, throw peer_failed.
  void fail(const std::string& reason) noexcept { backend_.fail(reason); }

 private:
  template <class Other>
  friend class communicator;

  communicator(Backend backend, std::shared_ptr<const std::string> name)
      : backend_(std::move(backend)), name_(std::move(name)) {}

  template <class View>
  static constexpr dtype type = dtype_of<std::remove_const_t<typename View::element_type>>;
  // Only the host combines in the calling thread; a device backend has its own kernels.
  template <class View>
  static constexpr reduce_function combine() {
    if constexpr (std::is_same<space, host_space>::value) return detail::ordered_reduce_of<type<View>>();
    else return nullptr;
  }

  std::size_t ranks() const noexcept { return static_cast<std::size_t>(size()); }
  std::size_t index() const noexcept { return static_cast<std::size_t>(rank()); }

  template <class In, class Out>
  auto pair(const char* operation, const In& in, Out&& out, const where& w) {
    auto x = checked(operation, detail::input_of<space>(in), w);
    auto y = checked(operation, detail::output_of<space>(std::forward<Out>(out)), w);
    detail::require_same_element<decltype(x), decltype(y)>();
    return std::make_pair(x, y);
  }

  template <class T>
  void reduce(view<const T, space> in, T* out, reduction op, int root, where w) {
    require_reduction("reduce", dtype_of<T>, op, w);
    run(reduce_call{in.data(), out, in.size(), dtype_of<T>, op, combine<decltype(in)>(), root,
                    space::native(w.stream), w.site});
  }
  template <class T>
  [[gnu::always_inline]] inline void all_reduce(view<const T, space> in, T* out, reduction op, where w) {
    require_reduction("all_reduce", dtype_of<T>, op, w);
    run(all_reduce_call{in.data(), out, in.size(), dtype_of<T>, op, combine<decltype(in)>(),
                        space::native(w.stream), w.site});
  }
  template <class In>
  send_call send_descriptor(const In& in, int peer, where w) {
    const auto x = checked("send", detail::input_of<space>(in), w);
    return {x.data(), x.size(), type<decltype(x)>, checked_peer("send", peer, w), space::native(w.stream), w.site};
  }
  template <class Out>
  recv_call recv_descriptor(Out&& out, int peer, where w) {
    const auto y = checked("recv", detail::output_of<space>(std::forward<Out>(out)), w);
    return {y.data(), y.size(), type<decltype(y)>, checked_peer("recv", peer, w), space::native(w.stream), w.site};
  }

  // Inlined, together with what a backend does in the ordinary case, a call costs a handful of instructions: its
  // descriptor never lies in memory. Therefore the error path gets a copy: nothing else takes the address of a call.
  template <class Call>
  [[gnu::always_inline]] inline void run(const Call& call) {
    ++sequence_;
    try {
      backend_.perform(call);
    } catch (error& failure) {
      const Call copy = call;
      explain(failure, copy);
      throw;
    }
  }
  template <class Call>
  [[gnu::cold, gnu::noinline]] void explain(error& failure, const Call& call) const {
    failure.attach(context(describe(call), call.site));
  }
  template <class Call>
  request begin(const Call& call) {
    ++sequence_;
    try {
      return backend_.start(call);
    } catch (error& failure) {
      failure.attach(context(describe(call), call.site));
      throw;
    }
  }
  template <class Body>
  auto guarded(const char* operation, const where& w, Body body) {
    ++sequence_;
    try {
      return body();
    } catch (error& failure) {
      failure.attach(context(operation, w.site));
      throw;
    }
  }

  error_context context(std::string operation, const call_site& site) const {
    return {rank(), size(), *name_, std::move(operation), sequence_, site};
  }

  // A rank that finds its own arguments bad fails the communicator first, so that no peer waits for it.
  [[noreturn]] void reject(const char* operation, const std::string& message, const where& w) {
    ++sequence_;
    backend_.fail(std::string(operation) + ": " + message);
    usage_error wrong(message);
    wrong.attach(context(operation, w.site));
    throw wrong;
  }

  template <class View>
  View checked(const char* operation, View buffer, const where& w) {
    if (buffer.data() == nullptr && !buffer.empty()) reject_null(operation, buffer.size(), w);
    return buffer;
  }
  [[noreturn, gnu::cold, gnu::noinline]] void reject_null(const char* operation, std::size_t count, const where& w) {
    reject(operation, "a buffer of " + std::to_string(count) + " elements begins at a null pointer", w);
  }
  void require_root(const char* operation, int root, const where& w) {
    if (root < 0 || root >= size())
      reject(operation, "root " + std::to_string(root) + " is not a rank of this communicator", w);
  }
  int checked_peer(const char* operation, int peer, const where& w) {
    if (peer < 0 || peer >= size())
      reject(operation, "peer " + std::to_string(peer) + " is not a rank of this communicator", w);
    return peer;
  }
  void require_size(const char* operation, const char* what, std::size_t given, std::size_t needed, const where& w) {
    if (given != needed)
      reject(operation, std::string(what) + " has " + std::to_string(given) + " elements and needs " +
                            std::to_string(needed), w);
  }
  std::size_t whole_share(const char* operation, std::size_t total, const where& w) {
    if (total % ranks() != 0)
      reject(operation, std::to_string(total) + " elements do not divide by " + std::to_string(size()) +
                            " ranks; pass a partition for unequal parts", w);
    return total / ranks();
  }
  void require_layout(const char* operation, const partition& layout, const where& w) {
    if (layout.parts() != size())
      reject(operation, "the partition is over " + std::to_string(layout.parts()) + " ranks, the communicator has " +
                            std::to_string(size()), w);
    if (layout.replica_count() != 1) reject(operation, "the partition has replicas: its ranges coincide", w);
  }
  void require_reduction(const char* operation, dtype element, reduction op, const where& w) {
    if (is_reducible(element, op.kind)) return;
    try {
      require_reducible(element, op.kind);
    } catch (unsupported_error& wrong) {
      ++sequence_;
      backend_.fail(wrong.message());
      wrong.attach(context(operation, w.site));
      throw;
    }
  }
  // `part` may be exactly element `place` of `whole`; any other common byte would be read after it is written.
  template <class Part, class Whole>
  void require_disjoint(const char* operation, const Part& part, const Whole& whole, std::size_t place,
                        const where& w) {
    if (part.data() == whole.data() + place && part.size() <= whole.size()) return;
    require_apart(operation, part, whole, w);
  }
  template <class A, class B>
  void require_apart(const char* operation, const A& a, const B& b, const where& w) {
    const auto* first = static_cast<const void*>(a.data());
    const auto* second = static_cast<const void*>(b.data());
    if (a.empty() || b.empty() || static_cast<const char*>(first) + a.bytes() <= second ||
        static_cast<const char*>(second) + b.bytes() <= first)
      return;
    reject(operation, "input and output overlap", w);
  }
  static constexpr void require_host_result() {
    static_assert(std::is_same<space, host_space>::value, "shardkit: single values travel on host communicators only");
    static_assert(!detail::defers_calls<Backend>::value, "shardkit: a call inside group has no result yet; pass a buffer");
  }

  complete<Backend> backend_;
  std::shared_ptr<const std::string> name_;  // shared with the recorders of groups
  std::uint64_t sequence_ = 0;
  std::vector<any_call> recorded_;  // kept, so that a steady state allocates nothing
};

}  // namespace shardkit
