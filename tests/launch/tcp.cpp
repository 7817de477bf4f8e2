// The rendezvous among hostile peers, and what a failure does to TCP ranks.
#include <doctest/doctest.h>
#include "tcp_ranks.hpp"

#include <shardkit/comm/on_rank.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

using shardkit::detail::encode;
using shardkit::detail::greeting;
using shardkit::detail::greeting_kind;
using shardkit::detail::tcp_socket;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

tcp_socket connect_to(int port) {
  std::string complaint;
  return shardkit::detail::tcp_connect("127.0.0.1", port, 2, complaint);
}

greeting::wire hello(const std::string& token, std::uint32_t rank, std::uint32_t size) {
  return encode({greeting::current_version, greeting_kind::hello, rank, size, token, ""});
}
void send(const tcp_socket& socket, const greeting::wire& bytes) {
  (void)socket.send_all(bytes.data(), bytes.size(), 1);
}

/// What rank 0 answers; "closed" where it only closes.
std::string answer(const tcp_socket& socket, const std::string& token, double seconds = 5) {
  greeting::wire wire{};
  greeting reply;
  switch (socket.receive_all(wire.data(), wire.size(), seconds)) {
    case tcp_socket::outcome::closed: return "closed";
    case tcp_socket::outcome::expired: return "silence";
    case tcp_socket::outcome::done: break;
  }
  if (decode(wire, token, reply) != shardkit::detail::greeting_check::good) return "not trusted";
  return reply.kind == greeting_kind::welcome ? "welcome" : reply.kind == greeting_kind::begin ? "begin" : reply.text;
}

const std::string token = tcp_test_options().where.token;

/// Rank 0 of `ranks`, at whose door disturb(port) goes on before the others come; then everybody computes a sum.
std::vector<outcome> disturbed(int ranks, const std::function<void(int)>& disturb, double init = 20) {
  std::vector<outcome> outcomes(static_cast<std::size_t>(ranks));
  std::promise<int> chosen;
  const std::shared_future<int> port = chosen.get_future().share();
  std::promise<void> undisturbed;
  const std::shared_future<void> clear = undisturbed.get_future().share();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      outcome& mine = outcomes[static_cast<std::size_t>(rank)];
      try {
        auto options = tcp_test_options();
        options.limits.init = rank == 0 ? 20 : init;
        options.rank = rank;
        options.size = ranks;
        if (rank == 0) options.where.on_listening = [&](int taken) { chosen.set_value(taken); };
        else options.where.port = std::shared_future<int>(port).get();
        if (rank != 0) std::shared_future<void>(clear).wait();
        shardkit::tcp_environment environment(options);
        if (environment.world().all_reduce(rank, shardkit::sum) != ranks * (ranks - 1) / 2) mine.text = "wrong sum";
      } catch (const std::exception& failure) {
        mine = {std::current_exception(), failure.what()};
      }
    });
  disturb(std::shared_future<int>(port).get());
  undisturbed.set_value();
  for (auto& thread : threads) thread.join();
  return outcomes;
}

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("strangers at the door are dropped and keep nobody out") {
  std::vector<tcp_socket> held;
  std::mt19937 random(7);
  const auto noise = [&](std::size_t bytes) {
    std::vector<char> result(bytes);
    for (char& c : result) c = static_cast<char>(random());
    return result;
  };
  for (const outcome& one : disturbed(3, [&](int port) {
         auto wrong = connect_to(port);
         send(wrong, hello("another token", 1, 3));
         CHECK(answer(wrong, token) == "closed");
         auto longer = connect_to(port);
         send(longer, hello(token + "x", 1, 3));
         CHECK(answer(longer, token) == "closed");
         auto garbage = connect_to(port);
         const auto bytes = noise(5000);
         (void)garbage.send_all(bytes.data(), bytes.size(), 1);
         CHECK(answer(garbage, token) == "closed");
         auto oversized = connect_to(port);
         const auto good = hello(token, 1, 3);
         std::vector<unsigned char> more(good.begin(), good.end());
         more.push_back(0);
         (void)oversized.send_all(more.data(), more.size(), 1);
         CHECK(answer(oversized, token) == "closed");
         auto misplaced = connect_to(port);
         send(misplaced, encode({greeting::current_version, greeting_kind::begin, 1, 3, token, ""}));
         CHECK(answer(misplaced, token) == "closed");
         auto web = connect_to(port);
         const std::string request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + std::string(700, ' ');
         (void)web.send_all(request.data(), request.size(), 1);
         CHECK(answer(web, token) == "closed");
         connect_to(port).close();
         // These stay: half a greeting, nothing at all, as many as the door has places, and more.
         for (int i = 0; i < 150; ++i) {
           held.push_back(connect_to(port));
           if (i % 2 == 0) (void)held.back().send_all(good.data(), 100, 1);
         }
       }))
    CHECK(one.text == "");
}

