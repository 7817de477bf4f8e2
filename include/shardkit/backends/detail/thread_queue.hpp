// The collectives that one rank has started and not yet completed, in program order. Only the first is on show to the
// peers; every call and wait of the rank takes it as far as it goes without waiting. `Collectives` says what a call
// does: publish, work, and conclude once all ranks have worked.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/comm/group.hpp>
#include <shardkit/comm/request.hpp>

#include <string>
#include <utility>

namespace shardkit::detail {

template <class Collectives>
class thread_queue;

/// A started collective. Lives in the pool of its rank, which it keeps alive.
template <class Collectives>
class thread_started : public pending_call {
 public:
  inline bool test() override;
  inline void wait() override;
  inline double deadline() const noexcept override;
  [[noreturn]] inline void expire() override;
  inline void release() noexcept override;

 private:
  using queue = thread_queue<Collectives>;
  friend queue;

  enum class phase { queued, published, worked, complete };

  // What depends on the kind of call. Pointers, and not a visit, so that a program compiles only what it starts.
  struct kind {
    void (*publish)(queue&, const any_call&);
    void (*work)(queue&, const any_call&);
    void (*conclude)(queue&, const any_call&);
    void (*wait)(queue&, const any_call&, int peer);
    void (*expire)(queue&, const any_call&, int peer);
    std::string (*text)(const any_call&);
    call_site (*site)(const any_call&);
  };

  template <class Action>
  auto with_context(Action action);

  queue* queue_ = nullptr;
  shared<shared_object> owner_;  // of the queue
  any_call call_;
  const kind* kind_ = nullptr;
  phase phase_ = phase::complete;
};

template <class Collectives>
class thread_queue {
 public:
  using started = thread_started<Collectives>;

  thread_queue(thread_meeting& meeting, Collectives& collectives) : meeting_(meeting), collectives_(collectives) {}

  template <class Call>
  started* start(const Call& call, shared<shared_object> owner) {
    meeting_.require_alive();
    order_.reserve(pool_.size() + 1);  // however many of the pool will be under way at once
    started* const entry = &pool_.take();
    entry->queue_ = this;
    entry->owner_ = std::move(owner);
    entry->call_ = call;
    entry->kind_ = &kind_of<Call>;
    entry->phase_ = phase::queued;
    order_.push_back(entry);
    show_progress();
    try {
      advance();
    } catch (...) {
      entry->release();
      throw;
    }
    return entry;
  }

  /// Before a blocking collective: what was started earlier comes first.
  void settle() {
    while (!order_.empty()) wait(*order_.back());
  }

  /// Takes the first, and then the next, as far as possible without waiting.
  void advance() {
    if (meeting_.failed()) return;  // nobody's buffers may be touched any more
    while (!order_.empty() && step(*order_.front())) order_.erase(order_.begin());
    show_progress();
  }

  void wait(started& entry) {
    for (advance(); entry.phase_ != phase::complete; advance()) {
      meeting_.require_not_failed();
      const int peer = missing();
      if (peer < 0) continue;  // it has come meanwhile
      order_.front()->kind_->wait(*this, order_.front()->call_, peer);
    }
  }
  bool test(started& entry) {
    if (entry.phase_ != phase::complete) meeting_.go_on();
    if (entry.phase_ != phase::complete) meeting_.require_not_failed();
    return entry.phase_ == phase::complete;
  }
  [[noreturn]] void expire() {
    const int peer = missing();
    order_.front()->kind_->expire(*this, order_.front()->call_, peer < 0 ? meeting_.rank() : peer);
    throw timeout_error("a started collective");
  }

  void recycle(started& entry) noexcept {
    const thread_meeting::holding held(meeting_);
    if (entry.phase_ != phase::complete) {
      meeting_.raise_silently("a request was dropped before it completed", [&]() -> std::string {
        return sentence() << "a request of " << text_of(entry) << " was dropped before it completed";
      });
      meeting_.withdraw();
      order_.remove(&entry);
      show_progress();
    }
    pool_.give_back(entry);
  }

