// What both test mains share: their own command line options, which test case is running, and the deadline that turns
// a hang into a failure that says where.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace shardkit_test {

/// The options that are ours; all others are doctest's.
struct options {
  int deadline = 0;  ///< seconds for the whole program; 0: none
  int ranks = 0;     ///< processes that the launcher was told to start; 0: any number

  options(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      if (std::strncmp(argv[i], "--deadline=", 11) == 0) deadline = std::atoi(argv[i] + 11);
      if (std::strncmp(argv[i], "--ranks=", 8) == 0) ranks = std::atoi(argv[i] + 8);
    }
  }
};

/// Follows doctest from case to case.
class running_case : public doctest::IReporter {
 public:
  explicit running_case(const doctest::ContextOptions&) {}

  /// Name of the case that is running, for a thread that watches; empty after the last one.
  static std::string name() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return name_;
  }
  /// Cases that have been started.
  static int started() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return started_;
  }
  /// Called once when a signal is about to end the program, before doctest writes about it.
  static inline std::function<void()> on_crash;

  void test_case_start(const doctest::TestCaseData& data) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    name_ = data.m_name;
    ++started_;
  }
  void test_case_exception(const doctest::TestCaseException& exception) override {
    if (exception.is_crash && on_crash) on_crash();
  }

  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_run_end(const doctest::TestRunStats&) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    name_.clear();
  }
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}

 private:
  static inline std::mutex mutex_;
  static inline std::string name_;
  static inline int started_ = 0;
};

/// Calls `expired` from a thread of its own unless it is destroyed within so many seconds.
class watchdog {
 public:
  watchdog(int seconds, std::function<void()> expired) {
    if (seconds <= 0) return;
    thread_ = std::thread([this, seconds, expired = std::move(expired)] {
      std::unique_lock<std::mutex> lock(mutex_);
      if (!ended_.wait_for(lock, std::chrono::seconds(seconds), [&] { return done_; })) expired();
    });
  }
  watchdog(const watchdog&) = delete;
  watchdog& operator=(const watchdog&) = delete;
  ~watchdog() {
    if (!thread_.joinable()) return;
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

/// The line that a watchdog writes.
inline std::string too_late(int seconds) {
  const std::string name = running_case::name();
  return "DEADLINE: " + std::to_string(seconds) + " s have passed " +
         (name.empty() ? "and other ranks have not ended" : "in the test case \"" + name + "\"") + "\n";
}

/// doctest's result, or a failure where no case ran at all: a filter that matches nothing tests nothing.
inline int result_of(doctest::Context& context) {
  const int result = context.run();
  if (context.shouldExit() || running_case::started() != 0) return result;
  return 1;
}

}  // namespace shardkit_test