TEST_CASE("one who sends his greeting byte by byte is let in; who takes too long is dropped") {
  tcp_socket slow;
  std::string told;
  std::thread late;
  const auto outcomes = disturbed(3, [&](int port) {
    // Rank 2's place taken by a process that greets slowly, and leaves again before all have come.
    auto patient = connect_to(port);
    const auto good = hello(token, 2, 3);
    for (std::size_t i = 0; i < good.size(); ++i) {
      (void)patient.send_all(&good[i], 1, 1);
      if (i % 64 == 0) shardkit::detail::sleep_seconds(0.002);
    }
    CHECK(answer(patient, token) == "welcome");
    patient.close();
    slow = connect_to(port);
    (void)slow.send_all(good.data(), 10, 1);
    const double waited = seconds_of([&] { told = answer(slow, token, 8); });
    CHECK(told == "closed");
    CHECK(waited < 6);
  });
  for (const outcome& one : outcomes) CHECK(one.text == "");
}

TEST_CASE("processes of this launch that do not fit end it at once, with the reason on every rank") {
  const struct {
    greeting::wire said;
    const char* reason;
  } table[] = {{hello(token, 1, 4), "started as one of 4 ranks"},
               {hello(token, 7, 3), "says that it is rank 7 of 3"},
               {hello(token, 0, 3), "says that it is rank 0 of 3"},
               {encode({greeting::current_version + 1, greeting_kind::hello, 1, 3, token, ""}), "speaks version 4"}};
  for (const auto& row : table) {
    CAPTURE(row.reason);
    std::string told;
    std::vector<outcome> outcomes;
    const double waited = seconds_of([&] {
      outcomes = disturbed(
          3,
          [&](int port) {
            auto first = connect_to(port);
            send(first, hello(token, 2, 3));
            CHECK(answer(first, token) == "welcome");
            auto culprit = connect_to(port);
            send(culprit, row.said);
            told = answer(culprit, token);
            CHECK(has(answer(first, token), row.reason));
          },
          0.5);
    });
    CHECK(has(told, row.reason));
    CHECK(is<shardkit::usage_error>(outcomes[0]));
    CHECK(has(outcomes[0].text, row.reason));
    CHECK(waited < 5);
  }
}

TEST_CASE("an all_reduce of one rank that throws ends the others, with culprit and cause") {
  for (int ranks : {2, 5}) {
    const double waited = seconds_of([&] {
      const auto outcomes = on_tcp_ranks(ranks, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
        auto child = comm.split(0, -comm.rank());
        if (comm.rank() == 1) throw shardkit::usage_error("tired of this");
        child.all_reduce(1, shardkit::sum);
        child.barrier();
      });
      for (int rank = 0; rank < ranks; ++rank) {
        const outcome& one = outcomes[static_cast<std::size_t>(rank)];
        CAPTURE(one.text);
        CHECK((rank == 1 ? is<shardkit::usage_error>(one) : is<shardkit::peer_failed>(one)));
        CHECK(has(one.text, "tired of this"));
        if (rank != 1) CHECK(has(one.text, "rank 1 failed"));
      }
    });
    CHECK(waited < 5);
  }
}

