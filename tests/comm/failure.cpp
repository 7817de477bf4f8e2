// What happens on thread ranks when one of them fails: the others are told at once who and why, nobody hangs, and the
// caller of run_ranks gets the first cause.
#include "on_threads.hpp"

#include "failing_launch.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/mesh.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using shardkit::in_place;
using shardkit::partition;
using shardkit::run_ranks;
using shardkit::view;

void pause_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// A verb with buffers of its own, so that each failure may free them at once.
struct verb {
  std::string name;
  std::function<void(thread_communicator&, std::size_t count, at<host_space>)> call;
};

/// All collective verbs. Those with a root may end before all ranks have come: a barrier makes them wait.
const std::vector<verb>& collectives() {
  using comm = thread_communicator;
  using where = at<host_space>;
  const auto values = [](std::size_t n) { return std::vector<float>(n, 1.0f); };
  const auto ranks = [](comm& c) { return static_cast<std::size_t>(c.size()); };
  static const std::vector<verb> all{
      {"barrier", [](comm& c, std::size_t, where w) { c.barrier(w); }},
      {"broadcast",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n);
         c.broadcast(x, 0, w);
         c.barrier(w);
       }},
      {"all_reduce",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n);
         c.all_reduce(in_place(x), shardkit::sum, w);
       }},
      {"reduce",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n), y = values(n);
         c.reduce(x, y, shardkit::sum, c.size() - 1, w);
         c.barrier(w);
       }},
      {"all_gather",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n), y = values(n * ranks(c));
         c.all_gather(x, y, w);
       }},
      {"unequal all_gather",
       [=](comm& c, std::size_t n, where w) {
         const auto cut = partition::balanced(n, c.size());
         auto x = values(cut.count(c.rank())), y = values(n);
         c.all_gather(x, y, cut, w);
       }},
      {"reduce_scatter",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n * ranks(c)), y = values(n);
         c.reduce_scatter(x, y, shardkit::sum, w);
       }},
      {"unequal reduce_scatter",
       [=](comm& c, std::size_t n, where w) {
         const auto cut = partition::balanced(n, c.size());
         auto x = values(n), y = values(cut.count(c.rank()));
         c.reduce_scatter(x, y, shardkit::sum, cut, w);
       }},
      {"gather",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n), y = values(n * ranks(c));
         c.gather(x, y, 0, w);
         c.barrier(w);
       }},
      {"scatter",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n * ranks(c)), y = values(n);
         c.scatter(x, y, 0, w);
         c.barrier(w);
       }},
      {"all_to_all",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n * ranks(c)), y = values(n * ranks(c));
         c.all_to_all(x, y, w);
       }},
      {"unequal all_to_all",
       [=](comm& c, std::size_t n, where w) {
         const auto cut = partition::balanced(n * ranks(c), c.size());
         auto x = values(n * ranks(c)), y = values(n * ranks(c));
         c.all_to_all(x, cut, y, cut, w);
       }},
      {"send_recv",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n), y = values(n);
         for (int distance = 1; distance < c.size(); ++distance)
           c.send_recv(x, (c.rank() + distance) % c.size(), y, (c.rank() + c.size() - distance) % c.size(), w);
         if (n < 33) c.barrier(w);  // small messages need no receiver
       }},
      {"group",
       [=](comm& c, std::size_t n, where w) {
         auto x = values(n), y = values(n * ranks(c)), z = values(n);
         c.group(
             [&](auto& g) {
               for (int peer = 0; peer < g.size(); ++peer) {
                 g.send(x, peer, w);
                 g.recv(view(y.data() + static_cast<std::size_t>(peer) * n, n), peer, w);
               }
               g.all_reduce(in_place(z), shardkit::sum, w);
             },
             w);
       }},
      {"exchange", [](comm& c, std::size_t, where w) { c.exchange(c.rank(), w); }},
      {"split", [](comm& c, std::size_t, where w) { c.split(c.rank() % 2, 0, "child", w); }},
  };
  return all;
}

constexpr std::size_t small_count = 3, large_count = 20000;

}  // namespace

TEST_CASE("a rank that throws between calls fails the peers in whatever call they wait") {
  for (int size : {2, 3, 5})
    for (const verb& waiting : collectives())
      for (std::size_t count : {small_count, large_count}) {
        const int culprit = static_cast<int>(count + static_cast<std::size_t>(size)) % size;
        CAPTURE(size);
        CAPTURE(waiting.name);
        CAPTURE(count);
        const auto result = launch(size, [&](auto& comm, auto& clock) {
          waiting.call(comm, count, {});  // once as it should be
          if (comm.rank() == culprit) {
            clock.strike();
            throw std::domain_error("no more paper");
          }
          waiting.call(comm, count, {});
        });
        check_peers(result, culprit, "no more paper");
        CHECK_THROWS_AS(std::rethrow_exception(result.thrown), std::domain_error);
        CHECK(result.reported_rank == culprit);
        CHECK(result.reported_reason == "no more paper");
        CHECK(result.reports == 1);
      }
}

TEST_CASE("the peers' error says where they were, in which call, on which communicator") {
  const auto result = launch(3, [](auto& comm, auto&) {
    comm.barrier();
    if (comm.rank() == 1) throw std::runtime_error("lost my place");
    std::vector<float> x(12);
    comm.all_reduce(in_place(x), shardkit::maximum, from_line("engine.cpp", 77));
  });
  for (int rank : {0, 2}) {
    const auto& context = result[rank].context;
    CHECK(context.rank == rank);
    CHECK(context.size == 3);
    CHECK(context.communicator == "world");
    CHECK(context.operation == "all_reduce(12 x f32, maximum)");
    CHECK(context.sequence == 2);
    CHECK(result[rank].says("engine.cpp:77"));
    CHECK(result[rank].says("rank 1 failed: lost my place"));
  }
}

TEST_CASE("run_ranks rethrows the first cause with its own type") {
  const auto with = [](auto thrown) {
    return launch(3, [&](auto& comm, auto&) {
      if (comm.rank() == 2) throw thrown;
      comm.barrier();
    });
  };
  struct plain {
    int value;
  };
  auto result = with(plain{42});
  try {
    std::rethrow_exception(result.thrown);
  } catch (const plain& caught) {
    CHECK(caught.value == 42);
  }
  CHECK(result.reported_rank == 2);
  CHECK(result.reported_reason == "unknown exception");
  check_peers(result, 2, "unknown exception");

  CHECK_THROWS_AS(std::rethrow_exception(with(7).thrown), int);
  CHECK_THROWS_AS(std::rethrow_exception(with(std::bad_alloc()).thrown), std::bad_alloc);
  CHECK_THROWS_AS(std::rethrow_exception(with(shardkit::transport_error("cable")).thrown), shardkit::transport_error);
}

TEST_CASE("of several causes run_ranks rethrows the one that the peers were told") {
  for (int round = 0; round < 50; ++round) {
    const auto result = launch(5, [&](auto& comm, auto&) {
      comm.barrier();
      if (comm.rank() != 3) throw std::runtime_error("cause of rank " + std::to_string(comm.rank()));
      comm.barrier();
    });
    CHECK(result[3].how == ending::peer_failed);
    const std::string cause = "cause of rank " + std::to_string(result[3].culprit);
    CHECK(result[3].says(cause));
    CHECK(result.caller.what == cause);
    CHECK(result.reported_rank == result[3].culprit);
  }
}

