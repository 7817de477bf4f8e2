// Calls that are started on two streams of a device: the communication stream waits for the compute stream before the
// call, and the compute stream for the call when its request is waited for. Nothing of it waits on the host, and all of
// it can be captured into a graph. Spaces without streams (the host) have none of this.
#pragma once

#include <shardkit/comm/backend.hpp>
#include <shardkit/comm/detail/call_pool.hpp>
#include <shardkit/comm/request.hpp>
#include <shardkit/core/at.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/shared.hpp>

#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

template <class Space, class = void>
struct forks : std::false_type {};
template <class Space>
struct forks<Space, std::void_t<typename Space::fork>> : std::true_type {};

/// The last argument of a call that is started: a fork, or one stream that is both.
template <class Space>
struct start_at : at<Space> {
  using stream_type = typename Space::stream;

  stream_type compute;

  constexpr start_at(stream_type both = {}, call_site from = call_site::current()) noexcept
      : at<Space>(both, from), compute(both) {}
  template <class Stream, std::enable_if_t<std::is_convertible<const Stream&, stream_type>::value &&
                                               !std::is_base_of<at<Space>, Stream>::value,
                                           int> = 0>
  constexpr start_at(const Stream& both, call_site from = call_site::current()) noexcept
      : start_at(stream_type(both), from) {}
  constexpr start_at(at<Space> both) noexcept : at<Space>(both), compute(both.stream) {}
  constexpr start_at(const typename Space::fork& streams, call_site from = call_site::current()) noexcept
      : at<Space>(streams.communication, from), compute(streams.compute) {}
  constexpr start_at(stream_type of_compute, stream_type communication, call_site from = call_site::current()) noexcept
      : at<Space>(communication, from), compute(of_compute) {}
};

/// What a communicator keeps for its calls on two streams: events, made in advance.
template <class Space>
class forked_calls {
  using event_pool = typename Space::event_pool;

 public:
  using where = start_at<Space>;

  /// Room for this many calls under way before more events have to be made.
  static constexpr std::size_t prepared = 16;

  forked_calls() : common_(shared<common>::make()) {}

  /// Starts a call by `enqueue()`, behind what the compute stream holds now.
  template <class Enqueue>
  request start(const where& w, Enqueue&& enqueue) {
    const typename event_pool::event done = common_->events.take(w);
    call& one = common_->calls.take();
    one.open(common_, done, w);
    request result(&one);  // from here on it cleans up
    common_->events.order(w.compute, w);
    one.enqueued(std::forward<Enqueue>(enqueue)());
    return result;
  }

 private:
  struct common;

  class call : public pending_call {
   public:
    virtual ~call() = default;

    void open(const shared<common>& owner, typename event_pool::event done, const where& w) noexcept {
      owner_ = owner;
      done_ = done;
      where_ = w;
      recorded_ = joined_ = false;
    }
    void enqueued(request inner) {
      (void)(inner_ = std::move(inner));
      if (!inner_.active()) record();
    }

    bool test() override {
      if (where_.stream.is_captured(where_.site))
        throw usage_error(
            "a request was tested during capture, when nothing runs: wait for it, which makes the "
            "compute stream wait in the graph");
      if (!inner_.test()) return false;
      record();
      if (!done_.reached(where_.site)) return false;
      joined_ = true;  // the host knows: what it enqueues from now on comes after
      return true;
    }
    void wait() override {
      inner_.wait();
      join();
    }
    bool try_wait() override {
      if (!inner_.try_wait()) return false;
      join();
      return true;
    }
    double deadline() const noexcept override {
      return inner_.active() ? inner_.pending()->deadline() : std::numeric_limits<double>::infinity();
    }
    [[noreturn]] void expire() override {
      if (inner_.active()) inner_.pending()->expire();
      throw timeout_error("a call that was enqueued");
    }
    void release() noexcept override {
      // A request that is dropped is joined: what follows on the compute stream may use the buffers, and a graph that
      // is being captured gets its streams together.
      try {
        if (inner_.active()) (void)(inner_ = request());
        else if (recorded_) join();
      } catch (const error&) {
        // The stream is broken, which its next use tells.
      }
      const shared<common> owner = std::move(owner_);
      owner->events.give_back(done_);
      owner->calls.give_back(*this);
    }

   private:
    void record() {
      if (!recorded_) done_.record(where_);
      recorded_ = true;
    }
    void join() {
      if (joined_ || Space::native(where_.compute) == Space::native(where_.stream)) return;
      record();
      done_.order_before({where_.compute, where_.site});
      joined_ = true;
    }

    where where_;
    typename event_pool::event done_;  // reached when the communication stream has done the call
    request inner_;
    bool recorded_ = false, joined_ = false;
    shared<common> owner_;  // while under way: a request may outlive its communicator
  };

  struct common final : shared_object {
    common() : events(2 * prepared) {
      list<call*> taken;
      for (std::size_t i = 0; i < prepared; ++i) taken.push_back(&calls.take());
      for (call* one : taken) calls.give_back(*one);
    }

    event_pool events;
    call_pool<call> calls;
  };

  shared<common> common_;
};

/// Of a space without streams: a call is started where it stands.
template <class Space>
struct no_forks {
  using where = at<Space>;
};

/// Recorders of groups start nothing.
template <class Backend, class Space = typename Backend::space>
using forks_of =
    std::conditional_t<forks<Space>::value && !defers_calls<Backend>::value, forked_calls<Space>, no_forks<Space>>;

}  // namespace shardkit::detail