  thread_meeting& meeting() const noexcept { return meeting_; }
  error_context context_of(const started& entry) const {
    return {meeting_.rank(), meeting_.room().size, {}, text_of(entry), 0, entry.kind_->site(entry.call_)};
  }

 private:
  using phase = typename started::phase;

  template <class Call>
  static const typename started::kind kind_of;

  static std::string text_of(const started& entry) { return entry.kind_->text(entry.call_); }

  // True when the entry is complete.
  bool step(started& entry) {
    if (entry.phase_ == phase::queued) {
      if (missing() >= 0) return false;
      meeting_.defer_next();
      entry.kind_->publish(*this, entry.call_);
      entry.phase_ = phase::published;
    }
    if (entry.phase_ == phase::published) {
      if (missing() >= 0) return false;
      entry.kind_->work(*this, entry.call_);
      entry.phase_ = phase::worked;
    }
    if (entry.phase_ == phase::worked && (!meeting_.exposed() || missing() < 0)) {
      meeting_.conclude();
      entry.kind_->conclude(*this, entry.call_);
      entry.phase_ = phase::complete;
    }
    return entry.phase_ == phase::complete;
  }

  // A rank without which the first entry cannot go on; -1 where there is none. Before it is published, the peers have
  // to have come to the call before.
  int missing() const {
    return order_.front()->phase_ == phase::worked ? meeting_.first_reading() : meeting_.first_absent();
  }

  void show_progress() noexcept {
    using source = thread_meeting::progress_source;
    if (order_.empty()) {
      meeting_.set_progress(source::collectives, nullptr, nullptr);
      meeting_.set_settling(nullptr, nullptr);
    } else {
      meeting_.set_progress(
          source::collectives, [](void* self) { static_cast<thread_queue*>(self)->advance(); }, this);
      meeting_.set_settling([](void* self) { static_cast<thread_queue*>(self)->settle(); }, this);
    }
  }

  thread_meeting& meeting_;
  Collectives& collectives_;
  call_pool<started> pool_;
  list<started*> order_;
};

template <class Collectives>
template <class Call>
const typename thread_started<Collectives>::kind thread_queue<Collectives>::kind_of{
    [](thread_queue& q, const any_call& call) { q.collectives_.publish(call.get<Call>()); },
    [](thread_queue& q, const any_call& call) {
      const thread_meeting::reading now(q.meeting_);
      q.meeting_.await_all(call.get<Call>());  // they are there; compares the calls
      q.collectives_.work(call.get<Call>());
      if (q.meeting_.exposed()) q.meeting_.mark_done();
    },
    [](thread_queue& q, const any_call& call) { q.collectives_.conclude(call.get<Call>()); },
    [](thread_queue& q, const any_call& call, int peer) {
      q.meeting_.wait(call.get<Call>(), peer, [&] { return q.order_.empty() || q.missing() != peer; });
    },
    [](thread_queue& q, const any_call& call, int peer) { q.meeting_.throw_timeout(call.get<Call>(), peer); },
    [](const any_call& call) { return describe(call.get<Call>()); },
    [](const any_call& call) { return call.get<Call>().site; }};

template <class Collectives>
template <class Action>
auto thread_started<Collectives>::with_context(Action action) {
  const thread_meeting::holding held(queue_->meeting());
  try {
    return action();
  } catch (error& failure) {
    failure.attach(queue_->context_of(*this));
    throw;
  }
}
template <class Collectives>
bool thread_started<Collectives>::test() {
  return with_context([&, this] { return queue_->test(*this); });
}
template <class Collectives>
void thread_started<Collectives>::wait() {
  with_context([&, this] { queue_->wait(*this); });
}
template <class Collectives>
double thread_started<Collectives>::deadline() const noexcept {
  return queue_->meeting().room().launch->limits().operation;
}
template <class Collectives>
void thread_started<Collectives>::expire() {
  with_context([&, this] { queue_->expire(); });
  throw timeout_error("a started collective");
}
template <class Collectives>
void thread_started<Collectives>::release() noexcept {
  // The last reference may be this one; the pool then goes with it, this object included.
  const shared<shared_object> owner = std::move(owner_);
  queue_->recycle(*this);
}

}  // namespace shardkit::detail
