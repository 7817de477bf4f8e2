// Every bootstrap does the same: a blob from rank 0 to all, a barrier, errors that name the ranks that never came.
#include <doctest/doctest.h>
#include <shardkit/launch/callback_bootstrap.hpp>
#include <shardkit/launch/communicator_bootstrap.hpp>
#include <shardkit/launch/file_bootstrap.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/launch/tcp_bootstrap.hpp>
#include <shardkit/launch/thread_bootstrap.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using shardkit::bootstrap;

namespace {

bootstrap::blob letters(const std::string& text) { return {text.begin(), text.end()}; }

shardkit::deadlines limits(double init) {
  shardkit::deadlines result;
  result.init = init;
  result.abort = 2;
  return result;
}

/// A folder of its own, gone at the end.
struct folder {
  folder() : path(std::filesystem::temp_directory_path() / ("shardkit-bootstrap-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path);
  }
  ~folder() { std::filesystem::remove_all(path); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path), {}));
  }
  std::filesystem::path path;
};

/// body(rank) on its own thread for each of the ranks; what they threw, by place in the list.
std::vector<std::string> each(const std::vector<int>& ranks, const std::function<void(int)>& body) {
  std::vector<std::string> texts(ranks.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < ranks.size(); ++i)
    threads.emplace_back([&, i] {
      try {
        body(ranks[i]);
      } catch (const std::exception& failure) {
        texts[i] = failure.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return texts;
}

std::vector<int> all_of(int size) {
  std::vector<int> ranks;
  for (int rank = 0; rank < size; ++rank) ranks.push_back(rank);
  return ranks;
}

void exercise(bootstrap& start, std::atomic<int>& arrived, std::vector<std::string>& wrong) {
  const auto expect = [&](bool holds, const char* what) {
    if (!holds) wrong.push_back(what + std::string(" on rank ") + std::to_string(start.rank()));
  };
  const auto mine = start.rank() == 0 ? letters("first") : letters("ignored");
  expect(start.broadcast(mine) == letters("first"), "first blob");
  expect(start.broadcast({}).empty(), "empty blob");
  bootstrap::blob large(bootstrap::largest_blob);
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7 % 251);
  expect(start.broadcast(start.rank() == 0 ? large : bootstrap::blob()) == large, "large blob");
  for (int round = 1; round <= 3; ++round) {
    ++arrived;
    start.barrier();
    expect(arrived >= round * start.size(), "barrier");
    start.barrier();
  }
}

enum class way { threads, tcp, files };
const char* name_of(way one) { return one == way::threads ? "threads" : one == way::tcp ? "tcp" : "files"; }

/// What ranks of one launch share, and how each makes its bootstrap.
class meeting {
 public:
  meeting(way how, int size, double init, std::string token = "token")
      : how_(how), size_(size), limits_(limits(init)), token_(std::move(token)), place_(size, limits_) {}

  std::unique_ptr<bootstrap> join(int rank) { return join(rank, size_, token_); }
  std::unique_ptr<bootstrap> join(int rank, int size, const std::string& token) {
    if (how_ == way::threads) return std::make_unique<shardkit::thread_bootstrap>(place_, rank);
    if (how_ == way::files)
      return std::make_unique<shardkit::file_bootstrap>(rank, size, files_.path.string(), token, limits_);
    shardkit::tcp_rendezvous where;
    where.token = token;
    if (rank == 0) where.on_listening = [&](int port) { port_.set_value(port); };
    else where.port = std::shared_future<int>(chosen_).get();
    return std::make_unique<shardkit::tcp_bootstrap>(rank, size, where, limits_);
  }
  const folder& files() const { return files_; }

 private:
  way how_;
  int size_;
  shardkit::deadlines limits_;
  std::string token_;
  shardkit::thread_meeting_place place_;
  folder files_;
  std::promise<int> port_;
  std::shared_future<int> chosen_ = port_.get_future().share();
};

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("every bootstrap hands rank 0's blobs to all and holds barriers") {
  for (const way how : {way::threads, way::tcp, way::files})
    for (int size : {1, 2, 5}) {
      CAPTURE(name_of(how));
      CAPTURE(size);
      meeting here(how, size, 20);
      std::atomic<int> arrived{0};
      std::vector<std::vector<std::string>> wrong(static_cast<std::size_t>(size));
      for (const std::string& text : each(all_of(size), [&](int rank) {
             const auto start = here.join(rank);
             exercise(*start, arrived, wrong[static_cast<std::size_t>(rank)]);
           }))
        CHECK(text == "");
      for (const auto& one : wrong) CHECK((one.empty() ? "" : one.front()) == std::string());
      CHECK(here.files().files() == 0);
    }
}

TEST_CASE("a communicator and a pair of functions serve as bootstraps") {
  std::atomic<int> arrived{0};
  std::vector<std::vector<std::string>> wrong(3);
  shardkit::run_ranks(3, [&](shardkit::thread_communicator& comm) {
    shardkit::communicator_bootstrap over(comm);
    shardkit::callback_bootstrap start(
        comm.rank(), comm.size(), [&](const bootstrap::blob& blob) { return over.broadcast(blob); },
        [&] { over.barrier(); });
    exercise(start, arrived, wrong[static_cast<std::size_t>(comm.rank())]);
  });
  for (const auto& one : wrong) CHECK((one.empty() ? "" : one.front()) == std::string());
}

TEST_CASE("ranks that never came are named on those that have") {
  for (const way how : {way::threads, way::tcp, way::files}) {
    CAPTURE(name_of(how));
    meeting here(how, 5, 0.5);
    for (const std::string& text : each({0, 2, 4}, [&](int rank) { here.join(rank)->barrier(); })) {
      CAPTURE(text);
      CHECK(has(text, "ranks 1, 3 of 5 did not come within the init deadline of 0.5"));
    }
    CHECK(here.files().files() == 0);
  }
}

TEST_CASE("without rank 0 the others say so") {
  meeting files(way::files, 3, 0.3);
  for (const std::string& text : each({1, 2}, [&](int rank) { files.join(rank); })) CHECK(has(text, "rank 0 of 3"));
  const auto started = std::chrono::steady_clock::now();
  shardkit::tcp_rendezvous where;
  where.port = 9;  // the discard port, which nobody serves
  try {
    shardkit::tcp_bootstrap(1, 2, where, limits(0.4));
    FAIL("somebody answered");
  } catch (const shardkit::timeout_error& failure) {
    CHECK(has(failure.what(), "rank 0 was not found at 127.0.0.1 port 9 within the init deadline of 0.4"));
  }
  CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(3));
}

TEST_CASE("a rank that is late at a barrier is named, and a later barrier does not hang") {
  for (const way how : {way::threads, way::tcp, way::files}) {
    CAPTURE(name_of(how));
    meeting here(how, 3, 0.6);
    std::promise<void> over;
    const std::shared_future<void> others_done = over.get_future().share();
    std::atomic<int> done{0};
    const auto texts = each(all_of(3), [&](int rank) {
      const auto start = here.join(rank);
      if (rank == 1) std::shared_future<void>(others_done).wait();
      else if (++done; true) {
        const auto tell = [&] {
          if (--done == 0) over.set_value();
        };
        try {
          start->barrier();
        } catch (...) {
          tell();
          throw;
        }
        tell();
      }
    });
    CHECK(texts[1] == "");
    for (const std::size_t waiting : {0u, 2u}) {
      CAPTURE(texts[waiting]);
      CHECK(has(texts[waiting], "rank 1 of 3 did not come within the init deadline"));
    }
  }
}

TEST_CASE("ranks that do not take a blob are named at one deadline, and keep it from nobody else") {
  constexpr int size = 5;
  constexpr double init = 0.7;
  std::promise<int> chosen;
  const std::shared_future<int> port = chosen.get_future().share();
  std::promise<void> over;
  const std::shared_future<void> done = over.get_future().share();
  const bootstrap::blob large(bootstrap::largest_blob, 'x');
  int sent = 0, received = 0;
  double waited = 0;
  std::string told;
  const auto texts = each(all_of(size), [&](int rank) {
    shardkit::tcp_rendezvous where;
    where.token = "token";
    if (rank == 0) where.on_listening = [&](int taken) { chosen.set_value(taken); };
    else where.port = std::shared_future<int>(port).get();
    if (rank == 1 || rank == 3 || rank == 4) {  // stopped, as soon as it has come
      const shardkit::detail::tcp_socket stopped = shardkit::detail::tcp_join(where, rank, size, 10);
      std::shared_future<void>(done).wait();
      return;
    }
    auto within = limits(10);
    if (rank == 0) within.init = init;
    shardkit::tcp_bootstrap start(rank, size, where, within);
    while (rank == 2)  // until rank 0 has gone
      if (start.broadcast({}) == large) ++received;
    for (; told.empty() && sent < 12; ++sent) {  // the system takes a few
      const auto begun = std::chrono::steady_clock::now();
      try {
        start.broadcast(large);
      } catch (const std::exception& failure) {
        told = failure.what();
      }
      waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    }
    over.set_value();
  });
  for (const std::string& text : texts) CHECK((text == "" || has(text, "its connection closed")));
  CHECK(has(told, "ranks 1, 3, 4 of 5 did not take what rank 0 sent within the init deadline of 0.7"));
  CHECK(waited > init * 0.9);
  CHECK(waited < init * 2);
  CHECK(received == sent);
}

TEST_CASE("two processes with the same rank are refused") {
  meeting threads(way::threads, 2, 5);
  const auto first = threads.join(1);
  CHECK_THROWS_WITH_AS(threads.join(1), doctest::Contains("two threads say that they are rank 1"),
                       shardkit::usage_error);

  meeting files(way::files, 3, 1);
  int refused = 0;
  for (const std::string& text : each({0, 1, 1}, [&](int rank) { files.join(rank); }))
    refused += has(text, "another process says that it is rank 1") ? 1 : 0;
  CHECK(refused == 1);

  meeting tcp(way::tcp, 3, 10);  // everybody hears of it at once, long before the deadline
  const auto started = std::chrono::steady_clock::now();
  for (const std::string& text : each({0, 1, 1}, [&](int rank) { tcp.join(rank); })) {
    CAPTURE(text);
    CHECK(has(text, "two processes say that they are rank 1"));
  }
  CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(5));
}

