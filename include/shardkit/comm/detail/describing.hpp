// From the arguments of a verb to its call descriptor: views, sizes, layouts and roots are checked here, once, for the
// verb and for its asynchronous form.
#pragma once

#include <shardkit/comm/detail/calling.hpp>
#include <shardkit/comm/in_place.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

// Where the second argument could be an output or, of the in-place form, the operation, the layout or the stream.
template <class Out>
using unless_reduction = std::enable_if_t<!std::is_same<bare<Out>, reduction>::value>;
template <class Out, class Where>
using unless_partition =
    std::enable_if_t<!std::is_same<bare<Out>, partition>::value && !std::is_convertible<Out, Where>::value>;

template <class Backend>
class describing : public calling<Backend> {
  using base = calling<Backend>;

 public:
  using space = typename base::space;
  using where = typename base::where;

 protected:
  using base::base;
  using base::checked;
  using base::checked_peer;
  using base::index;
  using base::rank;
  using base::ranks;
  using base::require_apart;
  using base::require_buffers;
  using base::require_disjoint;
  using base::require_layout;
  using base::require_reduction;
  using base::require_root;
  using base::require_size;
  using base::whole_share;

  [[gnu::always_inline]] inline barrier_call describe_barrier(where w) { return {space::native(w.stream), w.site}; }

  template <class Data>
  [[gnu::always_inline]] inline broadcast_call describe_broadcast(Data&& data, int root, where w) {
    const auto x = checked("broadcast", output_of<space>(std::forward<Data>(data)), w);
    require_root("broadcast", root, w);
    return {x.data(), x.size(), type<decltype(x)>, root, space::native(w.stream), w.site};
  }

  template <class In, class Out>
  [[gnu::always_inline]] inline reduce_call describe_reduce(const In& in, Out&& out, reduction op, int root, where w) {
    const auto [x, y] = pair(in, std::forward<Out>(out));
    if (rank() == root) {
      require_buffers("reduce", x, y, w);
      require_size("reduce", "out", y.size(), x.size(), w);
      require_disjoint("reduce", x, y, 0, w);
    } else {
      require_root("reduce", root, w);
      checked("reduce", x, w);
    }
    return reduction_of(x, y.data(), op, root, w);
  }
  template <class T>
  [[gnu::always_inline]] inline reduce_call describe_reduce(in_place_view<T, space> both, reduction op, int root,
                                                            where w) {
    checked("reduce", both.data, w);
    require_root("reduce", root, w);
    return reduction_of(view<const T, space>(both.data), both.data.data(), op, root, w);
  }

  template <class In, class Out>
  [[gnu::always_inline]] inline all_reduce_call describe_all_reduce(const In& in, Out&& out, reduction op, where w) {
    const auto [x, y] = pair("all_reduce", in, std::forward<Out>(out), w);
    require_size("all_reduce", "out", y.size(), x.size(), w);
    require_disjoint("all_reduce", x, y, 0, w);
    return reduction_of(x, y.data(), op, w);
  }
  template <class T>
  [[gnu::always_inline]] inline all_reduce_call describe_all_reduce(in_place_view<T, space> both, reduction op,
                                                                    where w) {
    checked("all_reduce", both.data, w);
    return reduction_of(view<const T, space>(both.data), both.data.data(), op, w);
  }

  template <class In, class Out, class = std::enable_if_t<!std::is_convertible<Out, const partition&>::value>>
  [[gnu::always_inline]] inline all_gather_call describe_all_gather(const In& in, Out&& out, where w) {
    const auto [x, y] = pair("all_gather", in, std::forward<Out>(out), w);
    require_size("all_gather", "out", y.size(), x.size() * ranks(), w);
    require_disjoint("all_gather", x, y, index() * x.size(), w);
    return {x.data(), y.data(), x.size(), type<decltype(x)>, space::native(w.stream), w.site};
  }
  template <class T>
  [[gnu::always_inline]] inline all_gather_call describe_all_gather(in_place_view<T, space> all, where w) {
    checked("all_gather", all.data, w);
    const std::size_t count = whole_share("all_gather", all.data.size(), w);
    return {all.data.data() + index() * count, all.data.data(), count, dtype_of<T>, space::native(w.stream), w.site};
  }
  template <class In, class Out>
  all_gather_uneven_call describe_all_gather(const In& in, Out&& out, const partition& layout, where w) {
    const auto [x, y] = pair("all_gather", in, std::forward<Out>(out), w);
    require_layout("all_gather", layout, w);
    require_size("all_gather", "in", x.size(), layout.count(rank()), w);
    require_size("all_gather", "out", y.size(), layout.total(), w);
    require_disjoint("all_gather", x, y, layout.offset(rank()), w);
    return {x.data(), y.data(), &layout, type<decltype(x)>, space::native(w.stream), w.site};
  }
  template <class T>
  all_gather_uneven_call describe_all_gather(in_place_view<T, space> all, const partition& layout, where w) {
    checked("all_gather", all.data, w);
    require_layout("all_gather", layout, w);
    require_size("all_gather", "buffer", all.data.size(), layout.total(), w);
    return {all.data.data() + layout.offset(rank()),
            all.data.data(),
            &layout,
            dtype_of<T>,
            space::native(w.stream),
            w.site};
  }