TEST_CASE("ranks that make different calls throw on all ranks and name both") {
  const auto outcomes = on_tcp_ranks(3, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    std::vector<int> data(comm.rank() == 2 ? 5 : 4, 1);
    comm.all_reduce(shardkit::in_place(data), shardkit::sum);
    comm.barrier();
  });
  int mismatches = 0;
  for (const outcome& one : outcomes) {
    CAPTURE(one.text);
    mismatches += is<shardkit::mismatch_error>(one) ? 1 : 0;
    CHECK((is<shardkit::mismatch_error>(one) || is<shardkit::peer_failed>(one)));
    CHECK(has(one.text, "ranks make different calls"));
  }
  CHECK(mismatches >= 1);
}

TEST_CASE("roots that differ are found out, though each root alone could go on") {
  const auto outcomes = on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    std::vector<int> data(4, 1);
    comm.broadcast(data, comm.rank());
    comm.barrier();
  });
  for (const outcome& one : outcomes) {
    CAPTURE(one.text);
    CHECK(has(one.text, "ranks make different calls"));
  }
}

TEST_CASE("a receive that meets a message of another size or type throws, and names both sides with their lines") {
  const std::vector<float> four(4, 1);
  std::vector<double> two(2);
  const std::string file = __FILE__;
  // The lines of the two calls, which stand alone on theirs.
  int send_line = 0, receive_line = 0;
  const auto text = [&](const char* sent, int sender, const char* received, int receiver) {
    return "messages differ: rank " + std::to_string(sender) + " sends " + sent + " at " + file + ":" +
           std::to_string(send_line) + ", rank " + std::to_string(receiver) + " receives " + received + " at " + file +
           ":" + std::to_string(receive_line);
  };
  const auto of_size = on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    std::vector<int> data(4, 1);
    if (comm.rank() == 0) {
      send_line = __LINE__ + 1;
      comm.send(data, 1);
    } else {
      receive_line = __LINE__ + 1;
      comm.recv(shardkit::view(data.data(), 3), 0);
    }
    comm.barrier();
  });
  CHECK(is<shardkit::mismatch_error>(of_size[1]));
  for (const outcome& one : of_size) {
    CAPTURE(one.text);
    CHECK(has(one.text, text("4 x i32", 0, "3 x i32", 1)));
  }
  // Ranks of the launch, whatever they are called in the communicator; as many bytes of another type.
  const auto of_type = on_tcp_ranks(3, tcp_test_options(), [&](shardkit::tcp_communicator& world) {
    auto comm = world.split(world.rank() == 0 ? 0 : 1, -world.rank());
    if (world.rank() == 1) {
      send_line = __LINE__ + 1;
      comm.send(four, 0);
    } else if (world.rank() == 2) {
      receive_line = __LINE__ + 1;
      comm.recv(two, 1);
    }
    world.barrier();
  });
  CHECK(is<shardkit::mismatch_error>(of_type[2]));
  for (const outcome& one : of_type) {
    CAPTURE(one.text);
    CHECK(has(one.text, text("4 x f32", 1, "2 x f64", 2)));
  }
  // A message to oneself never leaves the process.
  const auto own = on_tcp_ranks(1, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    send_line = __LINE__ + 1;
    comm.send(four, 0);
    receive_line = __LINE__ + 1;
    comm.recv(two, 0);
  });
  CHECK(is<shardkit::mismatch_error>(own[0]));
  CAPTURE(own[0].text);
  CHECK(has(own[0].text, text("4 x f32", 0, "2 x f64", 0)));
}

TEST_CASE("ranks that differ only in what goes from one to another in an all_to_all are named, both with their lines") {
  using where = shardkit::at<shardkit::host_space>;
  const auto outcomes = on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    const auto even = shardkit::partition::from_bounds({0, 2, 4}), odd = shardkit::partition::from_bounds({0, 3, 4});
    std::vector<int> in(4), out(4);
    if (comm.rank() == 0) comm.all_to_all(in, odd, out, even, where({}, {"zero.cpp", "test", 10}));
    else comm.all_to_all(in, even, out, even, where({}, {"one.cpp", "test", 20}));
    comm.barrier();
  });
  CHECK(is<shardkit::mismatch_error>(outcomes[1]));
  for (const outcome& one : outcomes) {
    CAPTURE(one.text);
    CHECK(has(one.text,
              "ranks make different calls: rank 0 all_to_all(send 4 x i32 as 3+1, receive 4 x i32 as 2+2) "
              "at zero.cpp:10 sending 4 bytes, rank 1 "));
    CHECK(has(one.text, " at one.cpp:20 expecting 8 bytes"));
  }
}

