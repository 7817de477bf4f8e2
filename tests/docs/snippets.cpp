// What the documentation quotes from no example: each part between two marks is shown on a page of docs/, and runs
// here.
#include <shardkit/shardkit.hpp>
#include <shardkit/testing/thread_ranks.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

using namespace shardkit;
using shardkit::testing::on_thread_ranks;

TEST_CASE("communicators.md") {
  on_thread_ranks(4, [](thread_communicator& comm) {
    const int next = (comm.rank() + 1) % comm.size(), previous = (comm.rank() + comm.size() - 1) % comm.size();
    // [verbs]
    std::vector<float> gradients(1000, 1.0f);
    comm.all_reduce(in_place(gradients), sum);                   // the same bits on every rank
    const double loss = comm.all_reduce(0.5, average);           // single numbers need no buffer
    const partition cut = partition::balanced(10, comm.size());  // 3, 3, 2 and 2
    std::vector<int> mine(cut.count(comm.rank()), comm.rank()), all(10);
    comm.all_gather(mine, all, cut);  // unequal counts from a partition
    std::vector<int> left(1);
    comm.send_recv(std::vector<int>{comm.rank()}, next, left, previous);
    // [verbs]
    CHECK(gradients[999] == 4);
    CHECK(loss == 0.5);
    CHECK(all == std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2, 3, 3});
    CHECK(left[0] == previous);

    std::vector<float> x(100, 1.0f), y(100, 2.0f);
    // [async]
    auto pending = comm.all_reduce_async(in_place(x), sum);  // x stays untouched until wait() returns
    for (float& value : y) value *= 2;                       // work that needs no x
    pending.wait();
    // [async]
    CHECK(x[0] == 4);

    // [mesh]
    mesh grid(comm, {{"data", 2}, {"tensor", 2}});  // the last axis fastest: ranks 0 and 1 share each layer
    auto& tensor = grid["tensor"];
    auto& data = grid["data"];
    // [mesh]
    CHECK(tensor.rank() == comm.rank() % 2);
    CHECK(data.rank() == comm.rank() / 2);

    std::vector<int> outgoing(3, comm.rank()), incoming(3);
    // [group]
    comm.group([&](auto& g) {  // none of these waits for another
      g.send(outgoing, next);
      g.recv(incoming, previous);
      g.with(tensor).all_reduce(in_place(y), sum);
    });
    // [group]
    CHECK(incoming[2] == previous);
    CHECK(y[0] == 8);
  });
}

TEST_CASE("splits.md") {
  on_thread_ranks(3, [](thread_communicator& comm) {
    // [partition]
    const auto even = partition::balanced(10, 3);         // 4, 3 and 3
    const auto blocks = partition::block(10, 3);          // 4, 4 and 2
    const auto groups = partition::balanced(100, 3, 32);  // whole groups of 32: 64, 32 and a short last one, 4
    const auto measured = partition::weighted(10, std::vector<double>{2, 1, 1});  // by speed: 5, 3 and 2
    const auto heads = grouped(9, 3, 6);  // 9 heads, 3 key/value heads, 6 ranks: 2 1 2 1 2 1
    // [partition]
    CHECK(even.count(0) == 4);
    CHECK(blocks.count(2) == 2);
    CHECK(groups.count(0) == 64);
    CHECK(groups.count(2) == 4);
    CHECK(measured.count(0) == 5);
    CHECK(measured.count(1) + measured.count(2) == 5);
    CHECK(heads.heads.count(0) == 2);
    CHECK(heads.heads.count(5) == 1);
    CHECK(even.offset(comm.rank()) == (comm.rank() == 0 ? 0u : comm.rank() == 1 ? 4u : 7u));
  });
}

TEST_CASE("failures.md") {
  std::string what;
  launch_options quiet;
  quiet.on_failure = nullptr;
  // [deadlines]
  launch_options options;
  options.limits.operation = 30;  // seconds that the slowest rank may come behind the fastest
  options.on_failure = [&](int rank, const char* reason) { what = std::to_string(rank) + ": " + reason; };
  // [deadlines]
  CHECK_THROWS_AS(run_ranks(2, options,
                            [](thread_communicator& comm) {
                              if (comm.rank() == 1) throw std::runtime_error("out of memory");
                              comm.barrier();
                            }),
                  std::runtime_error);
  CHECK(what == "1: out of memory");

  // [checked]
  const auto program = [](thread_communicator& plain) {
    auto comm = with_trace(with_checks(std::move(plain)));
    comm.barrier();
    std::vector<float> x(comm.rank() == 0 ? 12 : 13);
    comm.all_reduce(in_place(x), sum);  // throws mismatch_error on both ranks, naming both lines
  };
  // [checked]
  CHECK_THROWS_AS(run_ranks(2, quiet, program), mismatch_error);

  // [faults]
  fault_plan plan;
  plan.kind = fault_kind::drop_out;  // rank 1 stops at its third call, as a process that is lost
  plan.rank = 1;
  plan.call = 3;
  const auto survives = [&](thread_communicator& plain) {
    auto comm = with_faults(std::move(plain), plan);
    for (int step = 0; step < 10; ++step) comm.barrier();
  };
  // [faults]
  quiet.limits.operation = 0.2;
  CHECK_THROWS_AS(run_ranks(2, quiet, survives), error);
}

// Our side of the tables in coming-from.md: each call there stands here, word for word.
TEST_CASE("coming-from.md") {
  on_thread_ranks(2, [](thread_communicator& comm) {
    const int root = 0, peer = 1 - comm.rank(), colour = 0, key = comm.rank();
    std::vector<float> x(4, 1.0f), in(4, 2.0f), out(4), all(8);
    std::vector<int> prompts(5, 1), answers;
    const float loss = 1, local = 1;
    const partition cut = partition::from_counts({3, 1});
    std::vector<float> share(cut.count(comm.rank()), 1.0f), whole(4);

    comm.all_reduce(in, out, sum);
    comm.all_reduce(in_place(x), sum);
    comm.all_reduce(in_place(x), average);
    comm.all_reduce(in_place(x), by_rank(sum));
    comm.all_gather(in, all);
    comm.all_gather(share, whole, cut);
    comm.reduce_scatter(all, out, sum);
    comm.broadcast(x, root);
    comm.all_to_all(in, out);
    comm.send_recv(in, peer, out, peer);
    comm.barrier();
    comm.group([&](auto& g) {
      g.send(in, peer);
      g.recv(out, peer);
    });
    if (comm.rank() == 0) {
      comm.send(in, peer);
    } else {
      comm.recv(out, peer);
    }
    auto part = comm.split(colour, key);
    auto pending = comm.all_reduce_async(in_place(x), sum);
    pending.wait();
    float total = comm.all_reduce(local, sum);
    mesh grid(comm, {{"data", 1}, {"tensor", 2}});

    auto mine = split(comm, prompts);
    auto padded = pad_and_split(comm, prompts);
    for (int prompt : mine) answers.push_back(prompt);
    auto ordered = gather_trim(comm, answers, prompts.size());
    auto blobs = all_gather_bytes(comm, std::string("text"));
    auto values = comm.exchange(loss);
    auto longest = pad_to_max(comm, share);
    if (comm.is_root()) answers.clear();
    on_rank(comm, root, [] {});
    { root_first turn(comm); }
    verify_same(comm, in, "x");

    CHECK(part.size() == 2);
    CHECK(total == 2);
    CHECK(padded.size() == 3);
    CHECK(ordered.size() == 5);
    CHECK(blobs.size() == 2);
    CHECK(longest.largest() == 3);
    CHECK(values.size() == 2);
  });
}
