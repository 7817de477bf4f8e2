// The verbs of the typed face that return a request at once, without waiting: each has the arguments of its verb in
// communicator.hpp, where they are documented, and on a device may name a fork of two streams.
#pragma once

#include <shardkit/comm/detail/describing.hpp>
#include <shardkit/comm/detail/forked.hpp>

#include <string>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

template <class Backend>
class started_verbs : public describing<Backend> {
  using base = describing<Backend>;

 public:
  using space = typename base::space;
  using where = typename base::where;
  using start_where = typename forks_of<Backend>::where;

  request barrier_async(start_where w = {}) { return launch(describe_barrier(w), w); }

  template <class Data>
  request broadcast_async(Data&& data, int root, start_where w = {}) {
    return launch(describe_broadcast(std::forward<Data>(data), root, w), w);
  }

  template <class In, class Out>
  request reduce_async(const In& in, Out&& out, reduction op, int root, start_where w = {}) {
    return launch(describe_reduce(in, std::forward<Out>(out), op, root, w), w);
  }
  template <class T, class Of>
  request reduce_async(in_place_view<T, Of> both, reduction op, int root, start_where w = {}) {
    return launch(describe_reduce(in_place_of<space>(both), op, root, w), w);
  }

  template <class In, class Out, class = unless_reduction<Out>>
  request all_reduce_async(const In& in, Out&& out, reduction op, start_where w = {}) {
    return launch(describe_all_reduce(in, std::forward<Out>(out), op, w), w);
  }
  template <class T, class Of>
  request all_reduce_async(in_place_view<T, Of> both, reduction op, start_where w = {}) {
    return launch(describe_all_reduce(in_place_of<space>(both), op, w), w);
  }

  template <class In, class Out, class = unless_partition<Out, start_where>>
  request all_gather_async(const In& in, Out&& out, start_where w = {}) {
    return launch(describe_all_gather(in, std::forward<Out>(out), w), w);
  }
  template <class T, class Of>
  request all_gather_async(in_place_view<T, Of> all, start_where w = {}) {
    return launch(describe_all_gather(in_place_of<space>(all), w), w);
  }
  template <class In, class Out>
  request all_gather_async(const In& in, Out&& out, const partition& layout, start_where w = {}) {
    return launch(describe_all_gather(in, std::forward<Out>(out), layout, w), w);
  }
  template <class T, class Of>
  request all_gather_async(in_place_view<T, Of> all, const partition& layout, start_where w = {}) {
    return launch(describe_all_gather(in_place_of<space>(all), layout, w), w);
  }

  template <class In, class Out, class = unless_reduction<Out>>
  request reduce_scatter_async(const In& in, Out&& out, reduction op, start_where w = {}) {
    return launch(describe_reduce_scatter(in, std::forward<Out>(out), op, w), w);
  }
  template <class In, class Out>
  request reduce_scatter_async(const In& in, Out&& out, reduction op, const partition& layout, start_where w = {}) {
    return launch(describe_reduce_scatter(in, std::forward<Out>(out), op, layout, w), w);
  }

  template <class In, class Out>
  request gather_async(const In& in, Out&& out, int root, start_where w = {}) {
    return launch(describe_gather(in, std::forward<Out>(out), root, w), w);
  }
  template <class In, class Out>
  request gather_async(const In& in, Out&& out, const partition& layout, int root, start_where w = {}) {
    return launch(describe_gather(in, std::forward<Out>(out), layout, root, w), w);
  }

  template <class In, class Out>
  request scatter_async(const In& in, Out&& out, int root, start_where w = {}) {
    return launch(describe_scatter(in, std::forward<Out>(out), root, w), w);
  }
  template <class In, class Out>
  request scatter_async(const In& in, Out&& out, const partition& layout, int root, start_where w = {}) {
    return launch(describe_scatter(in, std::forward<Out>(out), layout, root, w), w);
  }

  template <class In, class Out>
  request all_to_all_async(const In& in, Out&& out, start_where w = {}) {
    return launch(describe_all_to_all(in, std::forward<Out>(out), w), w);
  }
  template <class In, class Out>
  request all_to_all_async(const In& in, const partition& to_each, Out&& out, const partition& from_each,
                           start_where w = {}) {
    return launch(describe_all_to_all(in, to_each, std::forward<Out>(out), from_each, w), w);
  }

  template <class In>
  request send_async(const In& in, int peer, start_where w = {}) {
    return launch(describe_send(in, peer, w), w);
  }

  template <class Out>
  request recv_async(Out&& out, int peer, start_where w = {}) {
    return launch(describe_recv(std::forward<Out>(out), peer, w), w);
  }

  template <class In, class Out>
  request send_recv_async(const In& in, int to, Out&& out, int from, start_where w = {}) {
    return launch(describe_send_recv(in, to, std::forward<Out>(out), from, w), w);
  }

 protected:
  using base::backend_;
  using base::base;
  using base::begin;
  using base::describe_all_gather;
  using base::describe_all_reduce;
  using base::describe_all_to_all;
  using base::describe_barrier;
  using base::describe_broadcast;
  using base::describe_gather;
  using base::describe_recv;
  using base::describe_reduce;
  using base::describe_reduce_scatter;
  using base::describe_scatter;
  using base::describe_send;
  using base::describe_send_recv;
  using base::self_;

  template <class Call>
  request launch(const Call& call, const start_where& w) {
    return forked(Call::name, w, [&] { return begin(call); });
  }
  template <class Begin>
  request forked(const char* operation, const start_where& w, Begin enqueue) {
    if constexpr (std::is_same<start_where, where>::value) {
      return enqueue();
    } else {
      self_.require(operation, w.site);
      try {
        if constexpr (!is_capturable<Backend>::value)
          if (w.compute.is_captured(w.site))
            throw usage_error(
                "this communicator's transport works on the host and cannot be captured into a graph; call it between "
                "graphs, or use one that can");
        return forks_.start(w, enqueue);
      } catch (error& failure) {
        backend_.fail(std::string(operation) + ": " + failure.message());
        failure.attach(base::context(operation, w.site));
        throw;
      }
    }
  }

 private:
  forks_of<Backend> forks_;
};

}  // namespace shardkit::detail