TEST_CASE("a rank alone gets its own exception back") {
  const auto result = launch(1, [](auto&, auto&) { throw std::out_of_range("alone"); });
  CHECK_THROWS_AS(std::rethrow_exception(result.thrown), std::out_of_range);
  CHECK(result.reported_rank == 0);
}

TEST_CASE("on_failure may be empty") {
  shardkit::launch_options options;
  options.on_failure = nullptr;
  CHECK_THROWS_AS(run_ranks(2, options,
                            [](thread_communicator& comm) {
                              if (comm.is_root()) throw std::runtime_error("quietly");
                              comm.barrier();
                            }),
                  std::runtime_error);
}

TEST_CASE("run_ranks refuses a launch that makes no sense") {
  const auto nothing = [](thread_communicator&) {};
  CHECK_THROWS_AS(run_ranks(0, nothing), shardkit::usage_error);
  CHECK_THROWS_AS(run_ranks(-3, nothing), shardkit::usage_error);
  for (double bad : {0.0, -1.0, std::nan("")}) {
    shardkit::launch_options options;
    options.limits.operation = bad;
    CHECK_THROWS_AS(run_ranks(2, options, nothing), shardkit::usage_error);
    options.limits = {};
    options.limits.init = bad;
    CHECK_THROWS_AS(run_ranks(2, options, nothing), shardkit::usage_error);
    options.limits = {};
    options.limits.abort = bad;
    CHECK_THROWS_AS(run_ranks(2, options, nothing), shardkit::usage_error);
  }
  shardkit::launch_options options;
  options.limits.operation = shardkit::no_deadline;
  CHECK_NOTHROW(run_ranks(3, options, [](thread_communicator& comm) { comm.barrier(); }));
}

TEST_CASE("wrong arguments fail the communicator before they throw") {
  using comm_type = thread_communicator;
  struct misuse {
    std::string operation;
    std::string message;
    std::function<void(comm_type&)> call;
  };
  const auto floats = [](std::size_t n) { return std::vector<float>(n); };
  const std::vector<misuse> all{
      {"all_reduce", "out has 2 elements and needs 3",
       [=](comm_type& c) {
         auto x = floats(3), y = floats(2);
         c.all_reduce(x, y, shardkit::sum);
       }},
      {"all_reduce", "overlap",
       [=](comm_type& c) {
         auto x = floats(9);
         c.all_reduce(view(x.data(), 5), view(x.data() + 2, 5), shardkit::sum);
       }},
      {"reduce", "out has 2 elements and needs 3",
       [=](comm_type& c) {
         auto x = floats(3), y = floats(2);
         c.reduce(x, y, shardkit::sum, c.rank());
       }},
      {"reduce", "overlap",
       [=](comm_type& c) {
         auto x = floats(9);
         c.reduce(view(x.data(), 5), view(x.data() + 2, 5), shardkit::sum, c.rank());
       }},
      {"reduce", "root 3 is not a rank",
       [=](comm_type& c) {
         auto x = floats(3);
         c.reduce(x, x, shardkit::sum, 3);
       }},
      {"broadcast", "root -1 is not a rank",
       [=](comm_type& c) {
         auto x = floats(3);
         c.broadcast(x, -1);
       }},
      {"gather", "root 99 is not a rank",
       [=](comm_type& c) {
         auto x = floats(3);
         c.gather(x, x, 99);
       }},
      {"scatter", "root 3 is not a rank",
       [=](comm_type& c) {
         auto x = floats(3);
         c.scatter(x, x, 3);
       }},
      {"gather", "out has 3 elements and needs 9",
       [=](comm_type& c) {
         auto x = floats(3), y = floats(3);
         c.gather(x, y, c.rank());
       }},
      {"scatter", "in has 4 elements and needs 9",
       [=](comm_type& c) {
         auto x = floats(4), y = floats(3);
         c.scatter(x, y, c.rank());
       }},
      {"all_gather", "out has 4 elements and needs 6",
       [=](comm_type& c) {
         auto x = floats(2), y = floats(4);
         c.all_gather(x, y);
       }},
      {"all_gather", "4 elements do not divide by 3 ranks; pass a partition",
       [=](comm_type& c) {
         auto x = floats(4);
         c.all_gather(in_place(x));
       }},
      {"all_gather", "the partition is over 4 ranks, the communicator has 3",
       [=](comm_type& c) {
         auto x = floats(4);
         c.all_gather(in_place(x), partition::balanced(4, 4));
       }},
      {"all_gather", "replicas",
       [=](comm_type& c) {
         auto x = floats(6);
         c.all_gather(in_place(x), partition::balanced(6, 3).replicas(3));
       }},
      {"all_gather", "overlap",
       [=](comm_type& c) {
         auto x = floats(9);
         c.all_gather(view(x.data() + 1, 3), x);
       }},
      {"reduce_scatter", "in has 5 elements and needs 6",
       [=](comm_type& c) {
         auto x = floats(5), y = floats(2);
         c.reduce_scatter(x, y, shardkit::sum);
       }},
      {"reduce_scatter", "out has 5 elements and needs 2",
       [=](comm_type& c) {
         auto x = floats(6), y = floats(5);
         c.reduce_scatter(x, y, shardkit::sum, partition::balanced(6, 3));
       }},
      {"all_to_all", "7 elements do not divide",
       [=](comm_type& c) {
         auto x = floats(7), y = floats(7);
         c.all_to_all(x, y);
       }},
      {"all_to_all", "overlap",
       [=](comm_type& c) {
         auto x = floats(6);
         c.all_to_all(x, x);
       }},
      {"send", "peer 3 is not a rank",
       [=](comm_type& c) {
         auto x = floats(2);
         c.send(x, 3);
       }},
      {"recv", "peer -2 is not a rank",
       [=](comm_type& c) {
         auto x = floats(2);
         c.recv(x, -2);
       }},
      {"send_recv", "peer 4 is not a rank",
       [=](comm_type& c) {
         auto x = floats(2), y = floats(2);
         c.send_recv(x, 0, y, 4);
       }},
      {"send_recv", "overlap",
       [=](comm_type& c) {
         auto x = floats(2);
         c.send_recv(x, 0, x, 0);
       }},
      {"send", "peer 5 is not a rank",
       [=](comm_type& c) {
         auto x = floats(2);
         const auto dropped = c.send_async(x, 5);
       }},
      {"split", "colour -1 is negative", [](comm_type& c) { c.split(-1); }},
      {"send", "peer 9 is not a rank",
       [=](comm_type& c) {
         c.group([&](auto& g) {
           auto x = floats(2);
           g.barrier();
           g.send(x, 9);
         });
       }},
      {"broadcast", "null", [](comm_type& c) { c.broadcast(view(static_cast<float*>(nullptr), 4), 0); }},
      {"all_reduce", "null",
       [=](comm_type& c) {
         auto x = floats(2);
         c.all_reduce(x, view(static_cast<float*>(nullptr), 2), shardkit::sum);
       }},
      {"send", "null", [](comm_type& c) { c.send(view(static_cast<const int*>(nullptr), 4), 0); }},
      {"send", "waits for ever",
       [=](comm_type& c) {
         auto x = floats(200);
         c.send(x, c.rank());
       }},
      {"recv", "waits for ever",
       [=](comm_type& c) {
         auto x = floats(200);
         c.recv(x, c.rank());
       }},
  };
  for (const misuse& one : all)
    for (int culprit = 0; culprit < 3; ++culprit) {
      CAPTURE(one.operation);
      CAPTURE(one.message);
      CAPTURE(culprit);
      bool threw_late = false;
      const auto result = launch(3, [&](auto& comm, auto& clock) {
        comm.barrier();
        if (comm.rank() != culprit) return comm.barrier();
        clock.strike();
        try {
          one.call(comm);
        } catch (const shardkit::error&) {
          // The peers must not need this exception to travel any further.
          pause_for(0.02);
          threw_late = true;
          throw;
        }
      });
      CHECK(threw_late);
      const ending& own = result[culprit];
      INFO(own.what);
      CHECK(own.how == ending::usage);
      CHECK(own.says(one.message));
      CHECK(own.context.rank == culprit);
      CHECK(own.context.operation.substr(0, own.context.operation.find('(')) == one.operation);
      CHECK(own.context.site.known());
      check_peers(result, culprit, one.message);
      for (int rank = 0; rank < 3; ++rank)
        if (rank != culprit) CHECK(result.delay(rank) < promptly);
      CHECK_THROWS_AS(std::rethrow_exception(result.thrown), shardkit::usage_error);
      CHECK(result.reported_rank == culprit);
    }
}