TEST_CASE("all names of a byte are one type to a receive") {
  for (const outcome& one : on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
         std::vector<std::byte> bytes(3);
         std::vector<unsigned char> numbers(3);
         if (comm.rank() == 0) comm.send(bytes, 1);
         else comm.recv(numbers, 0);
       }))
    CHECK(one.text == "");
}

TEST_CASE("a request that has found a mismatch stays failed") {
  for (const bool receives : {false, true}) {
    int again = 0;
    const auto outcomes = on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
      std::vector<int> data(comm.rank() == 0 ? 5 : 4, 1);
      if (comm.rank() == 0) {
        if (receives) comm.send(data, 1);
        else comm.all_reduce(shardkit::in_place(data), shardkit::sum);
        return;
      }
      auto request =
          receives ? comm.recv_async(data, 0) : comm.all_reduce_async(shardkit::in_place(data), shardkit::sum);
      CHECK_THROWS_AS(request.wait(), shardkit::mismatch_error);
      for (int i = 0; i < 2; ++i) {
        CHECK_THROWS_AS(request.wait(), shardkit::communication_error);
        CHECK_THROWS_AS((void)request.test(), shardkit::communication_error);
        ++again;
      }
      throw std::runtime_error("seen");
    });
    CHECK(again == 2);
    CHECK(outcomes[1].text == "seen");
  }
}

TEST_CASE("what a rank was sent for a last collective, and has not taken, is a mismatch") {
  const struct {
    const char* what;
    void (*make)(shardkit::tcp_communicator& comm);
  } table[] = {
      {"each rank is the root",
       [](shardkit::tcp_communicator& comm) {
         std::vector<int> data(4, 1);
         comm.broadcast(data, comm.rank());
       }},
      {"each rank scatters",
       [](shardkit::tcp_communicator& comm) {
         std::vector<int> data(8, 1), mine(4);
         comm.scatter(data, mine, comm.rank());
       }},
      {"one rank makes a call more",
       [](shardkit::tcp_communicator& comm) {
         std::vector<int> data(4, 1);
         comm.broadcast(data, 0);
         if (comm.rank() == 1) comm.broadcast(data, 1);
       }},
      {"in a communicator that ends early",
       [](shardkit::tcp_communicator& comm) {
         auto child = comm.split(0);
         std::vector<int> data(4, 1);
         child.broadcast(data, child.rank());
       }},
      {"a message would have been right, a contribution is not",
       [](shardkit::tcp_communicator& comm) {
         std::vector<int> data(4, 1), sum(4);
         if (comm.rank() == 0) comm.send(data, 1);
         else comm.reduce(data, sum, shardkit::sum, 0);
       }},
  };
  for (const auto& row : table)
    for (const int late : {-1, 0, 1}) {
      CAPTURE(row.what);
      CAPTURE(late);
      int mismatches = 0;
      for (const outcome& one : on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
             if (comm.rank() == late) shardkit::detail::sleep_seconds(0.05);
             row.make(comm);
           })) {
        CAPTURE(one.text);
        CHECK((one.text == "" || has(one.text, "ranks make different calls: rank ")));
        mismatches += is<shardkit::mismatch_error>(one) ? 1 : 0;
      }
      CHECK(mismatches >= 1);
    }
}

TEST_CASE("a mismatch in a communicator that has ended reaches those that are still at work") {
  const auto outcomes = on_tcp_ranks(3, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    {
      auto child = comm.split(comm.rank() / 2);
      std::vector<int> data(4, 1);
      child.broadcast(data, child.rank());
    }
    for (int i = 0; i < 200; ++i) comm.barrier();
  });
  for (const outcome& one : outcomes) {
    CAPTURE(one.text);
    CHECK(has(one.text, "ranks make different calls: rank "));
  }
}

