// What goes wrong in one stage reaches all of them, with its own type and text, and nobody waits for the deadline.
#include "ring_cases.hpp"
#include "stage_cases.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/traced.hpp>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

using namespace pipeline_test;
using shardkit::mismatch_error;
using shardkit::peer_failed;
using shardkit::run_ranks;
using shardkit::thread_communicator;
using shardkit::usage_error;

namespace {

struct engine_error : std::runtime_error {
  using runtime_error::runtime_error;
};

struct outcome {
  int told = 0;         // ranks that were told that `culprit` failed
  std::string reason;   // as one of them was told
  std::string message;  // of the exception that the launch rethrew
};

// Runs `body` on every rank; the culprit is to throw an `Expected` out of it. It then stays, with its stage alive,
// until all others have been told: they hear of the failure from the pipeline, and not because the rank has left.
template <class Expected, class Setup>
outcome fails_everywhere(int ranks, int culprit, Setup setup) {
  outcome result;
  std::atomic<int> told{0};
  try {
    run_ranks(ranks, within(60), [&](thread_communicator& comm) {
      auto pipeline = setup(comm);
      try {
        pipeline.body();
        comm.barrier();
      } catch (const peer_failed& failure) {
        if (comm.rank() != culprit) {
          CHECK(failure.culprit() == culprit);
          if (++told == 1) result.reason = failure.what();
        }
        throw;
      } catch (const Expected&) {
        CHECK(comm.rank() == culprit);
        CHECK(wait_until([&] { return told == ranks - 1; }));
        throw;
      }
    });
    FAIL_CHECK("nothing was thrown");
  } catch (const Expected& cause) {
    result.message = cause.what();
  }
  result.told = told;
  return result;
}

// A stage or ring together with what is done with it, so that it lives on while its exception is handled.
template <class Pipeline, class Body>
struct use {
  Pipeline pipeline;
  Body action;
  void body() { action(pipeline); }
};
template <class Pipeline, class Body>
use(Pipeline, Body) -> use<Pipeline, Body>;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("An exception in any stage's compute ends all stages, which learn whose it is") {
  for (int stages = 1; stages <= 5; ++stages)
    for (int culprit = 0; culprit < stages; ++culprit)
      for (const int at : {0, 3, 6}) {
        CAPTURE(stages);
        CAPTURE(culprit);
        CAPTURE(at);
        const outcome result = fails_everywhere<engine_error>(stages, culprit, [&](thread_communicator& comm) {
          return use{stage(comm, mixed_ports(4)), [&](auto& pipeline) {
                       pipeline.forward(partition::balanced(20, 7), [&](const microbatch& mb, const hop<>&, hop<>&) {
                         if (pipeline.index() == culprit && mb.index == at) throw engine_error("no more memory");
                       });
                     }};
        });
        CHECK(result.told == stages - 1);
        CHECK(result.message == "no more memory");
        if (stages > 1)
          CHECK(contains(result.reason, "forward on stage " + std::to_string(culprit) + ": no more memory"));
      }
}

TEST_CASE("Something thrown that is no std::exception ends all stages, too") {
  const outcome result = [] {
    outcome seen;
    try {
      run_ranks(3, within(60), [&](thread_communicator& comm) {
        stage pipeline(comm, mixed_ports(4));
        try {
          pipeline.forward(partition::balanced(20, 7), [&](const microbatch&, const hop<>&, hop<>&) {
            if (pipeline.index() == 1) throw 17;
          });
          comm.barrier();
        } catch (const peer_failed& failure) {
          if (comm.rank() == 0) seen.reason = failure.what();
          throw;
        }
      });
    } catch (int thrown) {
      seen.told = thrown;
    }
    return seen;
  }();
  CHECK(result.told == 17);
  CHECK(contains(result.reason, "forward on stage 1: an exception that is not a std::exception"));
}

TEST_CASE("An exception in any function of the ring, on any stage, ends all stages") {
  enum function { rows, forward, accept };
  for (int stages = 1; stages <= 4; ++stages)
    for (int culprit = 0; culprit < stages; ++culprit)
      for (const function where : {rows, forward, accept})
        for (const int at : {0, 2}) {
          if (where == accept && culprit != 0) continue;
          CAPTURE(stages);
          CAPTURE(culprit);
          CAPTURE(at);
          const outcome result = fails_everywhere<engine_error>(stages, culprit, [&](thread_communicator& comm) {
            return use{decode_ring(comm, ring_ports(), ring_feedback(), stages + 1), [&](auto& ring) {
                         const auto check = [&](function now, int group, int step) {
                           if (now == where && ring.index() == culprit && group == stages && step == at)
                             throw engine_error("no such token");
                         };
                         ring.run(
                             [&](int group, int step) {
                               check(rows, group, step);
                               return 2;
                             },
                             [&](int group, int step, const hop<>&, hop<>&, hop<>&) { check(forward, group, step); },
                             [&](int group, int step, const hop<>&) {
                               check(accept, group, step);
                               return step < 4;
                             });
                       }};
          });
          CHECK(result.told == stages - 1);
          CHECK(result.message == "no such token");
          if (stages > 1)
            CHECK(contains(result.reason, "decode_ring::run on stage " + std::to_string(culprit) + ": no such token"));
        }
}

TEST_CASE("Stages that declare different ports all hear which rank differs from rank 0, and go on if they like") {
  const std::vector<port> common{{"hidden", dtype::f32, 8, 4}, {"ids", dtype::i32, 1, 4}};
  const std::vector<std::vector<port>> others{
      {{"hidden", dtype::bf16, 8, 4}, {"ids", dtype::i32, 1, 4}},
      {{"hidden", dtype::f32, 9, 4}, {"ids", dtype::i32, 1, 4}},
      {{"hidden", dtype::f32, 8, 5}, {"ids", dtype::i32, 1, 4}},
      {{"hidden", dtype::f32, 8, 4}, {"positions", dtype::i32, 1, 4}},
      {{"hidden", dtype::f32, 8, 4}, {"ids", dtype::i32, 1, 4, port_rows::fixed}},
      {{"ids", dtype::i32, 1, 4}, {"hidden", dtype::f32, 8, 4}},
      {{"hidden", dtype::f32, 8, 4}},
      {}};
  for (int ranks = 2; ranks <= 4; ++ranks)
    for (int odd = 0; odd < ranks; ++odd)
      for (const auto& different : others)
        run_ranks(ranks, within(60), [&](thread_communicator& comm) {
          std::string message = "nothing was thrown";
          try {
            stage pipeline(comm, comm.rank() == odd ? different : common);
          } catch (const usage_error& wrong) {
            message = wrong.message();
          }
          // Where rank 0 itself is the odd one, rank 1 is the first to differ from it.
          CHECK(contains(message, "rank " + std::to_string(odd == 0 ? 1 : odd) + " declares "));
          CHECK(contains(message, "'hidden' f32 [up to 4, 8], 'ids' i32 [up to 4, 1]"));
          CHECK(comm.all_reduce(1, shardkit::sum) == ranks);
        });
}

TEST_CASE("Rings that differ in their groups or their feedback are told apart, too") {
  for (const bool in_groups : {true, false})
    run_ranks(3, within(60), [&](thread_communicator& comm) {
      const bool odd = comm.rank() == 2;
      std::string message = "nothing was thrown";
      try {
        decode_ring ring(comm, ring_ports(), {"token", odd && !in_groups ? dtype::i64 : dtype::i32, 1, 1},
                         odd && in_groups ? 5 : 4);
      } catch (const usage_error& wrong) {
        message = wrong.message();
      }
      const std::string different =
          in_groups ? "5 groups with the feedback 'token' i32 [1, 1]" : "4 groups with the feedback 'token' i64 [1, 1]";
      CHECK(message == "rank 2 declares " + different +
                           ", and rank 0 declares 4 groups with the feedback 'token' i32 [1, 1]; declare the same on "
                           "every rank");
      comm.barrier();
    });
}

TEST_CASE("Stages that are told of different declarations are told the calls that came before, where they are traced") {
  run_ranks(2, within(60), [](thread_communicator& world) {
    auto comm = with_trace(std::move(world));
    const int before = __LINE__ + 1;
    comm.barrier();
    const int line = __LINE__ + 2;
    try {
      stage pipeline(comm, {{"hidden", dtype::f32, comm.rank() == 0 ? 8u : 9u, 4}});
      FAIL_CHECK("nothing was thrown");
    } catch (const usage_error& wrong) {
      INFO(std::string(wrong.what()));
      CHECK(wrong.context().rank == comm.rank());
      CHECK(wrong.context().size == 2);
      CHECK(wrong.context().communicator == "world");
      CHECK(wrong.context().operation == "stage");
      CHECK(wrong.context().site.line == line);
      CHECK(contains(wrong.history(), "1 barrier(), done, at " __FILE__ ":" + std::to_string(before)));
    }
  });
}

TEST_CASE("Stages that run a ring with different numbers of groups find out from the first hop out of turn") {
  for (const int first_has : {2, 4}) {
    CAPTURE(first_has);
    bool found = false;
    try {
      run_ranks(2, within(60), [&](thread_communicator& comm) {
        decode_ring ring(comm, ring_ports(), ring_feedback(), 4);
        ring.run(
            comm.rank() == 0 ? first_has : 3, [](int, int) { return 1; }, [](int, int, const hop<>&, hop<>&, hop<>&) {},
            [](int, int step, const hop<>&) { return step < 3; });
      });
    } catch (const mismatch_error& wrong) {
      found = contains(wrong.what(), "pass the same number of active groups on every stage");
    }
    CHECK(found);
  }
}

TEST_CASE("Wrong calls on one stage fail all of them, and say what to do") {
  const auto refused = [](int culprit, auto action) {
    const outcome result = fails_everywhere<usage_error>(3, culprit, [&](thread_communicator& comm) {
      return use{stage(comm, mixed_ports(4)), [&](auto& pipeline) {
                   if (pipeline.index() == culprit) action(pipeline);
                 }};
    });
    CHECK(result.told == 2);
    return result.message;
  };
  for (const int culprit : {0, 1, 2}) {
    CHECK(contains(refused(culprit, [](auto& pipeline) { pipeline.receive(); }),
                   "no hop is expected; call expect(rows) before"));
    CHECK(contains(refused(culprit, [](auto& pipeline) { pipeline.pass_on(); }),
                   "there is nothing to pass on; call outgoing(rows) and write the hop before"));
    CHECK(contains(refused(culprit, [](auto& pipeline) { pipeline.expect(5); }),
                   "5 rows in a hop, and the ports are declared for up to 4; declare more, or use more microbatches"));
    CHECK(contains(refused(culprit, [](auto& pipeline) { pipeline.outgoing(5); }), "5 rows in a hop"));
    CHECK(contains(refused(culprit,
                           [](auto& pipeline) {
                             pipeline.forward(partition::balanced(11, 2), [](const auto&, const auto&, auto&) {});
                           }),
                   "6 rows in a hop"));
    CHECK(contains(refused(culprit,
                           [](auto& pipeline) {
                             for (int i = 0; i < 3; ++i) pipeline.expect(1);
                           }),
                   "both incoming slots are in use, 2 by hops that are expected; call receive()"));
    CHECK(contains(refused(culprit,
                           [](auto& pipeline) {
                             pipeline.expect(1);
                             pipeline.forward(partition::balanced(1, 1), [](const auto&, const auto&, auto&) {});
                           }),
                   "a hop is expected already; receive() it before"));
  }
}

TEST_CASE("Asking a hop for what it does not hold names the port, both types and the line, and fails all stages") {
  int line = 0;
  const auto refused = [&](auto ask) {
    return fails_everywhere<usage_error>(3, 1,
                                         [&](thread_communicator& comm) {
                                           return use{stage(comm, mixed_ports(4)), [&](auto& pipeline) {
                                                        if (pipeline.index() != 1) return;
                                                        ask(pipeline.outgoing(3));
                                                      }};
                                         })
        .message;
  };
  CHECK(contains(refused([](hop<>& out) { out.matrix<double>("hidden"); }),
                 "port 'hidden' is declared as f32 and asked for as f64"));
  CHECK(contains(refused([](hop<>& out) { out.matrix<float>("tokens"); }),
                 "there is no port 'tokens'; declared are 'hidden' f32 [up to 4, 64]"));
  const std::string message = refused([&](hop<>& out) {
    line = __LINE__ + 1;
    out.matrix<float>(4);
  });
  CHECK(contains(message, "there is no port 4; declared are 'hidden'"));
  CHECK(contains(message, "failures.cpp:" + std::to_string(line)));
}

TEST_CASE("Declarations that make no sense are refused on every rank") {
  const std::size_t huge = static_cast<std::size_t>(-1) / 4;
  const std::vector<std::pair<std::vector<port>, std::string>> faults{
      {{{"", dtype::f32, 1, 1}}, "port 0 has no name"},
      {{{"a", dtype::f32, 1, 1}, {"a", dtype::i32, 1, 1}}, "two ports have the name 'a'"},
      {{{"a", dtype::f32, 0, 1}}, "port 'a' has rows of 0 elements; leave it out"},
      {{{"a", dtype::f32, huge, 1}}, "port 'a' has more bytes than there are"},
      {{{"a", dtype::f32, 8, huge}}, "port 'a' has more bytes than there are"},
      {{{"a", dtype::u8, huge, 1}, {"b", dtype::u8, huge, 1}}, "port 'b' has more bytes than there are"}};
  for (const auto& fault : faults) {
    std::atomic<int> told{0};
    CHECK_THROWS_AS(run_ranks(2, within(60),
                              [&](thread_communicator& comm) {
                                try {
                                  stage pipeline(comm, fault.first);
                                } catch (const usage_error& wrong) {
                                  CHECK(contains(wrong.message(), fault.second));
                                  ++told;
                                  throw;
                                }
                              }),
                    usage_error);
    CHECK(told == 2);
  }
  CHECK_THROWS_AS(
      run_ranks(2, within(60),
                [](thread_communicator& comm) { decode_ring ring(comm, ring_ports(), ring_feedback(), 0); }),
      usage_error);
  CHECK_THROWS_AS(run_ranks(2, within(60),
                            [](thread_communicator& comm) {
                              decode_ring ring(comm, ring_ports(), ring_feedback(), 2);
                              ring.run(
                                  3, [](int, int) { return 1; }, [](int, int, const hop<>&, hop<>&, hop<>&) {},
                                  [](int, int, const hop<>&) { return false; });
                            }),
                  usage_error);
}

TEST_CASE("A stage that is destroyed before its sends are taken fails the others instead of leaving them waiting") {
  CHECK_THROWS_AS(run_ranks(2, within(60),
                            [](thread_communicator& comm) {
                              if (comm.rank() == 0) {
                                {
                                  stage pipeline(comm, mixed_ports(4));
                                  pipeline.outgoing(4);
                                  pipeline.pass_on();
                                }
                                comm.barrier();
                              } else {
                                stage pipeline(comm, mixed_ports(4));
                                comm.barrier();
                              }
                            }),
                  peer_failed);
}