  template <class In, class Out>
  [[gnu::always_inline]] inline reduce_scatter_call describe_reduce_scatter(const In& in, Out&& out, reduction op,
                                                                            where w) {
    const auto [x, y] = pair("reduce_scatter", in, std::forward<Out>(out), w);
    require_size("reduce_scatter", "in", x.size(), y.size() * ranks(), w);
    require_disjoint("reduce_scatter", y, x, index() * y.size(), w);
    require_reduction("reduce_scatter", type<decltype(x)>, op, w);
    return {x.data(), y.data(), y.size(), type<decltype(x)>, op, combine<decltype(x)>(op), space::native(w.stream),
            w.site};
  }
  template <class In, class Out>
  reduce_scatter_uneven_call describe_reduce_scatter(const In& in, Out&& out, reduction op, const partition& layout,
                                                     where w) {
    const auto [x, y] = pair("reduce_scatter", in, std::forward<Out>(out), w);
    require_layout("reduce_scatter", layout, w);
    require_size("reduce_scatter", "in", x.size(), layout.total(), w);
    require_size("reduce_scatter", "out", y.size(), layout.count(rank()), w);
    require_disjoint("reduce_scatter", y, x, layout.offset(rank()), w);
    require_reduction("reduce_scatter", type<decltype(x)>, op, w);
    return {x.data(), y.data(), &layout, type<decltype(x)>, op, combine<decltype(x)>(op), space::native(w.stream),
            w.site};
  }

  template <class In, class Out>
  [[gnu::always_inline]] inline gather_call describe_gather(const In& in, Out&& out, int root, where w) {
    const auto [x, y] = pair(in, std::forward<Out>(out));
    if (rank() == root) {
      require_buffers("gather", x, y, w);
      require_size("gather", "out", y.size(), x.size() * ranks(), w);
      require_disjoint("gather", x, y, index() * x.size(), w);
    } else {
      require_root("gather", root, w);
      checked("gather", x, w);
    }
    return {x.data(), y.data(), x.size(), type<decltype(x)>, root, space::native(w.stream), w.site};
  }
  template <class In, class Out>
  gather_uneven_call describe_gather(const In& in, Out&& out, const partition& layout, int root, where w) {
    const auto [x, y] = pair("gather", in, std::forward<Out>(out), w);
    require_root("gather", root, w);
    require_layout("gather", layout, w);
    require_size("gather", "in", x.size(), layout.count(rank()), w);
    if (rank() == root) {
      require_size("gather", "out", y.size(), layout.total(), w);
      require_disjoint("gather", x, y, layout.offset(rank()), w);
    }
    return {x.data(), y.data(), &layout, type<decltype(x)>, root, space::native(w.stream), w.site};
  }

  template <class In, class Out>
  [[gnu::always_inline]] inline scatter_call describe_scatter(const In& in, Out&& out, int root, where w) {
    const auto [x, y] = pair(in, std::forward<Out>(out));
    if (rank() == root) {
      require_buffers("scatter", x, y, w);
      require_size("scatter", "in", x.size(), y.size() * ranks(), w);
      require_disjoint("scatter", y, x, index() * y.size(), w);
    } else {
      require_root("scatter", root, w);
      checked("scatter", y, w);
    }
    return {x.data(), y.data(), y.size(), type<decltype(x)>, root, space::native(w.stream), w.site};
  }
  template <class In, class Out>
  scatter_uneven_call describe_scatter(const In& in, Out&& out, const partition& layout, int root, where w) {
    const auto [x, y] = pair("scatter", in, std::forward<Out>(out), w);
    require_root("scatter", root, w);
    require_layout("scatter", layout, w);
    require_size("scatter", "out", y.size(), layout.count(rank()), w);
    if (rank() == root) {
      require_size("scatter", "in", x.size(), layout.total(), w);
      require_disjoint("scatter", y, x, layout.offset(rank()), w);
    }
    return {x.data(), y.data(), &layout, type<decltype(x)>, root, space::native(w.stream), w.site};
  }