TEST_CASE("a communicator of one rank makes the same checks") {
  std::vector<float> two(2), three(3);
  const auto refuses = [&](auto call) {
    shardkit::self_communicator comm{shardkit::self_backend()};
    CHECK_THROWS_AS(call(comm), shardkit::usage_error);
    CHECK_THROWS_AS(comm.barrier(), shardkit::peer_failed);  // it has failed
  };
  refuses([&](auto& comm) { comm.all_reduce(two, three, shardkit::sum); });
  refuses([&](auto& comm) { comm.broadcast(two, 1); });
  refuses([&](auto& comm) { comm.all_gather(two, three, partition::balanced(3, 2)); });
  refuses([&](auto& comm) { comm.all_to_all(two, two); });
  refuses([&](auto& comm) { comm.send(two, 1); });
  refuses([&](auto& comm) { comm.split(-5); });
  refuses([&](auto& comm) { comm.group([&](auto& g) { g.recv(two, 1); }); });
}

TEST_CASE("a reduction that a type does not have fails the communicator, also inside a group") {
  for (const bool grouped : {false, true}) {
    bool still_here = false;
    const auto result = launch(3, [&](auto& comm, auto&) {
      if (comm.rank() != 1) return comm.barrier();
      std::vector<int> x(4);
      try {
        if (grouped) comm.group([&](auto& g) { g.all_reduce(in_place(x), shardkit::average); });
        else comm.all_reduce(in_place(x), shardkit::average);
      } catch (const shardkit::unsupported_error&) {
        pause_for(0.3);  // the peers know already
        still_here = true;
        throw;
      }
    });
    CHECK(still_here);
    CHECK(result[1].how == ending::unsupported);
    CHECK(result[1].says("average of i32 is not defined"));
    check_peers(result, 1, "average of i32");
    CHECK(result[0].time < result[1].time);
    CHECK(result[2].time < result[1].time);
  }
}

TEST_CASE("a group body that throws has started nothing") {
  run_ranks(3, [](thread_communicator& comm) {
    std::vector<int> x(1000, comm.rank()), y(1000);
    try {
      comm.group([&](auto& g) {
        g.send(x, (comm.rank() + 1) % 3);
        g.all_reduce(in_place(x), shardkit::sum);
        throw std::runtime_error("second thoughts");
      });
    } catch (const std::runtime_error&) {
    }
    comm.send_recv(x, (comm.rank() + 1) % 3, y, (comm.rank() + 2) % 3);
    if (y.front() != (comm.rank() + 2) % 3) throw std::logic_error("another message came");
  });
}

TEST_CASE("a rank that never arrives ends the others' call at its deadline") {
  for (const verb& waiting : collectives())
    for (std::size_t count : {small_count, large_count}) {
      CAPTURE(waiting.name);
      CAPTURE(count);
      std::atomic<int> ended{0};
      const auto result = launch(
          3,
          [&](auto& comm, auto& clock) {
            comm.barrier();
            if (comm.rank() == 0) {
              clock.strike();
              while (ended.load() != 2) pause_for(1e-3);
              return waiting.call(comm, count, {});  // too late
            }
            try {
              waiting.call(comm, count, from_line("waiting.cpp", 5));
            } catch (...) {
              ++ended;
              throw;
            }
          },
          0.3);
      int timeouts = 0;
      for (int rank : {1, 2}) {
        INFO(result[rank].what);
        CHECK((result[rank].how == ending::timeout || result[rank].how == ending::peer_failed));
        if (result[rank].how == ending::timeout) {
          ++timeouts;
          // The one who waits for the silent rank, or for one that waits for it.
          CHECK(result[rank].says("did not arrive"));
          CHECK(result[rank].says("operation deadline of 0.3"));
          CHECK(result[rank].says("waiting.cpp:5"));
        } else {
          CHECK(result[rank].says("did not arrive"));
        }
        CHECK(result.delay(rank) > 0.25);
        CHECK(result.delay(rank) < 0.3 + promptly);
      }
      CHECK(timeouts >= 1);
      CHECK(result[0].how == ending::peer_failed);
      CHECK(result.caller.how == ending::timeout);
    }
}

TEST_CASE("the timeout names the rank that did not come") {
  for (int absent = 0; absent < 4; ++absent) {
    std::atomic<int> ended{0};
    const auto result = launch(
        4,
        [&](auto& comm, auto&) {
          if (comm.rank() == absent) {
            while (ended.load() != 3) pause_for(1e-3);
            return;
          }
          try {
            comm.barrier();
          } catch (...) {
            ++ended;
            throw;
          }
        },
        0.2);
    for (int rank = 0; rank < 4; ++rank)
      if (rank != absent) CHECK(result[rank].says("rank " + std::to_string(absent) + " did not arrive in barrier"));
  }
}

TEST_CASE("slow ranks within the deadline are no failure") {
  shardkit::launch_options options;
  options.limits.operation = 2;
  for (const verb& one : collectives())
    CHECK_NOTHROW(run_ranks(3, options, [&](thread_communicator& comm) {
      for (int round = 0; round < 3; ++round) {
        if (comm.rank() == round) pause_for(0.03);
        one.call(comm, round == 1 ? large_count : small_count, {});
      }
    }));
}

TEST_CASE("a rank that returns early has failed") {
  for (const verb& waiting : collectives())
    for (std::size_t count : {small_count, large_count}) {
      CAPTURE(waiting.name);
      const auto result = launch(3, [&](auto& comm, auto& clock) {
        waiting.call(comm, count, {});
        if (comm.rank() == 2) return clock.strike();
        waiting.call(comm, count, {});
      });
      check_peers(result, 2, "left while rank");
      CHECK(result[2].how == ending::returned);
      CHECK(result.caller.how == ending::peer_failed);
      CHECK(result.reported_rank == 2);
    }
}

