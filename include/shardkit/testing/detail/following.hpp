// Follows doctest from case to case: what both test mains hang their deadlines and reports on.
#pragma once

#include <shardkit/testing/detail/junit.hpp>
#include <shardkit/testing/detail/options.hpp>

#if !__has_include(<doctest/doctest.h>)
#error "shardkit: this needs doctest; link shardkit::testing, or install doctest-dev"
#endif
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>
#include <utility>

namespace shardkit::testing::detail {

/// What a test main wants to know. Called on the thread that runs the cases, `crashed` from a signal handler.
class run_observer {
 public:
  virtual void case_started(const doctest::TestCaseData& which) = 0;
  virtual void case_ended(bool passed) = 0;
  virtual void crashed() = 0;

  junit_record record;
  bool queried = false;  ///< doctest was asked for something that runs no case: --help, --no-run, --list-test-cases

  static inline run_observer* current = nullptr;

 protected:
  ~run_observer() = default;
};

/// doctest makes listeners by itself; this one hands on to the observer.
class case_listener : public doctest::IReporter {
 public:
  explicit case_listener(const doctest::ContextOptions& given) : given_(given) {}

  void test_case_start(const doctest::TestCaseData& which) override {
    if (run_observer::current == nullptr) return;
    run_observer::current->record.begin(which);
    run_observer::current->case_started(which);
  }
  void test_case_end(const doctest::CurrentTestCaseStats& stats) override {
    if (run_observer::current == nullptr) return;
    run_observer::current->record.end();
    run_observer::current->case_ended(stats.testCaseSuccess);
  }
  void test_case_exception(const doctest::TestCaseException& exception) override {
    if (run_observer::current == nullptr) return;
    run_observer::current->record.threw(exception);
    if (exception.is_crash) run_observer::current->crashed();
  }
  void report_query(const doctest::QueryData&) override {
    if (given_.help) *given_.cout << options_help;
    if (run_observer::current != nullptr) run_observer::current->queried = true;
  }
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData& one) override {
    if (one.m_failed && run_observer::current != nullptr) run_observer::current->record.failed(one);
  }
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}

 private:
  const doctest::ContextOptions& given_;
};

/// Which case is running and for how long, in a form that another thread may ask for. What is between the cases has a
/// deadline too: doctest's reporters and listeners run there, which may be the program's own.
class current_case {
 public:
  explicit current_case(double default_deadline) : default_deadline_(default_deadline), deadline_(default_deadline) {}

  void start(const doctest::TestCaseData& which) {
    const std::lock_guard<std::mutex> lock(mutex_);
    name_ = which.m_name;
    enter("in the test case \"" + name_ + "\"", std::max(which.m_timeout, default_deadline_));
    ++started_;
  }
  void end() {
    const std::lock_guard<std::mutex> lock(mutex_);
    enter("after the test case \"" + name_ + "\"", default_deadline_);
  }
  int started() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return started_;
  }
  /// "in the test case ..." or where else the run is.
  std::string place() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return place_;
  }
  /// Counts time; true once the case has had more than its deadline.
  bool expired(double passed) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return (passed_ += passed) > deadline_;
  }
  double deadline() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return deadline_;
  }

 private:
  void enter(std::string place, double deadline) {
    place_ = std::move(place);
    deadline_ = deadline;
    passed_ = 0;
  }

  mutable std::mutex mutex_;
  std::string name_, place_ = "before the first test case";
  const double default_deadline_;
  double deadline_, passed_ = 0;
  int started_ = 0;
};

/// A thread that looks, 20 times a second, whether things still move.
class watching_thread {
 public:
  /// look(passed) is told the seconds since it was called last.
  explicit watching_thread(std::function<void(double passed)> look)
      : thread_([this, look = std::move(look)] {
          std::unique_lock<std::mutex> lock(mutex_);
          auto last = std::chrono::steady_clock::now();
          while (!ended_.wait_for(lock, std::chrono::milliseconds(50), [&, this] { return done_; })) {
            const auto now = std::chrono::steady_clock::now();
            // A program that was stopped (a debugger, a suspended machine) has not hung in that time.
            const double passed = std::chrono::duration<double>(now - last).count();
            look(passed < 1 ? passed : 1);
            last = now;
          }
        }) {}
  watching_thread(const watching_thread&) = delete;
  watching_thread& operator=(const watching_thread&) = delete;
  ~watching_thread() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      done_ = true;
    }
    ended_.notify_all();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
  std::thread thread_;
};

inline std::string in_seconds(double value) {
  const auto text = std::to_string(value);
  return text.substr(0, text.find('.') + 2) + " s";
}

}  // namespace shardkit::testing::detail
