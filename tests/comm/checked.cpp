// checked<B> over thread ranks, and the comparison that thread ranks always make by themselves.
#include "on_threads.hpp"

#include "failing_launch.hpp"
#include "mutations.hpp"

#include <shardkit/comm/checked.hpp>

#include <string>
#include <vector>

namespace {

using mutations::comm_type;
using mutations::mutation;
using shardkit::in_place;
using shardkit::sum;

/// Makes the mutation on each rank in turn; ends(result, mutated rank) looks at what came of it.
template <class Ends>
void mutate_each(bool checks, Ends ends) {
  for (const mutation& one : mutations::all())
    for (int ranks : {2, 3})
      for (int mutated = 0; mutated < (one.between_two ? 2 : ranks); ++mutated) {
        CAPTURE(one.what);
        CAPTURE(ranks);
        CAPTURE(mutated);
        ends(launch(ranks,
                    [&](auto& world, auto&) {
                      const bool is_mutated = world.rank() == mutated;
                      comm_type comm = checks ? erase(with_checks(std::move(world))) : erase(std::move(world));
                      one.make(comm, is_mutated);
                      comm.barrier(
                          mutations::right());  // a rank that needs nobody in its call hears of it in the next one
                    }),
             mutated);
      }
}

void names_both(const ending& rank) {
  INFO(rank.what);
  CHECK(rank.says("right.cpp:10"));
  CHECK(rank.says("wrong.cpp:20"));
}

}  // namespace

TEST_CASE("each field that one rank changes is caught, and every rank says who, what and where") {
  mutate_each(true, [](const failed_launch& result, int mutated) {
    for (const ending& rank : result.ranks) {
      CHECK(rank.how == ending::mismatch);
      CHECK(rank.says("rank " + std::to_string(mutated) + " "));
      names_both(rank);
    }
  });
}

TEST_CASE("thread ranks catch each of these fields without checks, too") {
  mutate_each(false, [](const failed_launch& result, int mutated) {
    CHECK(result.caller.how == ending::mismatch);
    for (const ending& rank : result.ranks) {
      INFO(rank.what);
      CHECK((rank.how == ending::mismatch || rank.how == ending::peer_failed));
      CHECK(rank.says("rank " + std::to_string(mutated) + " "));
      names_both(rank);
    }
  });
}

TEST_CASE("ranks that would wait for each other for ever are told so") {
  for (const mutations::deadlock& one : mutations::deadlocks())
    for (int ranks : {2, 3}) {
      CAPTURE(one.what);
      CAPTURE(ranks);
      const auto result = launch(ranks, [&](auto& world, auto&) {
        comm_type comm = erase(with_checks(std::move(world)));
        one.make(comm);
      });
      CHECK(result.caller.how == ending::mismatch);
      for (const ending& rank : result.ranks) {
        CHECK(rank.how == ending::mismatch);
        names_both(rank);
        CHECK(rank.time - result.struck < promptly);
      }
    }
}

TEST_CASE("messages may cross collectives, and what is started may be met by what waits") {
  shardkit::run_ranks(3, [](thread_communicator& world) {
    comm_type comm = erase(with_checks(std::move(world)));
    const int me = comm.rank(), next = (me + 1) % 3, previous = (me + 2) % 3;
    for (std::size_t count : {std::size_t{1}, std::size_t{5000}})
      for (int round = 0; round < 20; ++round) {
        std::vector<float> x(count, float(me)), y(count), z(count, 1);
        // A receive made before a collective, for a message that is sent after it.
        auto early = comm.recv_async(y, previous);
        comm.barrier();
        comm.send(x, next);
        early.wait();
        CHECK(y[count - 1] == float(previous));
        // One rank starts what the others wait for, and meanwhile answers a message.
        if (me == 0) {
          auto pending = comm.all_reduce_async(in_place(z), sum);
          comm.recv(y, 1);
          pending.wait();
        } else {
          if (me == 1 && round % 2 == 0) comm.send(x, 0);
          comm.all_reduce(in_place(z), sum);
          if (me == 1 && round % 2 == 1) comm.send(x, 0);
        }
        CHECK(z[count - 1] == 3);
        // A group whose messages are met one by one.
        if (me == 0) comm.group([&](auto& g) { g.recv(x, 1), g.recv(y, 2), g.all_reduce(in_place(z), sum); });
        else if (me == 1) comm.send(x, 0), comm.send(x, 2), comm.all_reduce(in_place(z), sum);
        else comm.recv(y, 1), comm.send(x, 0), comm.all_reduce(in_place(z), sum);
        CHECK(z[0] == 9);
        comm.send_recv(x, me, y, me);
        auto child = comm.split(me % 2, -me);
        CHECK(child.all_reduce(me, sum) == (me == 1 ? 1 : 2));
        CHECK(comm.exchange(me) == std::vector<int>{0, 1, 2});
      }
  });
}

TEST_CASE("a request of a checked communicator outlives it, moved or destroyed") {
  shardkit::run_ranks(2, [](thread_communicator& world) {
    std::vector<int> x(9, world.rank() + 1), y(9);
    shardkit::request pending;
    auto comm = with_checks(std::move(world));
    {
      auto child = comm.split(0);
      auto moved = std::move(child);
      pending = moved.all_reduce_async(x, y, sum);
    }
    comm.barrier();
    pending.wait();
    CHECK(y[8] == 3);
  });
}

TEST_CASE("failures of other kinds pass a checked communicator as they are") {
  const auto result = launch(3, [](auto& world, auto& clock) {
    auto comm = with_checks(std::move(world));
    comm.barrier();
    if (comm.rank() == 2) {
      clock.strike();
      throw std::runtime_error("lost");
    }
    comm.barrier();
  });
  CHECK_THROWS_AS(std::rethrow_exception(result.thrown), std::runtime_error);
  check_peers(result, 2, "lost");
}