TEST_CASE("messages that nobody has received are no mismatch, and nothing of an ended communicator is kept") {
  using namespace shardkit::detail;
  std::vector<tcp_socket> ends;
  std::vector<std::shared_ptr<tcp_link>> links;
  shardkit::deadlines limits;
  limits.operation = 10;
  for (int rank = 0; rank < 2; ++rank) {
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    ends.emplace_back(pair[0]);
    links.push_back(std::make_shared<tcp_link>(tcp_socket(pair[1]), rank, 2, limits));
  }
  tcp_hub hub(std::move(ends));
  const auto room = [&](int rank, std::uint64_t number) {
    return std::make_shared<tcp_room>(links[static_cast<std::size_t>(rank)], number, std::vector<int>{0, 1}, rank);
  };
  const auto meet = [](const std::shared_ptr<tcp_room>& one, const std::shared_ptr<tcp_room>& other) {
    auto first = tcp_calls(one).start(shardkit::barrier_call{});
    tcp_calls(other).start(shardkit::barrier_call{}).wait();
    first.wait();
  };
  const auto world0 = room(0, 1), world1 = room(1, 1);
  for (std::uint64_t number = 10; number < 60; ++number) {
    auto mine = room(0, number), theirs = room(1, number);
    const int data = 3;
    const auto send = [&] {
      tcp_calls(mine).start(shardkit::send_call{&data, 1, shardkit::dtype::i32, 1, nullptr, {}}).wait();
    };
    send();
    if (number % 2 == 0) theirs.reset();  // before the second message, or after it
    meet(world0, world1);
    send();
    meet(world0, world1);
    theirs.reset();
    meet(world0, world1);
    mine.reset();
    meet(world0, world1);
  }
  for (const auto& link : links) {
    const auto held = link->acquire();
    CHECK(link->boxes() == 1);
  }
  for (const auto& link : links) {
    link->leave(5);
    CHECK(!link->failed());
    CHECK_NOTHROW(link->require_agreement());
  }
  hub.end_within(5);
}

TEST_CASE("a hub that never came into use ends at once") {
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  const tcp_socket open(pair[1]);
  std::vector<tcp_socket> ends;
  ends.emplace_back(pair[0]);
  CHECK(seconds_of([&] { shardkit::detail::tcp_hub hub(std::move(ends)); }) < 5);
}

TEST_CASE("a rank that leaves while others wait for it is named, and so is one that does not come in time") {
  const auto left = on_tcp_ranks(3, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    if (comm.rank() != 1) comm.barrier();
  });
  for (const std::size_t rank : {0u, 2u}) {
    CAPTURE(left[rank].text);
    CHECK((has(left[rank].text, "rank 1 failed: left while") ||
           has(left[rank].text, "rank 1 has left the launch without it") ||
           has(left[rank].text, "rank 1 ended the communicator after no call")));
  }
  CHECK((left[1].text == "" || is<shardkit::mismatch_error>(left[1])));  // it hears of it, unless it was first
  const auto late = on_tcp_ranks(3, tcp_test_options(0.5), [&](shardkit::tcp_communicator& comm) {
    if (comm.rank() == 1) shardkit::detail::sleep_seconds(1.2);
    comm.barrier();
  });
  for (const outcome& one : late) {
    CAPTURE(one.text);
    CHECK(has(one.text, "rank 1 did not arrive in barrier()"));
  }
  CHECK((is<shardkit::timeout_error>(late[0]) || is<shardkit::timeout_error>(late[2])));
}

TEST_CASE("a connection that is lost without a word names its rank; so does one that sends no frames") {
  for (const bool garbage : {false, true}) {
    CAPTURE(garbage);
    std::promise<int> chosen;
    const std::shared_future<int> port = chosen.get_future().share();
    std::vector<outcome> outcomes(2);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank)
      threads.emplace_back([&, rank] {
        auto options = tcp_test_options();
        options.rank = rank;
        options.size = 3;
        if (rank == 0) options.where.on_listening = [&](int taken) { chosen.set_value(taken); };
        else options.where.port = std::shared_future<int>(port).get();
        try {
          shardkit::tcp_environment environment(options);
          environment.world().barrier();
        } catch (const std::exception& failure) {
          outcomes[static_cast<std::size_t>(rank)] = {std::current_exception(), failure.what()};
        }
      });
    {
      auto options = tcp_test_options();
      options.where.port = std::shared_future<int>(port).get();
      const tcp_socket third = shardkit::detail::tcp_join(options.where, 2, 3, 20);
      const std::string noise(1000, '\xee');
      if (garbage) (void)third.send_all(noise.data(), noise.size(), 1);
      if (garbage)
        for (auto& thread : threads) thread.join();
    }
    if (!garbage)
      for (auto& thread : threads) thread.join();
    for (const outcome& one : outcomes) {
      CAPTURE(one.text);
      CHECK(is<shardkit::peer_failed>(one));
      CHECK(
          has(one.text, garbage ? "rank 2 failed: it sent a malformed frame" : "rank 2 failed: its connection closed"));
    }
  }
}