TEST_CASE("processes that disagree about the size are refused on every rank") {
  for (const way how : {way::tcp, way::files}) {
    CAPTURE(name_of(how));
    meeting here(how, 3, 1);
    const auto texts = each({0, 1, 2}, [&](int rank) { here.join(rank, rank == 2 ? 4 : 3, "token"); });
    CAPTURE(texts[2]);
    CHECK((has(texts[2], "one of 4") || has(texts[2], "size")));
    for (const std::string& text : texts) CHECK(text != "");
  }
}

TEST_CASE("left-over files of another token are ignored, those of the same token are named") {
  meeting here(way::files, 2, 1);
  for (const char* name : {"shardkit-0123456789abcdef-claim-0", "shardkit-0123456789abcdef-here-1-0", "other"})
    std::ofstream(here.files().path / name) << "shardkit 1 size 2 token 3 old\n";
  for (const std::string& text : each({0, 1}, [&](int rank) { here.join(rank)->barrier(); })) CHECK(text == "");
  CHECK(here.files().files() == 3);

  // A rank of this launch that was killed leaves its claim.
  std::string claim;
  const auto left = each({0}, [&](int rank) {
    const auto start = here.join(rank, 1, "again");
    for (const auto& entry : std::filesystem::directory_iterator(here.files().path))
      if (has(entry.path(), "claim-0") && !has(entry.path(), "0123456789abcdef")) claim = entry.path();
  });
  REQUIRE(claim != "");
  std::ofstream(claim) << "";
  CHECK_THROWS_WITH_AS(here.join(0, 1, "again"), doctest::Contains("an earlier launch with the same token"),
                       shardkit::usage_error);
}

