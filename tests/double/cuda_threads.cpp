// The threads of the double: one that lets work run that nobody waits for, one for host functions.
#include <double/state.hpp>

#include <chrono>
#include <thread>
#include <utility>

namespace shardkit_double {
namespace {

/// Work that nobody waits for runs too, after some idle time: the program may wait for it without the API, for a flag
/// that a host function sets.
void run_when_idle() {
  state& d = all();
  unseen always;
  using clock = std::chrono::steady_clock;
  std::pair<std::uint64_t, std::uint64_t> before;
  clock::time_point since;
  for (;;) {
    const std::uint32_t seen = d.changes.load();
    d.lock.lock();
    const bool queued_work = anything_queued();
    // Idle is who has neither queued nor run anything for a while.
    const std::pair<std::uint64_t, std::uint64_t> now{d.operations, d.steps};
    if (now != before) since = clock::now();
    before = now;
    const double usual = d.when.when == order::late ? 0.02 : 0.002;
    const std::chrono::duration<double> idle(d.idle_seconds > 0 ? d.idle_seconds : usual);
    if (queued_work && clock::now() - since >= idle) run_everything();
    d.lock.unlock();
    if (queued_work) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    else sleep_until_change(seen, -1);
  }
}

}  // namespace

void start_idle_thread() {
  static const bool started = [] {
    std::thread(run_when_idle).detach();
    return true;
  }();
  (void)started;
}

namespace {

/// Host functions run one after the other on a thread of their own, since they may wait for the program's threads.
class host_function_thread {
 public:
  void post(queued_ptr q, std::function<void()> function) {
    if (!started_) std::thread([this] { serve(); }).detach();
    started_ = true;
    waiting_.push_back({std::move(q), std::move(function)});
    wake();
  }

 private:
  struct call {
    queued_ptr of;
    std::function<void()> function;
  };

  /// The stream calls the function, on the stack of a thread that nobody else ever uses: to ThreadSanitizer the thread
  /// has written to its stack, and would stay the one that did.
  static void act(void* fiber, const std::function<void()>& function) {
    char stack = 0;
    __tsan_release(&stack);
    unseen always;
    this_thread().in_host_function = true;
    acting_as stream(fiber);
    __tsan_acquire(&stack);
    function();
  }

  void serve() {
    state& d = all();
    unseen always;
    this_thread().in_host_function = true;
    for (;;) {
      const std::uint32_t seen = d.changes.load();
      d.lock.lock();
      if (waiting_.empty()) {
        d.lock.unlock();
        sleep_until_change(seen, -1);
        continue;
      }
      call next = std::move(waiting_.front());
      waiting_.pop_front();
      d.lock.unlock();
      if (watched()) std::thread([&] { act(next.of->on->fiber, next.function); }).join();
      else next.function();
      d.lock.lock();
      next.of->outside = false;
      next.of->op.run = nullptr;
      ++d.steps;
      wake();
      if (d.when.when == order::eager) run_everything();
      d.lock.unlock();
    }
  }

  std::deque<call> waiting_;
  bool started_ = false;
};

}  // namespace

void run_outside(queued_ptr q, std::function<void()> function) {
  static host_function_thread& thread = *new host_function_thread;
  q->outside = true;
  thread.post(std::move(q), std::move(function));
}

}  // namespace shardkit_double
