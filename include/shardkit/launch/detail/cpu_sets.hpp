// Which processors a rank's thread gets: read from what this process may use and from the system's description of cores
// and NUMA nodes.
#pragma once

#include <shardkit/core/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <sched.h>

namespace shardkit::detail {

using cpu_list = std::vector<int>;

/// The processors that the calling thread may run on.
inline cpu_list allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    throw unsupported_error(std::string("pinning: the processors of this process cannot be told: ") +
                            std::strerror(errno));
  cpu_list cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

inline void run_on(const cpu_list& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0)
    throw unsupported_error(std::string("pinning: this thread cannot be bound to its processors: ") +
                            std::strerror(errno));
}

/// The first line of a file of the system; empty where there is none.
inline std::string first_line(const std::string& path) {
  std::string line;
  if (std::FILE* in = std::fopen(path.c_str(), "r")) {
    for (int c = std::fgetc(in); c != EOF && c != '\n'; c = std::fgetc(in)) line += static_cast<char>(c);
    std::fclose(in);
  }
  return line;
}

/// "0-3,8,10-11" as numbers.
inline cpu_list parse_cpu_list(const std::string& text) {
  cpu_list cpus;
  for (const char* at = text.c_str(); *at != '\0';) {
    char* end = nullptr;
    const long first = std::strtol(at, &end, 10);
    if (end == at) break;
    long last = first;
    if (*end == '-') last = std::strtol(end + 1, &end, 10);
    for (long cpu = first; cpu <= last && cpu < CPU_SETSIZE; ++cpu) cpus.push_back(static_cast<int>(cpu));
    at = *end == ',' ? end + 1 : end;
  }
  return cpus;
}

/// For each rank one processor: cores of their own first, then the other hardware threads of the cores, then again.
inline std::vector<cpu_list> one_cpu_each(int ranks, const cpu_list& allowed, const std::string& system) {
  std::vector<std::pair<std::size_t, int>> ordered;  // which of its core's threads, and the processor
  for (const int cpu : allowed) {
    const cpu_list siblings =
        parse_cpu_list(first_line(system + "/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list"));
    std::size_t before = 0;
    for (const int other : siblings)
      if (other < cpu && std::find(allowed.begin(), allowed.end(), other) != allowed.end()) ++before;
    ordered.emplace_back(before, cpu);
  }
  std::sort(ordered.begin(), ordered.end());
  std::vector<cpu_list> result;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks); ++rank)
    result.push_back({ordered[rank % ordered.size()].second});
  return result;
}

/// For each rank the processors of one NUMA node: neighbouring ranks share one, all get about as many ranks.
inline std::vector<cpu_list> one_node_each(int ranks, const cpu_list& allowed, const std::string& system) {
  std::vector<cpu_list> nodes;
  for (const int node : parse_cpu_list(first_line(system + "/node/online"))) {
    cpu_list cpus;
    for (const int cpu : parse_cpu_list(first_line(system + "/node/node" + std::to_string(node) + "/cpulist")))
      if (std::find(allowed.begin(), allowed.end(), cpu) != allowed.end()) cpus.push_back(cpu);
    if (!cpus.empty()) nodes.push_back(cpus);
  }
  if (nodes.empty()) nodes.push_back(allowed);
  std::vector<cpu_list> result;
  const std::size_t count = static_cast<std::size_t>(ranks);
  for (std::size_t rank = 0; rank < count; ++rank) result.push_back(nodes[rank * nodes.size() / count]);
  return result;
}

}  // namespace shardkit::detail