TEST_CASE("ranks that have made all their calls may return at different times") {
  for (int round = 0; round < 100; ++round)
    CHECK_NOTHROW(run_ranks(4, [&](thread_communicator& comm) {
      std::vector<double> x(round % 2 == 0 ? 2 : 500, comm.rank());
      comm.broadcast(x, round % 4);
      if (comm.rank() == 0) comm.send(view(x.data(), 2), 1);
      if (comm.rank() == 1) comm.recv(view(x.data(), 2), 0);
    }));
}

TEST_CASE("a rank can declare itself failed") {
  const auto result = launch(3, [](auto& comm, auto& clock) {
    if (comm.rank() == 1) {
      clock.strike();
      return comm.fail("the disk is full");
    }
    comm.barrier();
  });
  check_peers(result, 1, "the disk is full");
  CHECK(result.caller.how == ending::peer_failed);
  CHECK(result.reported_rank == 1);
}

TEST_CASE("after a failure every further call throws at once") {
  const auto result = launch(2, [](auto& comm, auto&) {
    auto child = comm.split(0);
    if (comm.rank() == 1) throw std::runtime_error("gone");
    CHECK_THROWS_AS(comm.barrier(), shardkit::peer_failed);
    for (const verb& one : collectives())
      for (std::size_t count : {small_count, large_count}) {
        CHECK_THROWS_AS(one.call(comm, count, {}), shardkit::peer_failed);
        CHECK_THROWS_AS(one.call(child, count, {}), shardkit::peer_failed);
      }
    std::vector<int> x(4);
    CHECK_THROWS_AS(comm.send(x, 1), shardkit::peer_failed);
    CHECK_THROWS_AS(comm.recv(x, 1), shardkit::peer_failed);
    CHECK_THROWS_AS(comm.send_async(x, 1).wait(), shardkit::peer_failed);
    CHECK_THROWS_AS(comm.recv_async(x, 1).wait(), shardkit::peer_failed);
  });
  CHECK(result.caller.what == "gone");
}

namespace {

/// A call that differs from `reference` in one thing.
struct mutant {
  const char* what;
  std::function<void(thread_communicator&, std::size_t, at<host_space>)> usual, odd;
};

const std::vector<mutant>& mutants() {
  using comm = thread_communicator;
  using where = at<host_space>;
  using size = std::size_t;
  static const auto all_reduce = [](auto element, shardkit::reduction op, size extra = 0) {
    return [=](comm& c, size n, where w) {
      std::vector<decltype(element)> x(n + extra);
      c.all_reduce(in_place(x), op, w);
    };
  };
  static const auto broadcast = [](int root, auto element, size extra = 0) {
    return [=](comm& c, size n, where w) {
      std::vector<decltype(element)> x(n + extra);
      c.broadcast(x, root < 0 ? c.rank() : root, w);
    };
  };
  static const auto reduce = [](int root, shardkit::reduction op) {
    return [=](comm& c, size n, where w) {
      std::vector<float> x(n);
      c.reduce(in_place(x), op, root < 0 ? c.rank() : root, w);
    };
  };
  static const auto gather = [](int root) {
    return [=](comm& c, size n, where w) {
      std::vector<float> x(n), y(n * static_cast<size>(c.size()));
      c.gather(x, y, root < 0 ? c.rank() : root, w);
    };
  };
  static const auto scatter = [](int root) {
    return [=](comm& c, size n, where w) {
      std::vector<float> x(n * static_cast<size>(c.size())), y(n);
      c.scatter(x, y, root < 0 ? c.rank() : root, w);
    };
  };
  static const auto all_gather = [](bool by_layout, size moved) {
    return [=](comm& c, size n, where w) {
      const size total = n * static_cast<size>(c.size());
      std::vector<size> counts(static_cast<size>(c.size()), n);
      counts[0] += moved;
      counts[1] -= moved;
      const auto cut = partition::from_counts(counts);
      std::vector<float> x(total);
      if (by_layout) c.all_gather(in_place(x), cut, w);
      else c.all_gather(in_place(x), w);
    };
  };
  static const auto barrier = [](comm& c, size, where w) { c.barrier(w); };
  static const auto split = [](comm& c, size, where w) { c.split(0, 0, "x", w); };
  static const auto exchange = [](comm& c, size, where w) { c.exchange(std::array<int, 3>{}, w); };
  static const std::vector<mutant> all{
      {"verb", all_reduce(1.0f, shardkit::sum), broadcast(0, 1.0f)},
      {"verb, barrier", barrier, all_reduce(1.0f, shardkit::sum)},
      {"verb, with the root in common", reduce(0, shardkit::sum), broadcast(0, 1.0f)},
      {"verb, split", barrier, split},
      {"verb, split and exchange", split, exchange},
      {"count", all_reduce(1.0f, shardkit::sum), all_reduce(1.0f, shardkit::sum, 1)},
      {"count of a broadcast", broadcast(0, 1.0f), broadcast(0, 1.0f, 1)},
      {"count across the limit of small calls", all_reduce(1.0f, shardkit::sum), all_reduce(1.0f, shardkit::sum, 5000)},
      {"dtype", all_reduce(1.0f, shardkit::sum), all_reduce(1, shardkit::sum)},
      {"dtype of another size", all_reduce(1.0f, shardkit::sum), all_reduce(1.0, shardkit::sum)},
      {"operation", all_reduce(1.0f, shardkit::sum), all_reduce(1.0f, shardkit::maximum)},
      {"by_rank", all_reduce(1.0f, shardkit::sum), all_reduce(1.0f, by_rank(shardkit::sum))},
      {"operation of a reduce", reduce(0, shardkit::sum), reduce(0, shardkit::product)},
      {"root of a broadcast", broadcast(0, 1.0f), broadcast(1, 1.0f)},
      {"root of a broadcast, itself", broadcast(0, 1.0f), broadcast(-1, 1.0f)},
      {"root of a reduce", reduce(0, shardkit::sum), reduce(1, shardkit::sum)},
      {"root of a reduce, itself", reduce(0, shardkit::sum), reduce(-1, shardkit::sum)},
      {"root of a gather", gather(0), gather(1)},
      {"root of a gather, itself", gather(0), gather(-1)},
      {"root of a scatter", scatter(0), scatter(1)},
      {"root of a scatter, itself", scatter(0), scatter(-1)},
      {"layout", all_gather(true, 0), all_gather(true, 1)},
      {"layout or none", all_gather(false, 0), all_gather(true, 0)},
  };
  return all;
}

}  // namespace

TEST_CASE("ranks that make different calls all throw, and the error names both call sites") {
  for (int size : {2, 3, 5})
    for (const mutant& one : mutants())
      for (std::size_t count : {small_count, large_count})
        for (int deviator = 0; deviator < size; ++deviator) {
          const std::string what = one.what;
          if (what.find("itself") != std::string::npos && deviator == 0) continue;  // the same root
          CAPTURE(size);
          CAPTURE(what);
          CAPTURE(count);
          CAPTURE(deviator);
          const auto result = launch(size, [&](auto& comm, auto& clock) {
            comm.barrier(from_line("before.cpp", 1));
            clock.strike();
            if (comm.rank() == deviator) one.odd(comm, count, from_line("odd.cpp", 31));
            else one.usual(comm, count, from_line("usual.cpp", 7));
            // Where a rank needed nobody's line for its own part, the next call finds out.
            comm.barrier(from_line("after.cpp", 2));
          });
          for (int rank = 0; rank < size; ++rank) {
            const ending& got = result[rank];
            INFO("rank ", rank, ": ", got.what);
            CHECK((got.how == ending::mismatch || got.how == ending::peer_failed));
            CHECK(got.says("odd.cpp:31"));
            CHECK(got.says("usual.cpp:7"));
            CHECK(got.says("rank " + std::to_string(deviator) + " "));
            CHECK(result.delay(rank) < promptly);
          }
          CHECK(result.caller.how == ending::mismatch);
        }
}

