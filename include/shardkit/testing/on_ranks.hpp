// Test cases that run on several ranks, whatever carries the ranks: the test main decides.
//
//   #include <shardkit/testing/on_ranks.hpp>
//
//   TEST_CASE("every rank gets the sum") {
//     SHARDKIT_NEEDS_RANKS(2);
//     shardkit::testing::on_ranks([](auto& comm) {
//       CHECK(comm.all_reduce(1, shardkit::sum) == comm.size());
//     });
//   }
//
// Linked with a main from testing/thread_ranks.hpp the body runs on threads of one process, linked with one from
// testing/mpi_main.hpp on the processes of mpiexec. Everything is stock doctest (2.4.9 or newer): its asserts, INFO,
// decorators, subcases (outside the body), filters and reporters.
#pragma once

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/core/error.hpp>

#if !__has_include(<doctest/doctest.h>)
#error "shardkit: this needs doctest; link shardkit::testing, or install doctest-dev"
#endif
#include <doctest/doctest.h>

#include <functional>
#include <string>

namespace shardkit::testing {

/// What the body of on_ranks gets, whatever carries the ranks.
using rank_communicator = any_communicator<host_space>;

namespace detail {

/// What a test main provides.
class rank_runner {
 public:
  virtual int ranks() const = 0;
  virtual bool allows_fewer_ranks() const = 0;
  /// How to get `needed` ranks.
  virtual std::string remedy(int needed) const = 0;
  virtual void run(const std::function<void(rank_communicator&)>& body, const call_site& site) = 0;

  static inline rank_runner* current = nullptr;

 protected:
  ~rank_runner() = default;
};

inline rank_runner& current_runner() {
  if (rank_runner::current == nullptr)
    throw usage_error("main is none of shardkit's; it has to call shardkit::testing::thread_main or mpi_main");
  return *rank_runner::current;
}

/// Whether the case may go on; fails it where there are too few ranks and nobody has allowed that.
inline bool has_ranks(int needed, const char* file, int line) {
  const rank_runner& runner = current_runner();
  if (runner.ranks() >= needed) return true;
  const std::string text = "needs " + std::to_string(needed) + " ranks and has " + std::to_string(runner.ranks());
  if (runner.allows_fewer_ranks()) {
    DOCTEST_ADD_MESSAGE_AT(file, line, "skipped: the case ", text);
    return false;
  }
  throw usage_error("the case " + text + "; " + runner.remedy(needed) +
                    ", or leave such cases out with --allow-fewer-ranks");
}

}  // namespace detail

/// How many ranks on_ranks runs on.
inline int ranks() { return detail::current_runner().ranks(); }

/// Runs body(comm) on every rank, on a communicator of its own. All ranks call it in the same order; on thread ranks
/// it is the test case, on one thread, that calls it, and what the body refers to is shared by the ranks.
///
/// A failed CHECK, MESSAGE or exception tells its rank. A failed REQUIRE or an exception ends the body of its rank and
/// then the test case; the other ranks are not waited for longer than the deadline of the case.
inline void on_ranks(const std::function<void(rank_communicator&)>& body, call_site site = call_site::current()) {
  detail::current_runner().run(body, site);
}

}  // namespace shardkit::testing

/// First in a test case: it needs `number` ranks. Where there are fewer the case fails and says how to get them; with
/// --allow-fewer-ranks it ends with a message instead.
#define SHARDKIT_NEEDS_RANKS(number)                                                 \
  do {                                                                               \
    if (!::shardkit::testing::detail::has_ranks(number, __FILE__, __LINE__)) return; \
  } while (false)