  template <class In, class Out>
  [[gnu::always_inline]] inline all_to_all_call describe_all_to_all(const In& in, Out&& out, where w) {
    const auto [x, y] = pair("all_to_all", in, std::forward<Out>(out), w);
    require_size("all_to_all", "out", y.size(), x.size(), w);
    require_apart("all_to_all", x, y, w);
    const std::size_t count = whole_share("all_to_all", x.size(), w);
    return {x.data(), y.data(), count, type<decltype(x)>, space::native(w.stream), w.site};
  }
  template <class In, class Out>
  all_to_all_uneven_call describe_all_to_all(const In& in, const partition& to_each, Out&& out,
                                             const partition& from_each, where w) {
    const auto [x, y] = pair("all_to_all", in, std::forward<Out>(out), w);
    require_layout("all_to_all", to_each, w);
    require_layout("all_to_all", from_each, w);
    require_size("all_to_all", "in", x.size(), to_each.total(), w);
    require_size("all_to_all", "out", y.size(), from_each.total(), w);
    require_apart("all_to_all", x, y, w);
    return {x.data(), &to_each, y.data(), &from_each, type<decltype(x)>, space::native(w.stream), w.site};
  }

  template <class In>
  [[gnu::always_inline]] inline send_call describe_send(const In& in, int peer, where w) {
    const auto x = checked("send", input_of<space>(in), w);
    return {x.data(), x.size(), type<decltype(x)>, checked_peer("send", peer, w), space::native(w.stream), w.site};
  }
  template <class Out>
  [[gnu::always_inline]] inline recv_call describe_recv(Out&& out, int peer, where w) {
    const auto y = checked("recv", output_of<space>(std::forward<Out>(out)), w);
    return {y.data(), y.size(), type<decltype(y)>, checked_peer("recv", peer, w), space::native(w.stream), w.site};
  }
  template <class In, class Out>
  [[gnu::always_inline]] inline send_recv_call describe_send_recv(const In& in, int to, Out&& out, int from, where w) {
    const auto [x, y] = pair("send_recv", in, std::forward<Out>(out), w);
    require_apart("send_recv", x, y, w);
    return {x.data(),
            x.size(),
            checked_peer("send_recv", to, w),
            y.data(),
            y.size(),
            checked_peer("send_recv", from, w),
            type<decltype(x)>,
            space::native(w.stream),
            w.site};
  }

 private:
  template <class View>
  static constexpr dtype type = dtype_of<std::remove_const_t<typename View::element_type>>;
  // Only the host combines in the calling thread; a device backend has its own kernels.
  template <class View>
  [[gnu::always_inline]] static inline reduce_function combine([[maybe_unused]] reduction op) {
    if constexpr (std::is_same<space, host_space>::value) return ordered_reduce_for<type<View>>(op.kind);
    else return nullptr;
  }

  template <class In, class Out>
  [[gnu::always_inline]] inline auto pair(const In& in, Out&& out) {
    auto x = input_of<space>(in);
    auto y = output_of<space>(std::forward<Out>(out));
    require_same_element<decltype(x), decltype(y)>();
    return std::make_pair(x, y);
  }
  template <class In, class Out>
  [[gnu::always_inline]] inline auto pair(const char* operation, const In& in, Out&& out, const where& w) {
    auto x = input_of<space>(in);  // not by the other one: the optimiser loses sight of views inside of pairs
    auto y = output_of<space>(std::forward<Out>(out));
    require_same_element<decltype(x), decltype(y)>();
    require_buffers(operation, x, y, w);
    return std::make_pair(x, y);
  }

  template <class T>
  [[gnu::always_inline]] inline reduce_call reduction_of(view<const T, space> in, void* out, reduction op, int root,
                                                         where w) {
    require_reduction("reduce", dtype_of<T>, op, w);
    return {in.data(), out, in.size(), dtype_of<T>, op, combine<decltype(in)>(op), root, space::native(w.stream),
            w.site};
  }
  template <class T>
  [[gnu::always_inline]] inline all_reduce_call reduction_of(view<const T, space> in, void* out, reduction op,
                                                             where w) {
    require_reduction("all_reduce", dtype_of<T>, op, w);
    return {in.data(), out, in.size(), dtype_of<T>, op, combine<decltype(in)>(op), space::native(w.stream), w.site};
  }
};

}  // namespace shardkit::detail
