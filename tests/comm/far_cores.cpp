// Thread ranks that take each other's cores for far, whatever this machine is like: large contributions go by way of
// the stage, and the results are the same.
#define SHARDKIT_FAR_BYTES_PER_SECOND 1e30

#include <shardkit/launch/run_ranks.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

using shardkit::partition;
using shardkit::sum;
using shardkit::thread_communicator;
using ints = std::vector<std::uint32_t>;

namespace {

// What `rank` contributes as element i of a call.
std::uint32_t given(std::size_t call, int rank, std::size_t i) {
  return static_cast<std::uint32_t>(call * 7919 + static_cast<std::size_t>(rank) * 1000003 + i * 31);
}
ints contribution(std::size_t call, int rank, std::size_t count) {
  ints made(count);
  for (std::size_t i = 0; i < count; ++i) made[i] = given(call, rank, i);
  return made;
}
std::uint32_t total(std::size_t call, int ranks, std::size_t i) {
  std::uint32_t all = 0;
  for (int rank = 0; rank < ranks; ++rank) all += given(call, rank, i);
  return all;
}

// Every collective with a contribution of about `count` elements; returns the number of wrong ones.
std::size_t wrong_after(thread_communicator& comm, std::size_t call, std::size_t count) {
  const int size = comm.size(), rank = comm.rank();
  const std::size_t ranks = static_cast<std::size_t>(size);
  std::size_t wrong = 0;

  const ints in = contribution(call, rank, count);
  ints all(count * ranks), reduced(count);
  comm.all_gather(in, all);
  for (int peer = 0; peer < size; ++peer)
    for (std::size_t i = 0; i < count; ++i)
      wrong += all[static_cast<std::size_t>(peer) * count + i] != given(call, peer, i);
  comm.all_reduce(in, reduced, sum);
  for (std::size_t i = 0; i < count; ++i) wrong += reduced[i] != total(call, size, i);

  const ints blocks = contribution(call, rank, count / ranks * ranks);
  const std::size_t each = count / ranks, mine = static_cast<std::size_t>(rank) * each;
  ints part(each), exchanged(blocks.size());
  comm.reduce_scatter(blocks, part, sum);
  for (std::size_t i = 0; i < each; ++i) wrong += part[i] != total(call, size, mine + i);
  comm.all_to_all(blocks, exchanged);
  for (int peer = 0; peer < size; ++peer)
    for (std::size_t i = 0; i < each; ++i)
      wrong += exchanged[static_cast<std::size_t>(peer) * each + i] != given(call, peer, mine + i);

  const partition cut = partition::from_counts([&] {
    std::vector<std::size_t> counts(ranks, each / 2);
    counts.front() += count - each / 2 * ranks;
    return counts;
  }());
  ints uneven(cut.count(rank)), gathered(count);
  comm.reduce_scatter(in, uneven, sum, cut);
  for (std::size_t i = 0; i < uneven.size(); ++i) wrong += uneven[i] != total(call, size, cut.offset(rank) + i);
  comm.all_gather(uneven, gathered, cut);
  for (std::size_t i = 0; i < count; ++i) wrong += gathered[i] != total(call, size, i);
  return wrong;
}

}  // namespace

TEST_CASE("Ranks on far cores give the same results, with contributions on and off the stage") {
  for (const int ranks : {2, 3, 4})
    shardkit::run_ranks(ranks, [](thread_communicator& comm) {
      std::size_t call = 0;
      for (const std::size_t count : {100003u, 200000u, 524288u, 524289u, 700001u, 3u})
        for (int repeat = 0; repeat < 4; ++repeat) CHECK(wrong_after(comm, call++, count) == 0);
    });
}

TEST_CASE("The look for near cores comes again, on every rank, without disturbing any call") {
  shardkit::run_ranks(2, [](thread_communicator& comm) {
    for (std::size_t call = 0; call < 27; ++call)
      CHECK(wrong_after(comm, call, 150001) == 0);  // five staged calls each
  });
}
