// Control lanes of one rank, of thread ranks and of TCP ranks.
#include "control_cases.hpp"
#include "on_tcp.hpp"
#include "on_threads.hpp"

#include <doctest/doctest.h>
#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

using shardkit::control_topic;

TEST_CASE("control lanes carry notes, exchanges and wishes to stop on one rank") {
  conformance::report report;
  shardkit::self_communicator alone{shardkit::self_backend()};
  auto any = shardkit::erase(std::move(alone));
  control_cases::all(any, report);
  CHECK_MESSAGE(report.failures() == 0, report.what());
  CHECK(report.checks() > 50);
}

TEST_CASE("control lanes carry notes, exchanges and wishes to stop on thread ranks") {
  on_threads(
      {1, 2, 3, 5},
      [](shardkit::thread_communicator& comm, conformance::report& report, const conformance::sweep&) {
        auto any = shardkit::erase(std::move(comm));
        control_cases::all(any, report);
      },
      1);
}

TEST_CASE("control lanes carry notes, exchanges and wishes to stop on TCP ranks") {
  on_tcp({1, 2, 3, 5},
         [](auto& any, conformance::report& report, const conformance::sweep&) { control_cases::all(any, report); });
}

namespace {

shardkit::launch_options quiet(double operation) {
  shardkit::launch_options options;
  options.limits.operation = operation;
  options.on_failure = {};
  return options;
}

}  // namespace

TEST_CASE("a rank that waits for a note hears of failures, of ranks that have left, and ends at the deadline") {
  const auto told = [](double operation, auto body) -> std::string {
    try {
      shardkit::run_ranks(2, quiet(operation), body);
    } catch (const shardkit::error& failure) {
      return failure.what();
    }
    return "";
  };
  const std::string thrown = told(20, [](shardkit::thread_communicator& comm) {
    if (comm.rank() == 1) throw shardkit::usage_error("tired");
    comm.control().take(1, control_topic::user);
  });
  CHECK(thrown.find("tired") != std::string::npos);
  const std::string left = told(20, [](shardkit::thread_communicator& comm) {
    if (comm.rank() == 0) comm.control().take(1, control_topic::user);
  });
  CAPTURE(left);
  CHECK(left.find("rank 1 failed: left while rank 0 waits in control") != std::string::npos);
  const std::string late = told(0.2, [](shardkit::thread_communicator& comm) {
    if (comm.rank() == 0) comm.control().take(1, control_topic::user);
    else std::this_thread::sleep_for(std::chrono::milliseconds(700));
  });
  CAPTURE(late);
  CHECK(late.find("rank 1 did not arrive in control") != std::string::npos);
  const std::string wrong = told(20, [](shardkit::thread_communicator& comm) {
    if (comm.rank() == 0) comm.control().post(2, control_topic::user, {});
    else comm.control().take(0, control_topic::user);
  });
  CAPTURE(wrong);
  CHECK(wrong.find("control: peer 2 is not a rank") != std::string::npos);
}

TEST_CASE("while a rank waits for a note, the calls it has started go on") {
  shardkit::run_ranks(2, quiet(20), [](shardkit::thread_communicator& comm) {
    std::vector<double> data(5000, 1.0);
    if (comm.rank() == 0) {
      auto pending = comm.all_reduce_async(shardkit::in_place(data), shardkit::sum);
      comm.control().take(1, control_topic::user);
      pending.wait();
    } else {
      comm.all_reduce(shardkit::in_place(data), shardkit::sum);  // needs rank 0, which waits for the note
      comm.control().post(0, control_topic::user, {});
    }
  });
}