TEST_CASE("ranks whose last calls differ are found out when they end") {
  for (int size : {2, 3, 5})
    for (const mutant& one : mutants())
      for (int deviator = 0; deviator < size; ++deviator) {
        const std::string what = one.what;
        if (what.find("itself") != std::string::npos && deviator == 0) continue;  // the same root
        for (const bool in_child : {false, true}) {
          CAPTURE(size);
          CAPTURE(what);
          CAPTURE(deviator);
          CAPTURE(in_child);
          const auto result = launch(size, [&](auto& comm, auto&) {
            const auto make = [&](thread_communicator& on) {
              if (on.rank() == deviator) one.odd(on, small_count, from_line("odd.cpp", 31));
              else one.usual(on, small_count, from_line("usual.cpp", 7));
            };
            if (!in_child) return make(comm);
            auto child = comm.split(0, comm.rank(), "child");
            make(child);
          });
          INFO(result.caller.what);
          CHECK((result.caller.how == ending::mismatch || result.caller.how == ending::peer_failed));
          CHECK(result.caller.says("odd.cpp:31"));
          CHECK(result.caller.says("usual.cpp:7"));
          CHECK(result.reports == 1);
        }
      }
}

TEST_CASE("a rank may be calls ahead of a peer that it does not need; the first one that differs is named") {
  for (int calls = 1; calls < 12; ++calls)
    for (int odd = 0; odd < calls; ++odd)
      for (const bool ends : {false, true}) {
        CAPTURE(calls);
        CAPTURE(odd);
        CAPTURE(ends);
        const auto result = launch(2, [&](auto& comm, auto&) {
          int x = 0;
          for (int call = 0; call < calls; ++call) {
            // The rank that differs believes to be the root, and so needs nobody, either.
            const int root = call == odd ? comm.rank() : 0;
            comm.broadcast(shardkit::view(&x, 1), root, from_line(comm.rank() == 0 ? "zero.cpp" : "one.cpp", call + 1));
          }
          if (!ends) comm.barrier();
        });
        INFO(result.caller.what);
        CHECK((result.caller.how == ending::mismatch || result.caller.how == ending::peer_failed));
        CHECK(result.caller.says("zero.cpp:" + std::to_string(odd + 1) + ","));
        CHECK(result.caller.says("one.cpp:" + std::to_string(odd + 1)));
      }
}

TEST_CASE("a call that only one rank makes, and that waits for nobody, is found out at the end") {
  for (int last : {0, 1, 2}) {
    const auto result = launch(3, [&](auto& comm, auto&) {
      int x = 0;
      comm.barrier();
      if (comm.rank() == last) comm.broadcast(shardkit::view(&x, 1), last, from_line("extra.cpp", 12));
    });
    INFO(result.caller.what);
    CHECK(result.caller.how == ending::peer_failed);
    CHECK(result.caller.says("extra.cpp:12"));
    CHECK(result.caller.says("rank " + std::to_string(last) + " broadcast("));
  }
}

TEST_CASE("a rank that gives up a communicator in which others wait has failed") {
  const auto result = launch(3, [&](auto& comm, auto& clock) {
    auto child = comm.split(0, comm.rank(), "child");
    clock.strike();
    if (comm.rank() != 1) return child.barrier(from_line("child.cpp", 3));
    { auto gone = std::move(child); }
    comm.barrier();
  });
  check_peers(result, 1, "left while rank");
  CHECK(result.caller.says("child.cpp:3"));
}

TEST_CASE("a request that a rank drops at its very end is told to the caller, whom else") {
  const auto result = launch(3, [&](auto& comm, auto&) {
    std::vector<int> data(1000);
    comm.barrier();
    if (comm.rank() == 2) (void)comm.recv_async(data, 0, from_line("drop.cpp", 9));
  });
  CHECK(result.caller.how == ending::peer_failed);
  CHECK(result.caller.culprit == 2);
  CHECK(result.caller.says("was dropped before it completed at drop.cpp:9"));
}

TEST_CASE("ranks that handle their failures return") {
  const auto result = launch(3, [&](auto& comm, auto&) {
    std::vector<int> data(1000);
    try {
      auto child = comm.split(0);
      auto arriving = comm.recv_async(data, comm.rank());
      if (comm.rank() == 1) throw std::runtime_error("handled");
      child.barrier();
    } catch (const std::exception&) {
      comm.fail("I cannot go on");
    }
  });
  CHECK(result.caller.how == ending::returned);
}

TEST_CASE("a rank that leaves after a different call does not keep the others") {
  // Rank 0 needs nobody's contribution: it is back in its own code, for long or for good, when the others find out.
  for (const bool returns : {true, false}) {
    std::atomic<int> ended{0};
    const auto result = launch(3, [&](auto& comm, auto& clock) {
      std::vector<float> x(large_count), y(2);
      comm.barrier();
      clock.strike();
      if (comm.rank() != 0) {
        try {
          comm.all_reduce(in_place(x), shardkit::sum, from_line("usual.cpp", 7));
        } catch (...) {
          ++ended;
          throw;
        }
        return;
      }
      comm.broadcast(y, 0, from_line("odd.cpp", 31));
      if (returns) return;
      while (ended.load() != 2) pause_for(1e-3);
      comm.barrier();
    });
    for (int rank : {1, 2}) {
      INFO(result[rank].what);
      CHECK((result[rank].how == ending::mismatch || result[rank].how == ending::peer_failed));
      CHECK(result[rank].says("odd.cpp:31"));
      CHECK(result.delay(rank) < promptly);
    }
  }
}

TEST_CASE("ranks that disagree about an unequal all_to_all all throw") {
  for (int deviator = 0; deviator < 3; ++deviator) {
    const auto result = launch(3, [&](auto& comm, auto&) {
      const std::size_t sent = comm.rank() == deviator ? 5 : 4;
      std::vector<float> x(3 * sent), y(12);
      comm.all_to_all(x, partition::balanced(x.size(), 3), y, partition::balanced(12, 3),
                      comm.rank() == deviator ? from_line("odd.cpp", 31) : from_line("usual.cpp", 7));
      comm.barrier();
    });
    for (int rank = 0; rank < 3; ++rank) {
      INFO("rank ", rank, ": ", result[rank].what);
      CHECK((result[rank].how == ending::mismatch || result[rank].how == ending::peer_failed));
      CHECK(result[rank].says("odd.cpp:31"));
      // The deviator may find by itself that what it sends to itself is not what it expects.
      CHECK(result[rank].says("sends 5"));
      CHECK(result[rank].says("expects 4"));
    }
    CHECK(result.caller.how == ending::mismatch);
  }
}

