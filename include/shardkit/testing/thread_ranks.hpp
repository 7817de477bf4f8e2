// Tests on thread ranks: a main for suites that use on_ranks, and on_thread_ranks, which works under any doctest main.
//
//   #define DOCTEST_CONFIG_IMPLEMENT
//   #include <shardkit/testing/thread_ranks.hpp>
//
//   int main(int argc, char** argv) { return shardkit::testing::thread_main(argc, argv); }
#pragma once

#include <shardkit/launch/launched_size.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/testing/detail/following.hpp>
#include <shardkit/testing/detail/options.hpp>
#include <shardkit/testing/on_ranks.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::testing {
namespace detail {

/// What a rank's peers are told when one of its REQUIREs has failed.
struct require_failed : std::exception {
  const char* what() const noexcept override { return "a REQUIRE has failed on it"; }
};

/// The exceptions of all ranks in one. JUnit files hold exceptions and asserts, not messages.
struct rank_failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Which ranks of the launch in progress have not come to the end of their body yet. Asked for by the watching thread.
class missing_ranks {
 public:
  void begin(int ranks) {
    const std::lock_guard<std::mutex> lock(mutex_);
    missing_.assign(static_cast<std::size_t>(ranks), true);
  }
  void arrived(int rank) {
    const std::lock_guard<std::mutex> lock(mutex_);
    missing_[static_cast<std::size_t>(rank)] = false;
  }
  /// "; ranks 0, 2 of 3 have not arrived at the end of the body", or nothing where no launch is in progress.
  std::string text() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string ranks;
    for (std::size_t r = 0; r < missing_.size(); ++r)
      if (missing_[r]) ranks += (ranks.empty() ? " " : ", ") + std::to_string(r);
    if (ranks.empty()) return "";
    return "; of " + std::to_string(missing_.size()) +
           " ranks these have not arrived at the end of their body:" + ranks;
  }

  static missing_ranks& current() {
    static missing_ranks only;
    return only;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<bool> missing_;
};

/// "rank 1 of 3" on the threads that are ranks, for a signal handler.
struct this_rank {
  int rank = -1, size = 0;
  static this_rank& here() {
    static thread_local this_rank here;
    return here;
  }
};

/// Exceptions that left ranks, kept for the thread that runs the test case.
class rank_exceptions {
 public:
  /// Called in a catch block.
  void record(int rank) {
    bool consequence = false;
    std::string text = "an exception that is no std::exception";
    try {
      throw;
    } catch (const peer_failed& failure) {
      consequence = true;
      text = failure.what();
    } catch (const std::exception& failure) {
      text = failure.what();
    } catch (...) {
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    (consequence ? consequences_ : causes_).emplace_back(rank, std::move(text));
  }
  void require_failed() {
    const std::lock_guard<std::mutex> lock(mutex_);
    required_ = true;
  }

  /// After all ranks have ended: throws what ends the test case. The consequences of a peer's failure are failures
  /// themselves only where nothing else tells why.
  [[noreturn]] void rethrow(int ranks, const call_site& site) {
    std::sort(causes_.begin(), causes_.end());
    std::sort(consequences_.begin(), consequences_.end());
    const auto named = [&](int rank) { return "rank " + std::to_string(rank) + " of " + std::to_string(ranks); };
    const bool explained = required_ || !causes_.empty();
    if (explained)
      for (const auto& [rank, text] : consequences_)
        DOCTEST_ADD_MESSAGE_AT(site.file, static_cast<int>(site.line), named(rank), " was ended by it: ", text);
    std::string all;
    for (const auto& [rank, text] : explained ? causes_ : consequences_) {
      if (!all.empty()) all += '\n';
      all += named(rank) + " threw: " + text;
    }
    if (all.empty()) doctest::detail::throwException();  // as a failed REQUIRE does
    throw rank_failure(all);
  }
  bool any() const { return required_ || !causes_.empty() || !consequences_.empty(); }

 private:
  std::mutex mutex_;
  bool required_ = false;
  std::vector<std::pair<int, std::string>> causes_, consequences_;
};

}  // namespace detail

/// Runs body(comm) on `size` thread ranks from inside a doctest case, with a thread_communicator each. CHECK, INFO and
/// MESSAGE may be used in the body, also from several ranks at once, and tell the rank. A failed REQUIRE ends the body
/// of its rank and fails the others' calls; then the test case ends, as it does after an exception, which is reported
/// for each rank that threw one. Subcases belong outside the body: doctest follows one thread through them.
template <class Body>
void on_thread_ranks(int size, launch_options options, Body&& body, call_site site = call_site::current()) {
  detail::rank_exceptions exceptions;
  auto& missing = detail::missing_ranks::current();
  options.on_failure = nullptr;  // told below
  if (size > 0) missing.begin(size);
  try {
    run_ranks(size, options, [&](thread_communicator& comm) {
      const int rank = comm.rank();
      detail::this_rank::here() = {rank, size};
      std::exception_ptr thrown;
      {
        // The exception is kept until INFO has ended: doctest stores the text of an INFO that an exception passes in a
        // place that all threads share.
        DOCTEST_INFO("on rank ", rank, " of ", size);
        try {
          body(comm);
        } catch (const doctest::detail::TestFailureException&) {
          exceptions.require_failed();
          thrown = std::make_exception_ptr(detail::require_failed());
        } catch (...) {
          exceptions.record(rank);
          thrown = std::current_exception();
        }
      }
      missing.arrived(rank);
      if (thrown) std::rethrow_exception(thrown);
    });
  } catch (...) {
    if (!exceptions.any()) throw;  // the launch itself
  }
  if (exceptions.any()) exceptions.rethrow(size, site);
}
/// The same with the default options.
template <class Body>
void on_thread_ranks(int size, Body&& body, call_site site = call_site::current()) {
  on_thread_ranks(size, launch_options{}, std::forward<Body>(body), site);
}

namespace detail {

class thread_run final : public run_observer, public rank_runner {
 public:
  explicit thread_run(const options& given)
      : given_(given), case_(given.case_deadline), watching_([this](double passed) { look(passed); }) {
    run_observer::current = this;
    rank_runner::current = this;
  }
  ~thread_run() {
    run_observer::current = nullptr;
    rank_runner::current = nullptr;
  }

