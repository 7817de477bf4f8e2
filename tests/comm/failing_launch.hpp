// Runs ranks that are meant to fail and keeps what each of them, and the caller, got to see.
#pragma once

#include <doctest/doctest.h>
#include <shardkit/launch/run_ranks.hpp>
#include "conformance/report.hpp"

#include <atomic>
#include <chrono>
#include <exception>
#include <string>
#include <typeinfo>
#include <vector>

using shardkit::at;
using shardkit::call_site;
using shardkit::host_space;
using shardkit::thread_communicator;

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A time within which peers must know of a failure. Instrumented programs and a machine busy with other tests are
/// slower.
inline constexpr double promptly = SHARDKIT_TEST_SANITIZED ? 10 : 1;

/// What left a rank, or run_ranks.
struct ending {
  enum kind { returned, peer_failed, mismatch, timeout, usage, unsupported, other };

  kind how = returned;
  std::string what;
  int culprit = -1;                 ///< of peer_failed
  shardkit::error_context context;  ///< of any error of the library
  double time = 0;

  /// Called in a catch block.
  static ending caught() {
    ending result;
    result.time = seconds_now();
    try {
      throw;
    } catch (const shardkit::peer_failed& failure) {
      result.take(peer_failed, failure);
      result.culprit = failure.culprit();
    } catch (const shardkit::mismatch_error& failure) {
      result.take(mismatch, failure);
    } catch (const shardkit::timeout_error& failure) {
      result.take(timeout, failure);
    } catch (const shardkit::usage_error& failure) {
      result.take(usage, failure);
    } catch (const shardkit::unsupported_error& failure) {
      result.take(unsupported, failure);
    } catch (const shardkit::error& failure) {
      result.take(other, failure);
    } catch (const std::exception& failure) {
      result.how = other;
      result.what = failure.what();
    } catch (...) {
      result.how = other;
      result.what = "no std::exception";
    }
    return result;
  }
  bool says(const std::string& words) const { return what.find(words) != std::string::npos; }

 private:
  void take(kind which, const shardkit::error& failure) {
    how = which;
    what = failure.what();
    context = failure.context();
  }
};

struct failed_launch {
  std::vector<ending> ranks;
  ending caller;
  std::exception_ptr thrown;  ///< out of run_ranks; null where it returned
  int reported_rank = -1;     ///< to on_failure
  std::string reported_reason;
  int reports = 0;
  double struck = 0;  ///< when the fault happened, where the body has said so; else the start

  /// Seconds from the fault until rank r knew.
  double delay(int rank) const { return ranks[static_cast<std::size_t>(rank)].time - struck; }
  const ending& operator[](int rank) const { return ranks[static_cast<std::size_t>(rank)]; }
};

/// The body calls this where it commits the fault.
class fault_clock {
 public:
  void strike() { time_ = seconds_now(); }
  double time() const { return time_; }

 private:
  std::atomic<double> time_{seconds_now()};
};

/// body(comm, clock) on every rank; `operation` is the deadline of a call in seconds.
template <class Body>
failed_launch launch(int ranks, Body body, double operation = 30) {
  failed_launch result;
  result.ranks.resize(static_cast<std::size_t>(ranks));
  fault_clock clock;
  shardkit::launch_options options;
  options.limits.operation = operation;
  options.on_failure = [&](int rank, const char* reason) {
    result.reported_rank = rank;
    result.reported_reason = reason;
    ++result.reports;
  };
  try {
    shardkit::run_ranks(ranks, options, [&](thread_communicator& comm) {
      const int rank = comm.rank();  // the body may hand the communicator on
      try {
        body(comm, clock);
      } catch (...) {
        result.ranks[static_cast<std::size_t>(rank)] = ending::caught();
        throw;
      }
    });
  } catch (...) {
    result.thrown = std::current_exception();
    result.caller = ending::caught();
  }
  result.struck = clock.time();
  return result;
}

/// Every rank but the culprit was told in time that it failed, with all that helps to find out why.
inline void check_peers(const failed_launch& result, int culprit, const std::string& reason, double within = promptly) {
  const int size = static_cast<int>(result.ranks.size());
  for (int rank = 0; rank < size; ++rank) {
    if (rank == culprit) continue;
    const ending& got = result[rank];
    INFO("rank ", rank, ": ", got.what);
    CHECK(got.how == ending::peer_failed);
    CHECK(got.culprit == culprit);
    CHECK(got.says(reason));
    CHECK(got.context.rank >= 0);
    CHECK(got.context.site.known());
    CHECK(!got.context.operation.empty());
    CHECK(result.delay(rank) < within);
  }
}

/// A call site that a test can recognise.
inline at<host_space> from_line(const char* file, int line) {
  return at<host_space>({}, call_site{file, "test", line});
}