TEST_CASE("a request that is dropped fails the communicator") {
  const auto outcomes = on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    if (comm.rank() == 0) {
      auto dropped = comm.barrier_async();
    }
    std::vector<int> none(1);
    comm.recv(none, 1 - comm.rank());
  });
  for (const outcome& one : outcomes) {
    CHECK(has(one.text, "rank 0 failed: a request of barrier() at "));
    CHECK(has(one.text, "was dropped before it completed"));
    CHECK(!has(one.text, "by an exception"));
  }
}

namespace {

/// Starts two receives that nothing comes for, and drops them by an exception.
void drop_by_exception(shardkit::tcp_communicator& comm, const char* what) {
  std::vector<int> none(1);
  const auto second = comm.recv_async(none, 2);
  const auto first = comm.recv_async(none, 0);
  throw std::runtime_error(what);
}

}  // namespace

TEST_CASE("where an exception drops a request, the exception is the cause, also where several ranks throw") {
  for (const int throwing : {1, 2}) {
    CAPTURE(throwing);
    const auto outcomes = on_tcp_environments(4, tcp_test_options(), [&](shardkit::tcp_environment& environment) {
      environment.run([&](shardkit::tcp_communicator& comm) {
        if (comm.rank() == 1 || comm.rank() == throwing) drop_by_exception(comm, "out of paper");
        comm.barrier();
      });
    });
    for (std::size_t rank = 0; rank < 4; ++rank) {
      CAPTURE(rank);
      CAPTURE(outcomes[rank].text);
      CHECK(has(outcomes[rank].text, "out of paper"));
      CHECK(!has(outcomes[rank].text, "dropped"));
    }
  }
}

TEST_CASE("where an exception drops a request and a destructor on its way calls, the exception is the cause") {
  const auto outcomes = on_tcp_environments(3, tcp_test_options(), [&](shardkit::tcp_environment& environment) {
    environment.run([&](shardkit::tcp_communicator& comm) {
      if (comm.rank() == 1) {
        const shardkit::root_first turn(comm, 1);
        drop_by_exception(comm, "out of paper");
      }
      comm.barrier();
    });
  });
  for (const outcome& one : outcomes) CHECK(has(one.text, "out of paper"));
}

TEST_CASE("where an exception drops a request and nobody tells of it, the drop is the cause") {
  for (const bool leaves : {false, true}) {
    CAPTURE(leaves);
    const auto outcomes = on_tcp_environments(3, tcp_test_options(), [&](shardkit::tcp_environment& environment) {
      auto comm = environment.world();
      try {
        if (comm.rank() == 1) drop_by_exception(comm, "swallowed");
      } catch (const std::runtime_error&) {
        if (leaves) return;
      }
      comm.barrier();
    });
    for (std::size_t rank = 0; rank < 3; ++rank) {
      if (leaves && rank == 1) continue;
      CAPTURE(outcomes[rank].text);
      CHECK(has(outcomes[rank].text, "rank 1 failed: a request of recv(1 x i32, peer 0) at "));
      CHECK(has(outcomes[rank].text, "was dropped before it completed, by an exception"));
    }
  }
}

TEST_CASE("an environment that is left by an exception tells the others") {
  const auto outcomes = on_tcp_environments(2, tcp_test_options(), [&](shardkit::tcp_environment& environment) {
    auto world = environment.world();
    if (environment.rank() == 0) throw std::runtime_error("out of paper");
    world.barrier();
  });
  CHECK(outcomes[0].text == "out of paper");
  CHECK(has(outcomes[1].text, "rank 0 failed"));
}

