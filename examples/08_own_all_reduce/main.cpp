// An engine's own all_reduce, plugged in where it is faster: small f32 sums go to it, everything else to the backend
// below. Layers and verbs above do not notice.
#include <shardkit/shardkit.hpp>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

using namespace shardkit;

// [plugin]
// One-shot: every rank publishes where its input lies, and reads everybody's. What GPU engines do over peer memory.
class one_shot {
 public:
  // `board` is one place for each rank, seen by all; `meet` a communicator of our own, whose waits end at a deadline.
  one_shot(std::vector<const float*>& board, thread_communicator meet, int& calls)
      : board_(&board), meet_(std::move(meet)), calls_(&calls) {}

  void perform(const all_reduce_call& call) {
    (*board_)[static_cast<std::size_t>(meet_.rank())] = static_cast<const float*>(call.in);
    meet_.barrier();
    std::vector<float> total(call.count);
    for (const float* input : *board_)  // in rank order, so that every rank gets the same bits
      for (std::size_t i = 0; i < call.count; ++i) total[i] += input[i];
    meet_.barrier();  // nobody reads any more: the result may overwrite the input
    std::copy(total.begin(), total.end(), static_cast<float*>(call.out));
    ++*calls_;
  }

 private:
  std::vector<const float*>* board_;
  thread_communicator meet_;
  int* calls_;  // counted for the last line of this example
};
// [plugin]

int main() {
  constexpr int ranks = 3;
  std::vector<const float*> board(ranks);
  run_ranks(ranks, [&](thread_communicator& comm) {
    int calls = 0;
    // [overlay]
    one_shot mine(board, comm.split(0, comm.rank(), "one_shot"), calls);
    auto fast = with_overlay(std::move(comm), std::move(mine), [](reduction op, dtype type, std::size_t bytes) {
      return op.kind == reduction_kind::sum && type == dtype::f32 && bytes <= 64 << 10;
    });
    // [overlay]

    std::vector<float> small(1000, 1), large(100000, 1);
    std::vector<double> wide(1000, 1);
    fast.all_reduce(in_place(small), sum);      // 4 kB of f32: to one_shot
    fast.all_reduce(in_place(large), sum);      // 400 kB: to the threads' own
    fast.all_reduce(in_place(wide), sum);       // not f32
    fast.all_reduce(in_place(small), maximum);  // no sum
    const bool right = small[999] == ranks && large[99999] == ranks && wide[999] == ranks;
    if (fast.is_root())
      std::printf("%d of 4 calls went to one_shot; all results are %s\n", calls, right ? "right" : "WRONG");
  });
}