TEST_CASE("a file that belongs to this launch by name and not by content is refused") {
  meeting here(way::files, 2, 5);
  const auto texts = each({0, 1}, [&](int rank) {
    if (rank == 0) return (void)here.join(0, 2, "token");
    // Wait for rank 0's file, and put one of another size where its peer's is expected.
    std::string name;
    while (name.empty())
      for (const auto& entry : std::filesystem::directory_iterator(here.files().path))
        if (has(entry.path(), "here-0-0") && !has(entry.path(), ".new")) name = entry.path();
    name.replace(name.find("here-0-0"), 8, "here-1-0");
    std::ofstream(name + ".new") << "shardkit 1 size 9 token 5 token\n";
    std::filesystem::rename(name + ".new", name);
  });
  CHECK(texts[1] == "");
  CHECK(has(texts[0], "is of another launch"));
}

TEST_CASE("a file of a launch is read with the memory of what is in it") {
  using shardkit::detail::read_launch_file;
  const std::string header = shardkit::detail::launch_file_header(3, "token");
  const auto read = [&](const std::string& bytes, bootstrap::blob& payload) {
    std::FILE* const in = std::tmpfile();
    REQUIRE(in != nullptr);
    std::fwrite(bytes.data(), 1, bytes.size(), in);
    std::rewind(in);
    const bool good = read_launch_file(in, header, payload);
    std::fclose(in);
    return good;
  };
  for (const std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{4095}, bootstrap::largest_blob}) {
    bootstrap::blob payload;
    CHECK(read(header + std::string(length, 'x'), payload));
    CHECK(payload == bootstrap::blob(length, 'x'));
    CHECK(payload.capacity() <= 2 * length + 8192);
  }
  bootstrap::blob payload;
  CHECK(!read(header + std::string(bootstrap::largest_blob + 1, 'x'), payload));
  CHECK(!read(header.substr(0, header.size() - 1), payload));
  CHECK(!read("", payload));
  CHECK(!read("x" + header, payload));
}