TEST_CASE("a message of another size or type fails both sides, whoever comes first") {
  struct sizes {
    std::size_t sent, expected;
  };
  const std::vector<sizes> all{{3, 4}, {4, 3}, {0, 1}, {1, 0}, {3, 5000}, {5000, 3}, {5000, 5001}, {40000, 5000}};
  enum form { single, both_ways, grouped, grouped_with_collective, pending };
  for (const sizes& one : all)
    for (form how : {single, both_ways, grouped, grouped_with_collective, pending})
      for (int late : {0, 1}) {
        CAPTURE(one.sent);
        CAPTURE(one.expected);
        CAPTURE(int(how));
        CAPTURE(late);
        const auto result = launch(3, [&](auto& comm, auto& clock) {
          if (comm.rank() == late) pause_for(2e-3);
          const auto w = comm.rank() == 0 ? from_line("sender.cpp", 11) : from_line("receiver.cpp", 22);
          auto out = std::make_unique<std::vector<float>>(one.sent),
               in = std::make_unique<std::vector<float>>(one.expected);
          auto large = std::make_unique<std::vector<float>>(large_count);
          clock.strike();
          if (comm.rank() == 2) {
            if (how == grouped_with_collective) comm.all_reduce(in_place(*large), shardkit::sum, w);
            return comm.barrier(w);
          }
          const bool sends = comm.rank() == 0;
          switch (how) {
            case single:
              if (sends) comm.send(*out, 1, w);
              else comm.recv(*in, 0, w);
              break;
            case both_ways: comm.send_recv(*out, 1 - comm.rank(), *in, 1 - comm.rank(), w); break;
            case grouped:
            case grouped_with_collective:
              comm.group(
                  [&](auto& g) {
                    if (sends) g.send(*out, 1, w);
                    else g.recv(*in, 0, w);
                    if (how == grouped_with_collective) g.all_reduce(in_place(*large), shardkit::sum, w);
                  },
                  w);
              break;
            case pending: {
              auto request = sends ? comm.send_async(*out, 1, w) : comm.recv_async(*in, 0, w);
              comm.barrier(w);
              request.wait();
              break;
            }
          }
          comm.barrier(w);
        });
        for (int rank = 0; rank < 3; ++rank) {
          const ending& got = result[rank];
          INFO("rank ", rank, ": ", got.what);
          CHECK((got.how == ending::mismatch || got.how == ending::peer_failed));
          if (how != both_ways) {
            CHECK(got.says("sender.cpp:11"));
            CHECK(got.says("receiver.cpp:22"));
            CHECK(got.says("rank 0 sends " + std::to_string(one.sent) + " x f32"));
            CHECK(got.says("rank 1 receives " + std::to_string(one.expected) + " x f32"));
          }
          CHECK(result.delay(rank) < promptly);
        }
        CHECK(result.caller.how == ending::mismatch);
      }

  const auto result = launch(2, [&](auto& comm, auto&) {
    std::vector<float> floats(2);
    double one = 0;
    if (comm.rank() == 0) comm.send(floats, 1);
    else comm.recv(view(&one, 1), 0);
    comm.barrier();
  });
  CHECK(result.caller.how == ending::mismatch);
  CHECK(result.caller.says("2 x f32"));
  CHECK(result.caller.says("1 x f64"));
}

TEST_CASE("a mismatch found on the way through a collective ends it for all") {
  // More messages than a channel holds: the last ones meet while their ranks wait inside the all_reduce.
  constexpr int messages = 40;
  for (int round = 0; round < 20; ++round) {
    const auto result = launch(3, [&](auto& comm, auto& clock) {
      std::vector<float> data(1000 * messages), large(large_count);
      comm.barrier();
      clock.strike();
      if (comm.rank() == round % 3) pause_for(1e-3);
      comm.group([&](auto& g) {
        for (int k = 0; k < messages; ++k) {
          const bool odd = k == messages - 1 - round % 5;
          const view<float> part(data.data() + 1000 * k, 1000);
          if (comm.rank() == 0) g.send(view(part.data(), odd ? 999 : 1000), 1, from_line("sender.cpp", 11));
          if (comm.rank() == 1) g.recv(part, 0, from_line("receiver.cpp", 22));
        }
        g.all_reduce(in_place(large), shardkit::sum);
      });
      comm.barrier();
    });
    for (int rank = 0; rank < 3; ++rank) {
      INFO("rank ", rank, ": ", result[rank].what);
      CHECK((result[rank].how == ending::mismatch || result[rank].how == ending::peer_failed));
      CHECK(result[rank].says("sender.cpp:11"));
      CHECK(result[rank].says("receiver.cpp:22"));
      CHECK(result.delay(rank) < promptly);
    }
    CHECK(result.caller.how == ending::mismatch);
  }
}

TEST_CASE("a request that found a mismatch stays failed") {
  launch(2, [](auto& comm, auto&) {
    std::vector<float> data(comm.rank() == 0 ? 500 : 400), large(large_count);
    if (comm.rank() == 0) {
      auto request = comm.send_async(data, 1);
      CHECK_THROWS_AS(comm.all_reduce(in_place(large), shardkit::sum), shardkit::communication_error);
      CHECK_THROWS_AS(request.wait(), shardkit::communication_error);
    } else {
      pause_for(0.01);
      auto request = [&] {
        try {
          return comm.recv_async(data, 0);
        } catch (const shardkit::mismatch_error&) {
          return shardkit::request();
        }
      }();
      CHECK(!request.active());
    }
  });
}

namespace {

/// Sets a flag at the end of its scope, after what is declared below it has ended.
class tell_when_over {
 public:
  explicit tell_when_over(std::atomic<bool>& over) : over_(over) {}
  ~tell_when_over() { over_ = true; }

 private:
  std::atomic<bool>& over_;
};

}  // namespace

TEST_CASE("a request dropped before it completed fails the launch") {
  for (const bool sends : {true, false}) {
    const auto result = launch(3, [&](auto& comm, auto& clock) {
      comm.barrier();
      if (comm.rank() == 1) {
        auto data = std::make_unique<std::vector<int>>(1000);
        {
          auto dropped = sends ? comm.send_async(*data, 2, from_line("drop.cpp", 9))
                               : comm.recv_async(*data, 2, from_line("drop.cpp", 9));
          clock.strike();
        }
        data.reset();  // no peer touches it any more
      }
      comm.barrier();
    });
    check_peers(result, 1, "was dropped before it completed at drop.cpp:9");
    CHECK(result[1].how == ending::peer_failed);
    CHECK(result[1].culprit == 1);
    CHECK(result.reported_rank == 1);
  }
}

TEST_CASE("where an exception drops a request, the exception is the cause, also to those who hear of it before") {
  for (const bool collective : {false, true}) {
    std::atomic<bool> thrown{false};
    const auto result = launch(3, [&](auto& comm, auto& clock) {
      std::vector<int> data(1000);
      if (comm.rank() == 1) {
        const tell_when_over dropping(thrown);
        const auto dropped =
            collective ? comm.all_reduce_async(in_place(data), shardkit::sum) : comm.recv_async(data, 2);
        clock.strike();
        throw std::runtime_error("the disk is full");
      }
      if (collective)
        while (!thrown) pause_for(1e-3);  // it must not complete
      comm.all_reduce(in_place(data), shardkit::sum);
    });
    check_peers(result, 1, "the disk is full");
    CHECK(!result[0].says("dropped"));
    CHECK(!result[2].says("dropped"));
    CHECK(result[1].how == ending::other);
    CHECK(result.reported_rank == 1);
  }
}

