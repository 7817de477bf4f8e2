// A batch of prompts shared out among ranks that do not divide it, answered, and gathered again in the right order.
#include <shardkit/shardkit.hpp>

#include <cstdio>
#include <string>
#include <vector>

using namespace shardkit;

// Stands for the engine: how many words a prompt has.
int answer(const std::string& prompt) {
  int words = 1;
  for (char c : prompt) words += c == ' ';
  return words;
}

int main() {
  const std::vector<std::string> prompts = {"why is the sky blue", "tell a joke", "hello", "what is seven times six",
                                            "write a poem",        "who are you", "bye"};
  const std::vector<int> numbers = {0, 1, 2, 3, 4, 5, 6};
  run_ranks(3, [&](thread_communicator& comm) {
    // [share]
    const auto mine = split(comm, prompts);  // 3, 2 and 2 of them: a view, nothing is copied or sent
    std::vector<int> answers;
    for (const std::string& prompt : mine) answers.push_back(answer(prompt));
    const auto all = gather_trim(comm, answers, prompts.size());  // every answer, in order, on every rank
    // [share]

    // An engine with a fixed batch size wants shares of one length: the last item is repeated at the end. What is
    // repeated is copied, so these are plain values, here the prompts' numbers.
    // [pad]
    const auto padded = pad_and_split(comm, numbers);  // 3, 3 and 3
    std::vector<int> fixed;
    for (int number : padded) fixed.push_back(answer(prompts[static_cast<std::size_t>(number)]));
    const auto same = gather_trim(comm, fixed, prompts.size());  // the repeated ones are left out again
    // [pad]

    const auto shares = comm.exchange(mine.size());  // for the table: a plain value of every rank
    if (!comm.is_root()) return;
    std::printf("shares: %zu %zu %zu, padded to %zu\n", shares[0], shares[1], shares[2], padded.size());
    for (std::size_t i = 0; i < prompts.size(); ++i)
      std::printf("%d words: %s%s\n", all[i], prompts[i].c_str(), same[i] == all[i] ? "" : " (padded: different!)");
  });
}
