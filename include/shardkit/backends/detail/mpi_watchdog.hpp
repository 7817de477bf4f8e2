// The one thread that ends a job which would hang: MPI can neither be interrupted nor throw while it waits. By the
// system's own threads: <thread> and its like take longer to compile than the rest of the backend.
#pragma once

#include <shardkit/backends/detail/mpi_api.hpp>
#include <shardkit/backends/detail/mpi_in_call.hpp>
#include <shardkit/backends/detail/mpi_node.hpp>
#include <shardkit/comm/deadlines.hpp>
#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <cstdio>
#include <string>
#include <utility>

#include <pthread.h>
#include <time.h>
#include <unistd.h>

namespace shardkit::detail {

/// Writes `text` to standard error and ends all processes of the job with a non-zero status. Where MPI is stuck as
/// well, at least this process ends after `grace` seconds, and the launcher ends the others.
[[noreturn]] inline void mpi_end_job(const std::string& text, double grace) {
  static atomic<bool> ending{false};
  if (ending.exchange(true))
    for (;;) ::pause();  // another thread is at it
  std::fputs((text + "\n").c_str(), stderr);
  std::fflush(nullptr);
  // MPI_Abort kills the launcher's readers, too: let them forward the text first.
  ::usleep(100000);
  if (mpi_is_running()) {
    static unsigned microseconds = 0;
    microseconds = static_cast<unsigned>((grace < 5.0 ? grace : 5.0) * 1e6);
    pthread_t last_resort;
    (void)pthread_create(
        &last_resort, nullptr,
        [](void*) -> void* {
          ::usleep(microseconds);
          ::_exit(1);
        },
        nullptr);
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  ::_exit(1);
}

/// Looks 20 times a second at what the process is doing. Ends the job when a call outlasts its deadline, when a call
/// is still in progress the abort grace after the launch failed, and when the process itself is still there the
/// grace after it gave up. Tells the ranks of the node what it sees, and hears from them.
class mpi_watchdog {
 public:
  mpi_watchdog(const deadlines& limits, const mpi_failure_board* board) : limits_(limits), board_(board) {
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&wake_, &clock);
    pthread_condattr_destroy(&clock);
    if (!(limits.init < no_deadline || limits.operation < no_deadline || limits.abort < no_deadline)) return;
    if (pthread_create(
            &thread_, nullptr,
            [](void* self) noexcept -> void* {
              static_cast<mpi_watchdog*>(self)->watch();
              return nullptr;
            },
            this) != 0)
      throw transport_error("the system grants no thread for the watchdog of MPI's calls");
    started_ = true;
  }
  mpi_watchdog(const mpi_watchdog&) = delete;
  mpi_watchdog& operator=(const mpi_watchdog&) = delete;
  ~mpi_watchdog() {
    if (started_) {
      {
        const holding lock(mutex_);
        stopping_ = true;
      }
      pthread_cond_broadcast(&wake_);
      pthread_join(thread_, nullptr);
    }
    pthread_cond_destroy(&wake_);
  }

  /// Whether there is anything to watch: some deadline.
  bool watches() const noexcept { return started_; }

  void add(mpi_call_slot& slot) {
    const holding lock(mutex_);
    slot.board.store(board_);
    slots_.push_back(&slot);
  }
  void remove(mpi_call_slot& slot) noexcept {
    const holding lock(mutex_);
    slots_.remove(&slot);
  }

  /// From now on this board counts; the old one, and the node it belongs to, are touched no more, here or by calls that
  /// are entered. Without a node there is nobody to hear from.
  void follow(const mpi_failure_board* board, mpi_node* node) noexcept {
    const holding lock(mutex_);
    board_ = board;
    node_ = node;
    for (mpi_call_slot* slot : slots_) slot->board.store(board);
  }
  /// Who speaks in the messages.
  void introduce(std::string speaker) {
    const holding lock(mutex_);
    speaker_ = std::move(speaker);
  }
  /// This process has given up and is to end within the grace.
  void give_up() noexcept {
    const holding lock(mutex_);
    given_up_ = true;
  }

  static constexpr double interval = 0.05;  ///< seconds from look to look

 private:
  class holding {
   public:
    explicit holding(pthread_mutex_t& mutex) noexcept : mutex_(mutex) { pthread_mutex_lock(&mutex_); }
    holding(const holding&) = delete;
    holding& operator=(const holding&) = delete;
    ~holding() { pthread_mutex_unlock(&mutex_); }

   private:
    pthread_mutex_t& mutex_;
  };

  void watch() {
    const holding lock(mutex_);
    for (double last = now_seconds();;) {
      const timespec next = timespec_of(now_seconds() + interval);
      pthread_cond_timedwait(&wake_, &mutex_, &next);
      if (stopping_) return;
      const double now = now_seconds();
      // A process that was stopped (a debugger, a suspended machine) has not waited for its peers in that time.
      look(now - last < 1.0 ? now - last : 1.0);
      last = now;
    }
  }

  void look(double passed) {
    if (node_ != nullptr) node_->note(here());
    const bool failed = board_->failed();
    if (failed) since_failure_ += passed;
    if (given_up_ && (since_given_up_ += passed) > limits_.abort) end("has given up, " + cause());
    for (mpi_call_slot* slot : slots_) {
      std::uint64_t call = slot->call.load(memory_order_acquire);
      if (mpi_call_slot::number(call) == 0) continue;
      call = slot->call.fetch_or(mpi_call_slot::seen);
      slot->waited = (call & mpi_call_slot::seen) != 0 ? slot->waited + passed : 0;
      if (failed && since_failure_ > limits_.abort)
        end("is still in " + place(*slot, call) + " " + seconds(limits_.abort) + " after the failure, " + cause());
      if (slot->waited > slot->limit)
        end("has waited for its peers in " + place(*slot, call) + " for longer than the deadline of " +
            seconds(slot->limit) +
            (failed             ? ", " + cause()
             : node_ != nullptr ? node_->elsewhere()
                                : ""));
    }
  }

  // Where this rank is, without a heap allocation: the calls are to be free of them, and tests count.
  const char* here() noexcept {
    here_[0] = '\0';
    for (const mpi_call_slot* slot : slots_) {
      const std::uint64_t call = slot->call.load(memory_order_acquire);
      if (mpi_call_slot::number(call) == 0) continue;
      const unsigned line = mpi_call_slot::line(call);
      if (line == 0) std::snprintf(here_, sizeof here_, "%s", slot->name_of(call));
      else std::snprintf(here_, sizeof here_, "%s at %s:%u", slot->name_of(call), slot->file.load(), line);
      break;
    }
    return here_;
  }

  std::string cause() const {
    return "because rank " + std::to_string(board_->culprit()) + " failed: " + board_->reason();
  }
  static std::string place(const mpi_call_slot& slot, std::uint64_t call) {
    const unsigned line = mpi_call_slot::line(call);
    const std::string name = slot.name_of(call);
    return line == 0 ? name : name + " at " + slot.file.load() + ":" + std::to_string(line);
  }
  static std::string seconds(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g s", value);
    return text;
  }
  [[noreturn]] void end(const std::string& what) {
    mpi_end_job("shardkit: " + speaker_ + " " + what + "; it ends the job", limits_.abort);
  }

  const deadlines limits_;
  pthread_mutex_t mutex_ = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake_;
  pthread_t thread_{};
  bool started_ = false;
  bool stopping_ = false;
  bool given_up_ = false;
  double since_failure_ = 0, since_given_up_ = 0;
  const mpi_failure_board* board_;
  mpi_node* node_ = nullptr;
  char here_[mpi_whereabouts::length] = {};
  std::string speaker_ = "a rank";
  list<mpi_call_slot*> slots_;
};

}  // namespace shardkit::detail