  void case_started(const doctest::TestCaseData& which) override { case_.start(which); }
  void case_ended(bool) override { case_.end(); }
  void crashed() override {
    const this_rank& here = this_rank::here();
    if (here.rank >= 0) std::fprintf(stderr, "rank %d of %d has crashed\n", here.rank, here.size);
  }

  int ranks() const override { return given_.ranks == 0 ? 4 : given_.ranks; }
  bool allows_fewer_ranks() const override { return given_.allow_fewer_ranks; }
  std::string remedy(int needed) const override { return "run with --ranks=" + std::to_string(needed); }
  void run(const std::function<void(rank_communicator&)>& body, const call_site& site) override {
    launch_options options;
    // A call that hangs is to end before its case does: then the run goes on.
    options.limits.operation = std::min(options.limits.operation, case_.deadline() / 2);
    on_thread_ranks(
        ranks(), options,
        [&](thread_communicator& comm) {
          rank_communicator erased = erase(std::move(comm));
          body(erased);
        },
        site);
  }

  int cases_started() const { return case_.started(); }

 private:
  void look(double passed) {
    total_ += passed;
    const bool case_expired = case_.expired(passed);
    if (!case_expired && !(given_.deadline > 0 && total_ > given_.deadline)) return;
    std::cout.flush();
    const std::string why = "DEADLINE: " + in_seconds(case_expired ? case_.deadline() : given_.deadline) +
                            " have passed " + case_.place() + missing_ranks::current().text();
    std::fprintf(stderr, "%s\n", why.c_str());
    std::fflush(stderr);
    if (given_.junit) record.write(given_.out, why);
    std::_Exit(1);
  }

  const options given_;
  current_case case_;
  double total_ = 0;
  watching_thread watching_;  // last: it looks at the others
};

}  // namespace detail

/// The whole of main: doctest with its options and those of `--help`, test cases that use on_ranks run on thread
/// ranks. A case that has not ended by its deadline ends the program with the names of the case and of the ranks that
/// have not arrived, also in the file of doctest's JUnit reporter (that of its XML reporter stays unfinished). A filter
/// that matches no case is a failure. Returns what main is to return.
inline int thread_main(int argc, char** argv) {
  try {
    const detail::options given(argc, argv);
    if (const auto started = launched_size(); started.size > 1)
      throw usage_error(
          "these ranks are threads of one process, but " + std::string(started.variable) +
          " says that a launcher has started " + std::to_string(started.size) +
          " processes; start the program without it and choose the ranks with --ranks=" + std::to_string(started.size));
    doctest::registerReporter<detail::case_listener>("shardkit", 1, false);
    doctest::Context context(argc, argv);
    detail::thread_run run(given);
    const int result = context.run();
    if (run.queried || run.cases_started() != 0) return result;
    std::fputs("no test case matches the filters\n", stderr);
    return 1;
  } catch (const usage_error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}

}  // namespace shardkit::testing
