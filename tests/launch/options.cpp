// What run_ranks does to the threads of its ranks.
#include <doctest/doctest.h>
#include <shardkit/launch/run_ranks.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <unistd.h>

using shardkit::detail::cpu_list;

namespace {

/// A description of a machine as Linux gives it.
class machine {
 public:
  machine() : root_(std::filesystem::temp_directory_path() / ("shardkit-machine-" + std::to_string(::getpid()))) {}
  ~machine() { std::filesystem::remove_all(root_); }
  machine& file(const std::string& path, const std::string& line) {
    const auto whole = root_ / path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << line << "\n";
    return *this;
  }
  machine& siblings(int cpu, const std::string& list) {
    return file("cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", list);
  }
  std::string path() const { return root_.string(); }

 private:
  std::filesystem::path root_;
};

std::vector<cpu_list> seen_by_ranks(int ranks, shardkit::pinning pin) {
  shardkit::launch_options options;
  options.pin = pin;
  std::vector<cpu_list> seen(static_cast<std::size_t>(ranks));
  shardkit::run_ranks(ranks, options, [&](shardkit::thread_communicator& comm) {
    seen[static_cast<std::size_t>(comm.rank())] = shardkit::detail::allowed_cpus();
  });
  return seen;
}

}  // namespace

TEST_CASE("ranks pinned to cores have one processor each, all of them in use before any is shared") {
  const cpu_list allowed = shardkit::detail::allowed_cpus();
  const int ranks = static_cast<int>(allowed.size()) * 2 + 1;
  cpu_list used;
  for (const cpu_list& one : seen_by_ranks(ranks, shardkit::pinning::cores)) {
    REQUIRE(one.size() == 1);
    used.push_back(one.front());
  }
  for (const int cpu : allowed) CHECK(std::count(used.begin(), used.end(), cpu) >= 2);
  CHECK(shardkit::detail::allowed_cpus() == allowed);
  for (const cpu_list& one : seen_by_ranks(2, shardkit::pinning::none)) CHECK(one == allowed);
  for (const cpu_list& one : seen_by_ranks(3, shardkit::pinning::numa_nodes)) {
    CHECK(!one.empty());
    CHECK(std::includes(allowed.begin(), allowed.end(), one.begin(), one.end()));
  }
}

TEST_CASE("cores come before their second hardware threads, and only those that are allowed") {
  machine simulated;
  // Two cores with two threads each, numbered as most systems do; the process may not use processor 0.
  simulated.siblings(0, "0,2").siblings(1, "1,3").siblings(2, "0,2").siblings(3, "1,3");
  const auto order = [&](const cpu_list& allowed) {
    cpu_list result;
    for (const auto& one : shardkit::detail::one_cpu_each(5, allowed, simulated.path())) result.push_back(one.front());
    return result;
  };
  CHECK(order({0, 1, 2, 3}) == cpu_list{0, 1, 2, 3, 0});
  CHECK(order({1, 2, 3}) == cpu_list{1, 2, 3, 1, 2});
  simulated.siblings(0, "0-1").siblings(1, "0-1").siblings(2, "2-3").siblings(3, "2-3");
  CHECK(order({0, 1, 2, 3}) == cpu_list{0, 2, 1, 3, 0});
  CHECK(shardkit::detail::one_cpu_each(2, {7}, "/nowhere") == std::vector<cpu_list>{{7}, {7}});
}

TEST_CASE("ranks are dealt out over NUMA nodes in neighbouring groups") {
  machine simulated;
  simulated.file("node/online", "0-1,3").file("node/node0/cpulist", "0-3").file("node/node1/cpulist", "4-7");
  simulated.file("node/node3/cpulist", "8-11");
  const cpu_list all{0, 1, 2, 3, 4, 5, 6, 7};  // nothing of node 3
  const cpu_list first{0, 1, 2, 3}, second{4, 5, 6, 7};
  CHECK(shardkit::detail::one_node_each(5, all, simulated.path()) ==
        std::vector<cpu_list>{first, first, first, second, second});
  CHECK(shardkit::detail::one_node_each(1, all, simulated.path()) == std::vector<cpu_list>{first});
  CHECK(shardkit::detail::one_node_each(2, {5}, simulated.path()) == std::vector<cpu_list>{{5}, {5}});
  CHECK(shardkit::detail::one_node_each(2, all, "/nowhere") == std::vector<cpu_list>{all, all});
}

TEST_CASE("a hook runs on each rank's thread before its function") {
  static thread_local int blas_threads = 8;
  shardkit::launch_options options;
  options.on_rank_start = [](int rank, int size) { blas_threads = rank * 10 + size; };
  std::vector<int> seen(3);
  shardkit::run_ranks(3, options, [&](shardkit::thread_communicator& comm) {
    seen[static_cast<std::size_t>(comm.rank())] = blas_threads;
  });
  CHECK(seen == std::vector<int>{3, 13, 23});
  CHECK(blas_threads == 8);
}

TEST_CASE("a hook that throws fails its rank, and the others do not wait for it") {
  shardkit::launch_options options;
  options.on_failure = {};
  options.on_rank_start = [](int rank, int) {
    if (rank == 1) throw std::runtime_error("no such library");
  };
  CHECK_THROWS_WITH_AS(shardkit::run_ranks(3, options, [](shardkit::thread_communicator& comm) { comm.barrier(); }),
                       "no such library", std::runtime_error);
}
