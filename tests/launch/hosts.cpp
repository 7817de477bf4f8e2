// The same program on two hosts: network namespaces of this one, where that is permitted.
#include <doctest/doctest.h>
#include "started.hpp"

#include <chrono>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

namespace {

/// Two hosts with a cable between them.
class two_hosts {
 public:
  two_hosts() {
    const std::string cable = "skv" + std::to_string(::getpid());
    // Where anything of this is not permitted, nothing is left behind.
    usable_ = shell("ip netns add " + first_ + " && ip netns add " + second_ + " && ip link add " + cable + "a netns " +
                    first_ + " type veth peer name " + cable + "b netns " + second_) &&
              shell("ip -n " + first_ + " addr add 10.213.7.1/24 dev " + cable + "a && ip -n " + second_ +
                    " addr add 10.213.7.2/24 dev " + cable + "b && ip -n " + first_ + " link set " + cable +
                    "a up && ip -n " + second_ + " link set " + cable + "b up");
    cable_ = cable + "b";
  }
  two_hosts(const two_hosts&) = delete;
  two_hosts& operator=(const two_hosts&) = delete;
  ~two_hosts() {
    shell("ip netns del " + first_);
    shell("ip netns del " + second_);
  }

  bool usable() const { return usable_; }
  std::string on(int rank) const { return "ip netns exec " + (rank == 0 ? first_ : second_) + " "; }
  void cut() const { shell("ip -n " + second_ + " link set " + cable_ + " down"); }

  std::vector<outcome> run(
      int size, const std::string& arguments, const std::function<void()>& meanwhile = [] {}) const {
    std::vector<std::string> commands;
    const std::string job = std::to_string(::getpid()) + std::to_string(++launches_);
    for (int rank = 0; rank < size; ++rank)
      commands.push_back(on(rank) + step(rank, size, "10.213.7.[1-2]", job) + program + " " + arguments);
    return together(commands, meanwhile);
  }

 private:
  static bool shell(const std::string& command) { return run_command("sh -c '" + command + "'").status == 0; }

  const std::string first_ = "shardkit-" + std::to_string(::getpid()) + "-1";
  const std::string second_ = "shardkit-" + std::to_string(::getpid()) + "-2";
  std::string cable_;
  bool usable_ = false;
  mutable int launches_ = 0;
};

}  // namespace

TEST_CASE("ranks on two hosts: a sum, a process that is killed, a cable that is cut") {
  const two_hosts hosts;
  if (!hosts.usable()) {
    std::cout << "skipped: this user may not make network namespaces (ip netns)\n";
    return;
  }
  for (const outcome& one : hosts.run(3, "sum")) {
    CAPTURE(one.output);
    CHECK(one.status == 0);
    CHECK(one.says("of 3: sum 6"));
  }
  const auto killed = hosts.run(3, "killed");
  for (const std::size_t rank : {0u, 2u}) {
    CAPTURE(killed[rank].output);
    CHECK(killed[rank].status == 3);
    CHECK(killed[rank].says("rank 1 failed: its connection closed"));
  }
  // No message tells that a cable is cut: deadlines do, on both of its sides.
  const auto cut = hosts.run(2, "goes-on 1.5", [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    hosts.cut();
  });
  for (const outcome& one : cut) {
    CAPTURE(one.output);
    CHECK(one.status == 3);
    CHECK(one.says("of 2: sum 3"));
    CHECK(one.says("did not arrive in barrier()"));
    CHECK(one.seconds < 12);
  }
}
