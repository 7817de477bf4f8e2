// Control lanes of one rank, of thread ranks and of TCP ranks.
#include "control_cases.hpp"
#include "on_tcp.hpp"
#include "on_threads.hpp"

#include <doctest/doctest.h>
#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/traced.hpp>
#include "error_context.hpp"

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
      {1, 2, 3, 8},
      [](shardkit::thread_communicator& comm, conformance::report& report, const conformance::sweep&) {
        auto any = shardkit::erase(std::move(comm));
        control_cases::all(any, report);
      },
      1);
}

TEST_CASE("control lanes carry notes, exchanges and wishes to stop on TCP ranks") {
  on_tcp({1, 2, 3, 8},
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

namespace {

/// What a lane throws where a rank posts to nobody, or where it waits for a note that nobody posts.
template <class Comm>
ending posted_to_nobody(Comm& comm) {
  auto& lane = comm.control();
  const int nobody = comm.size();
  constexpr int line = __LINE__ + 1;
  const ending got = ending_of([&] { lane.post(nobody, control_topic::user, std::vector<char>(12)); });
  const std::string peer = "peer " + std::to_string(nobody);
  check_context(got, comm.rank(), comm.size(), "world", "control post(user, 12 bytes, " + peer + ")", line);
  CHECK(got.how == ending::usage);
  CHECK(got.says("control: " + peer + " is not a rank of this communicator"));
  return got;
}
/// Where it looks for a note from nobody.
template <class Comm>
ending looked_for_nobody(Comm& comm) {
  std::vector<char> none;
  constexpr int line = __LINE__ + 1;
  const ending got = ending_of([&] { (void)comm.control().poll(-1, control_topic::user, none); });
  check_context(got, comm.rank(), comm.size(), "world", "control poll(user)", line);
  CHECK(got.how == ending::usage);
  return got;
}
template <class Comm>
ending waited_in_vain(Comm& comm) {
  auto& lane = comm.control();
  const int last = comm.size() - 1;
  constexpr int line = __LINE__ + 1;
  const ending got = ending_of([&] { lane.take(last, control_topic::fingerprint); });
  const std::string operation = "control take(fingerprint, peer " + std::to_string(last) + ")";
  check_context(got, comm.rank(), comm.size(), "world", operation, line);
  return got;
}

}  // namespace

TEST_CASE("an error of a control lane says who was doing what, and where, on thread ranks") {
  auto result = launch(2, [](auto& comm, auto&) {
    if (comm.rank() == 0) posted_to_nobody(comm);
    comm.barrier();
  });
  CHECK(result[1].says("peer 2 is not a rank of this communicator"));
  result = launch(2, [](auto& comm, auto&) {
    if (comm.rank() == 0) looked_for_nobody(comm);
    comm.barrier();
  });
  CHECK(result[1].says("peer -1 is not a rank of this communicator"));
  result = launch(
      2,
      [](auto& comm, auto&) {
        if (comm.rank() == 0) CHECK(waited_in_vain(comm).how == ending::timeout);
        else shardkit::detail::sleep_seconds(0.6);
        comm.barrier();
      },
      0.2);
  CHECK(result[1].says("rank 1 did not arrive in control"));
}

TEST_CASE("an error of a control lane says who was doing what, and where, on one rank") {
  shardkit::self_communicator alone{shardkit::self_backend()}, another{shardkit::self_backend()},
      third{shardkit::self_backend()};
  CHECK(posted_to_nobody(alone).says("its ranks are 0 to 0"));
  CHECK(waited_in_vain(another).how == ending::usage);
  CHECK(looked_for_nobody(third).says("its ranks are 0 to 0"));
}

TEST_CASE("an error of a control lane says who was doing what, and where, on TCP ranks") {
  auto outcomes = on_tcp_ranks(2, tcp_test_options(20), [](shardkit::tcp_communicator& comm) {
    if (comm.rank() == 0) CHECK(posted_to_nobody(comm).says("its ranks are 0 to 1"));
    comm.barrier();
  });
  CHECK(outcomes[1].text.find("peer 2 is not a rank of this communicator") != std::string::npos);
  outcomes = on_tcp_ranks(2, tcp_test_options(0.2), [](shardkit::tcp_communicator& comm) {
    if (comm.rank() == 0) CHECK(waited_in_vain(comm).how == ending::timeout);
    else shardkit::detail::sleep_seconds(0.6);
    comm.barrier();
  });
  CHECK(outcomes[1].text != "");
}

TEST_CASE("a lane that was taken before its communicator was wrapped is still good") {
  shardkit::run_ranks(2, [](shardkit::thread_communicator& world) {
    shardkit::control_lane& before = world.control();
    auto comm = with_trace(std::move(world));
    const int peer = 1 - comm.rank();
    before.post(peer, control_topic::user, {'a'});
    comm.control().post(peer, control_topic::user, {'b'});
    CHECK(before.take(peer, control_topic::user) == std::vector<char>{'a'});
    CHECK(comm.control().take(peer, control_topic::user) == std::vector<char>{'b'});
    CHECK(&comm.control() == &comm.control());
  });
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