TEST_CASE("where an exception drops a request and nobody tells of it, the drop is the cause") {
  const auto result = launch(3, [](auto& comm, auto& clock) {
    std::vector<int> data(1000);
    comm.barrier();
    if (comm.rank() == 1) {
      try {
        const auto dropped = comm.recv_async(data, 2, from_line("drop.cpp", 9));
        clock.strike();
        throw std::runtime_error("swallowed");
      } catch (const std::runtime_error&) {
      }
    }
    comm.barrier();
  });
  check_peers(result, 1, "was dropped before it completed at drop.cpp:9, by an exception",
              promptly + shardkit::detail::first_failure::patience);
  CHECK(result[1].how == ending::peer_failed);
  CHECK(result[1].culprit == 1);
}

TEST_CASE("a failure reaches every communicator of the launch") {
  for (int round = 0; round < 20; ++round)
    for (std::size_t count : {small_count, large_count}) {
      const auto result = launch(6, [&](auto& comm, auto& clock) {
        auto half = comm.split(comm.rank() % 2);
        auto pair = half.split(half.rank() / 2);
        std::vector<float> x(count);
        pair.all_reduce(in_place(x), shardkit::sum);
        comm.barrier();
        if (comm.rank() == 5) {
          clock.strike();
          throw std::runtime_error("in my own corner");
        }
        // Nobody but rank 3 shares a communicator below the world with rank 5.
        if (comm.rank() == 0) comm.barrier();
        if (comm.rank() == 1) comm.recv(x, 0);
        if (comm.rank() == 2 || comm.rank() == 4) half.all_reduce(in_place(x), shardkit::sum);
        if (comm.rank() == 3) half.barrier();
      });
      check_peers(result, 5, "in my own corner");
      CHECK(result[1].context.communicator == "world");
      CHECK(result[2].context.communicator == "world/0");
      CHECK(result[3].context.size == 3);
    }
}

TEST_CASE("the culprit is named by its rank in the launch") {
  const auto result = launch(4, [](auto& comm, auto&) {
    auto reversed = comm.split(0, -comm.rank(), "reversed");
    if (comm.rank() == 3) return;  // rank 0 of the child
    reversed.barrier();
  });
  check_peers(result, 3, "left while rank");
}

TEST_CASE("a failure ends pending requests") {
  for (const bool tests : {false, true})
    for (const bool sends : {false, true}) {
      const auto result = launch(3, [&](auto& comm, auto& clock) {
        std::vector<float> x(1000);
        auto child = comm.split(0);
        auto pending = [&] {
          if (comm.rank() == 2) return shardkit::request();
          return sends ? child.send_async(x, 2) : child.recv_async(x, 2);
        }();
        comm.barrier();
        if (comm.rank() == 2) {
          clock.strike();
          throw std::runtime_error("no reply");
        }
        if (tests)
          while (!pending.test()) {
          }
        else pending.wait();
      });
      for (int rank : {0, 1}) {
        CHECK(result[rank].how == ending::peer_failed);
        CHECK(result[rank].says("no reply"));
        CHECK(result[rank].context.rank == rank);  // a request knows whose it is
        CHECK(result[rank].context.site.known());
        CHECK(result.delay(rank) < promptly);
      }
      CHECK(result.caller.what == "no reply");
    }
}

TEST_CASE("a rank that times out may free its buffers while the late one arrives") {
  // The buffers live in the calls' frames and go with the exception; AddressSanitizer sees a late read or write.
  for (const verb& one : collectives())
    for (int late = 0; late < 3; ++late)
      for (int round = 0; round < 4; ++round) {
        CAPTURE(one.name);
        const auto result = launch(
            3,
            [&](auto& comm, auto&) {
              comm.barrier();
              if (comm.rank() == late) pause_for(8e-3 + 1e-3 * round);
              one.call(comm, large_count, {});
            },
            0.01);
        // Either all made it, or all know.
        for (int rank = 0; rank < 3; ++rank)
          CHECK((result[rank].how == ending::returned || result[rank].how == ending::timeout ||
                 result[rank].how == ending::peer_failed));
      }
}

TEST_CASE("a rank that throws at a random moment leaves no peer in its buffers") {
  for (int round = 0; round < (SHARDKIT_TEST_SANITIZED ? 100 : 300); ++round) {
    const verb& one = collectives()[static_cast<std::size_t>(round) % collectives().size()];
    const int culprit = round % 4, steps = round % 5;
    const auto result = launch(4, [&](auto& comm, auto&) {
      auto child = comm.split(comm.rank() / 2);
      for (int step = 0; step < 6; ++step) {
        if (comm.rank() == culprit && step == steps) throw std::runtime_error("at random");
        one.call(step % 3 == 2 ? child : comm, step % 2 == 0 ? large_count : small_count, {});
      }
    });
    CHECK(result.caller.what == "at random");
  }
}

TEST_CASE("a call that has thrown leaves its buffers to their owner, whatever the peers still do") {
  using calls = std::function<void(thread_communicator&, std::vector<float> & in, std::vector<float> & out)>;
  const auto part = [](thread_communicator& c, std::vector<float>& all) {
    return view(all.data(), all.size() / static_cast<std::size_t>(c.size()));
  };
  const std::vector<calls> all{
      [](auto& c, auto& in, auto& out) { c.all_reduce(in, out, shardkit::sum); },
      [](auto& c, auto&, auto& out) { c.all_reduce(in_place(out), shardkit::maximum); },
      [](auto& c, auto& in, auto& out) { c.reduce(in, out, shardkit::sum, 1); },
      [&](auto& c, auto& in, auto& out) { c.all_gather(part(c, in), out); },
      [&](auto& c, auto& in, auto& out) { c.gather(part(c, in), out, 2); },
      [&](auto& c, auto& in, auto& out) { c.scatter(in, part(c, out), 0); },
      [&](auto& c, auto& in, auto& out) { c.reduce_scatter(in, part(c, out), shardkit::sum); },
      [](auto& c, auto&, auto& out) { c.broadcast(out, 1); },
      [](auto& c, auto& in, auto& out) { c.all_to_all(in, out); },
      [](auto& c, auto& in, auto& out) {
        const auto cut = partition::balanced(in.size(), c.size());
        c.all_to_all(in, cut, out, cut);
      },
      [](auto& c, auto& in, auto& out) { c.send_recv(in, (c.rank() + 1) % c.size(), out, (c.rank() + 2) % c.size()); },
      [&](auto& c, auto& in, auto& out) {
        c.group([&](auto& g) {
          g.recv(part(c, out), (c.rank() + 1) % c.size());
          g.send(part(c, in), (c.rank() + 2) % c.size());
          g.all_reduce(in_place(view(out.data() + out.size() / 2, out.size() / 2)), shardkit::sum);
        });
      },
  };
  // Ranks 0 to 2 work; rank 3, with whom they share no call, ends the launch in the middle of it.
  const double longest = SHARDKIT_TEST_SANITIZED ? 8e-3 : 2e-3;
  for (int round = 0; round < 10 * static_cast<int>(all.size()); ++round) {
    std::atomic<int> out_of_it{0};
    const auto result = launch(4, [&](auto& comm, auto&) {
      auto workers = comm.split(comm.rank() / 3);
      std::vector<float> in(300000, 1.0f), out(300000, 2.0f);
      comm.barrier();
      if (comm.rank() == 3) {
        pause_for(longest * static_cast<double>(conformance::draw(1, 1, static_cast<std::size_t>(round)) % 100) / 100);
        throw std::runtime_error("in the middle");
      }
      try {
        for (;;) all[static_cast<std::size_t>(round) % all.size()](workers, in, out);
      } catch (const shardkit::peer_failed&) {
        std::fill(in.begin(), in.end(), 3.0f);
        std::fill(out.begin(), out.end(), 4.0f);
        ++out_of_it;
        while (out_of_it.load() < 3) std::this_thread::yield();
        CHECK(std::count(in.begin(), in.end(), 3.0f) == 300000);
        CHECK(std::count(out.begin(), out.end(), 4.0f) == 300000);
        throw;
      }
    });
    CHECK(result.caller.what == "in the middle");
  }
}