TEST_CASE("communicators outlive their environment, and say so") {
  const auto outcomes = on_tcp_ranks(1, tcp_test_options(), [](shardkit::tcp_communicator&) {});
  CHECK(outcomes[0].text == "");
  shardkit::tcp_options alone;
  auto environment = std::make_unique<shardkit::tcp_environment>(alone);
  auto world = environment->world();
  CHECK(world.all_reduce(3, shardkit::sum) == 3);
  environment.reset();
  CHECK_THROWS_WITH_AS(world.barrier(), doctest::Contains("the tcp_environment has ended"), shardkit::usage_error);
}

TEST_CASE("two threads of each rank use a communicator each") {
  const auto outcomes = on_tcp_environments(3, tcp_test_options(), [&](shardkit::tcp_environment& environment) {
    auto one = environment.world("one"), two = environment.world("two");
    std::atomic<int> sums{0};
    std::thread other([&] {
      for (int i = 0; i < 200; ++i) sums += two.all_reduce(1, shardkit::sum);
    });
    for (int i = 0; i < 200; ++i) sums += one.all_reduce(1, shardkit::sum);
    other.join();
    if (sums != 1200) throw std::runtime_error("sums are " + std::to_string(sums));
  });
  for (const outcome& one : outcomes) CHECK(one.text == "");
}

TEST_CASE("messages beyond the limit are refused on every rank alike") {
  const auto outcomes = on_tcp_ranks(2, tcp_test_options(), [&](shardkit::tcp_communicator& comm) {
    // The size is looked at before the memory.
    static double few[4];
    comm.broadcast(shardkit::view(few, std::size_t{1} << 40), 0);
  });
  for (const outcome& one : outcomes) CHECK(has(one.text, "the TCP backend is for small ones"));
}

TEST_CASE("rank 0 takes the next port where one is taken, and the others find it past the other service") {
  // The other service lets everybody in and says nothing, or something else.
  const tcp_socket other = shardkit::detail::tcp_listen("127.0.0.1", 0, 1);
  const int port = shardkit::detail::port_of(other);
  if (port > 65000) return;
  std::vector<outcome> outcomes(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank)
    threads.emplace_back([&, rank] {
      try {
        auto options = tcp_test_options();
        options.rank = rank;
        options.size = 2;
        options.where.port = port;
        options.where.ports = 8;
        shardkit::tcp_environment environment(options);
        environment.world().barrier();
      } catch (const std::exception& failure) {
        outcomes[static_cast<std::size_t>(rank)] = {std::current_exception(), failure.what()};
      }
    });
  for (auto& thread : threads) thread.join();
  for (const outcome& one : outcomes) CHECK(one.text == "");
  auto options = tcp_test_options();
  options.size = 2;
  options.where.port = port;
  CHECK_THROWS_WITH_AS(shardkit::tcp_environment{options}, doctest::Contains("cannot listen on 127.0.0.1 port"),
                       shardkit::transport_error);
}

TEST_CASE("rank 0 listens on the configured address and on no other") {
  const tcp_socket listener = shardkit::detail::tcp_listen("127.0.0.2", 0, 1);
  std::string complaint;
  const int port = shardkit::detail::port_of(listener);
  CHECK(shardkit::detail::tcp_connect("127.0.0.2", port, 1, complaint).open());
  CHECK(!shardkit::detail::tcp_connect("127.0.0.1", port, 1, complaint).open());
  CHECK(has(complaint, "refused"));
}

TEST_CASE("after the launch has begun nobody can come any more") {
  std::atomic<int> port{0};
  auto options = tcp_test_options();
  std::promise<int> chosen;
  const std::shared_future<int> told = chosen.get_future().share();
  options.size = 2;
  std::thread second([&] {
    auto own = tcp_test_options();
    own.rank = 1;
    own.size = 2;
    own.where.port = std::shared_future<int>(told).get();
    shardkit::tcp_environment environment(own);
    environment.world().barrier();
  });
  options.where.on_listening = [&](int taken) { chosen.set_value(port = taken); };
  {
    shardkit::tcp_environment environment(options);
    CHECK(!connect_to(port).open());
    environment.world().barrier();
  }
  second.join();
}