TEST_CASE("wrong arguments are refused before anything is done") {
  shardkit::tcp_rendezvous where;
  where.port = 1;
  for (const auto& [rank, size] : {std::pair{-1, 2}, {2, 2}, {0, 0}}) {
    CHECK_THROWS_AS(shardkit::tcp_bootstrap(rank, size, where), shardkit::usage_error);
    CHECK_THROWS_AS(shardkit::file_bootstrap(rank, size, "/nowhere", "t"), shardkit::usage_error);
    CHECK_THROWS_AS(shardkit::callback_bootstrap(rank, size, {}, {}), shardkit::usage_error);
  }
  CHECK_THROWS_AS(shardkit::callback_bootstrap(0, 1, {}, {}), shardkit::usage_error);
  CHECK_THROWS_WITH_AS(shardkit::file_bootstrap(0, 2, "/nowhere", "t"), doctest::Contains("/nowhere"),
                       shardkit::transport_error);
  where.port = 0;
  CHECK_THROWS_WITH_AS(shardkit::tcp_bootstrap(1, 2, where), doctest::Contains("no port is given"),
                       shardkit::usage_error);
  where.port = 70000;
  CHECK_THROWS_AS(shardkit::tcp_bootstrap(1, 2, where), shardkit::usage_error);
  // Whoever reaches the port could take part: refused on both sides, before anything is waited for.
  where.port = 80;
  for (const char* reached : {"0.0.0.0", "192.0.2.1", "::", "2001:db8::1", "::ffff:192.0.2.1"}) {
    CAPTURE(reached);
    where.listen = where.host = reached;
    for (const int rank : {0, 1})
      CHECK_THROWS_WITH_AS(shardkit::tcp_bootstrap(rank, 2, where, limits(0.2)),
                           doctest::Contains("the token is empty"), shardkit::usage_error);
  }
  for (const char* own : {"127.0.0.1", "127.9.9.9", "localhost", "::1", "::ffff:127.0.0.1", "no such host"}) {
    CAPTURE(own);
    CHECK_NOTHROW(shardkit::detail::require_token(where, own));
  }
  where = {};
  where.port = 80;
  where.token.assign(129, 'x');
  CHECK_THROWS_WITH_AS(shardkit::tcp_bootstrap(1, 2, where), doctest::Contains("129 bytes"), shardkit::usage_error);
  CHECK_THROWS_AS(shardkit::thread_meeting_place(0), shardkit::usage_error);
  shardkit::thread_meeting_place place(1);
  CHECK_THROWS_AS(shardkit::thread_bootstrap(place, 0).broadcast(bootstrap::blob(bootstrap::largest_blob + 1)),
                  shardkit::usage_error);
}
