// The typed face of every backend, written once: views in, sizes checked, one call descriptor out.
//
// A communicator is a set of ranks that call the same verbs in the same order. Calls take effect in program order;
// on a device they are ordered by their stream, which is never synchronised. What each verb exchanges and when a
// buffer may be in place is documented at its descriptor in calls.hpp. Wrong arguments fail the communicator, so
// that no peer waits, and then throw usage_error; after any failure the contents of outputs are unspecified.
#pragma once

#include <shardkit/comm/detail/calling.hpp>
#include <shardkit/comm/in_place.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

template <class Backend>
class communicator : private detail::calling<Backend> {
  using base = detail::calling<Backend>;

 public:
  using backend_type = Backend;
  using space = typename base::space;
  using where = typename base::where;

  explicit communicator(Backend backend, std::string name = "world")
      : communicator(std::move(backend), std::make_shared<const std::string>(std::move(name))) {}
  communicator(communicator&&) = default;
  communicator& operator=(communicator&&) = default;

  using base::rank;
  using base::size;
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

  using base::backend_;
  using base::begin;
  using base::checked;
  using base::checked_peer;
  using base::guarded;
  using base::index;
  using base::name_;
  using base::ranks;
  using base::reject;
  using base::require_apart;
  using base::require_disjoint;
  using base::require_layout;
  using base::require_reduction;
  using base::require_root;
  using base::require_size;
  using base::run;
  using base::whole_share;

  communicator(Backend backend, std::shared_ptr<const std::string> name) : base(std::move(backend), std::move(name)) {}

  template <class View>
  static constexpr dtype type = dtype_of<std::remove_const_t<typename View::element_type>>;
  // Only the host combines in the calling thread; a device backend has its own kernels.
  template <class View>
  static constexpr reduce_function combine() {
    if constexpr (std::is_same<space, host_space>::value) return detail::ordered_reduce_of<type<View>>();
    else return nullptr;
  }

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

  static constexpr void require_host_result() {
    static_assert(std::is_same<space, host_space>::value, "shardkit: single values travel on host communicators only");
    static_assert(!detail::defers_calls<Backend>::value, "shardkit: a call inside group has no result yet; pass a buffer");
  }

  std::vector<any_call> recorded_;  // kept, so that a steady state allocates nothing
};

}  // namespace shardkit