TEST_CASE("failures in the middle of split leave nothing behind") {
  for (int round = 0; round < 100; ++round) {
    const auto result = launch(4, [&](auto& comm, auto&) {
      auto other = comm.split(0, 0, "other");
      if (comm.rank() == 3) {
        // Ends the launch while the others are somewhere inside split.
        for (const double until = seconds_now() + round * 2e-6; seconds_now() < until;) {
        }
        other.fail("meanwhile");
      }
      auto child = comm.split(comm.rank() % 2);
      child.barrier();
      comm.barrier();
    });
    CHECK(result.caller.how == ending::peer_failed);
  }
}

TEST_CASE("two communicators used in opposite order end at the deadline") {
  const auto result = launch(
      2,
      [](auto& comm, auto&) {
        auto a = comm.split(0, 0, "a"), b = comm.split(0, 0, "b");
        std::vector<float> x(5000);
        if (comm.rank() == 0) {
          a.all_reduce(in_place(x), shardkit::sum, from_line("a.cpp", 3));
          b.all_reduce(in_place(x), shardkit::sum);
        } else {
          b.all_reduce(in_place(x), shardkit::sum, from_line("b.cpp", 4));
          a.all_reduce(in_place(x), shardkit::sum);
        }
      },
      0.3);
  CHECK(result.caller.how == ending::timeout);
  for (const ending& rank : result.ranks) {
    INFO(rank.what);
    CHECK(rank.says("a.cpp:3"));
    CHECK(rank.says("b.cpp:4"));
    CHECK(rank.says("; it waits for rank "));
  }
  CHECK(result[0].context.communicator == "a");
  CHECK(result[1].context.communicator == "b");
}

TEST_CASE("an erased communicator fails like the one inside") {
  auto result = launch(3, [](auto& comm, auto& clock) {
    auto any = shardkit::erase(std::move(comm));
    auto child = any.split(0, -any.rank());
    std::vector<float> x(large_count);
    child.all_reduce(in_place(x), shardkit::sum);
    if (any.rank() == 1) {
      clock.strike();
      x.pop_back();
      std::vector<float> y(4);
      any.all_reduce(x, y, shardkit::sum);
    }
    child.all_reduce(in_place(x), shardkit::sum);
  });
  check_peers(result, 1, "out has 4 elements and needs 19999");
  CHECK(result[1].how == ending::usage);

  result = launch(2, [](auto& comm, auto&) {
    const int rank = comm.rank();
    auto any = shardkit::erase(std::move(comm));
    std::vector<int> x(static_cast<std::size_t>(3 + rank));
    any.broadcast(x, 0);
    any.barrier();
  });
  CHECK(result.caller.how == ending::mismatch);
}

TEST_CASE("a mesh that does not fit the world is refused on every rank") {
  using axes = std::vector<shardkit::mesh_axis>;
  struct wrong {
    axes given;
    std::string message;
  };
  const std::vector<wrong> all{
      {{{"data", 2}, {"tensor", 2}}, "data 2 x tensor 2 makes 4 ranks, the communicator 'world' has 6"},
      {{{"data", 6}, {"tensor", 2}}, "makes 12 ranks"},
      {{{"data", 0}, {"tensor", 6}}, "axis 'data' has size 0"},
      {{{"data", -2}, {"tensor", -3}}, "axis 'data' has size -2"},
      {{{"tensor", 2}, {"tensor", 3}}, "two axes are named 'tensor'"},
      {{{"a", 2147483647}, {"b", 2147483647}, {"c", 2147483647}, {"d", 6}}, "ranks, the communicator 'world' has 6"},
      {{}, "no axis makes 1 ranks"},
  };
  for (const wrong& one : all) {
    CAPTURE(one.message);
    const auto result =
        launch(6, [&](auto& comm, auto&) { shardkit::mesh grid(comm, one.given, from_line("grid.cpp", 4)); });
    for (const ending& got : result.ranks) {
      INFO(got.what);
      CHECK(got.how == ending::usage);
      CHECK(got.says(one.message));
      CHECK(got.says("grid.cpp:4"));
    }
  }
  run_ranks(4, [](thread_communicator& comm) {
    shardkit::mesh grid(comm, {{"data", 2}, {"tensor", 2}});
    CHECK_THROWS_AS(grid["pipeline"], shardkit::usage_error);
    CHECK_THROWS_AS(grid.coordinate("pipeline"), shardkit::usage_error);
    CHECK(grid["tensor"].size() == 2);  // asking costs nothing
    comm.barrier();
  });
}

TEST_CASE("a rank alone that fails reaches its children") {
  shardkit::self_communicator comm{shardkit::self_backend()};
  auto child = comm.split(3);
  comm.fail("enough");
  CHECK_THROWS_AS(child.barrier(), shardkit::peer_failed);
  CHECK_THROWS_AS(comm.barrier(), shardkit::peer_failed);
}

TEST_CASE("a rank alone never waits for itself") {
  std::vector<int> x(3), y(4);
  {
    shardkit::self_communicator comm{shardkit::self_backend()};
    CHECK_THROWS_AS(comm.recv(x, 0), shardkit::usage_error);
  }
  {
    shardkit::self_communicator comm{shardkit::self_backend()};
    comm.send(x, 0);
    CHECK_THROWS_AS(comm.recv(y, 0), shardkit::mismatch_error);
  }
  {
    shardkit::self_communicator comm{shardkit::self_backend()};
    auto pending = comm.recv_async(y, 0);
    CHECK_THROWS_AS(comm.send(x, 0), shardkit::mismatch_error);
  }
  // A message to oneself whose receive is posted needs nobody else.
  run_ranks(2, [](thread_communicator& ranks) {
    std::vector<double> in(5000, 1.5), out(5000);
    auto pending = ranks.recv_async(out, ranks.rank());
    ranks.send(in, ranks.rank());
    pending.wait();
    CHECK(in == out);
    auto sent = ranks.send_async(in, ranks.rank());
    ranks.recv(out, ranks.rank());
    sent.wait();
  });
}
