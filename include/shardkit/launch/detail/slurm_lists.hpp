// Slurm's compressed lists, as far as a launch needs them.
#pragma once

#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstdlib>
#include <string>

namespace shardkit::detail {

/// The first host of a list such as "gpu[003-007,12]-b,login1": "gpu003-b". Throws usage_error for what is no list.
inline std::string first_host(const std::string& list) {
  const auto refuse = [&] {
    throw usage_error("launch environment: SLURM_STEP_NODELIST is '" + list +
                      "', which is not a list of hosts; set SHARDKIT_HOST to the host of rank 0");
  };
  std::string host;
  for (std::size_t at = 0; at < list.size() && list[at] != ','; ++at) {
    if (list[at] != '[') {
      host += list[at];
      continue;
    }
    const std::size_t close = list.find(']', at), first = at + 1;
    const std::size_t end = list.find_first_not_of("0123456789", first);
    if (close == std::string::npos || end == first || end > close) refuse();
    host.append(list, first, end - first);
    at = close;
  }
  if (host.empty() || host.find_first_of("] \t") != std::string::npos) refuse();
  return host;
}

/// How many tasks node `node` has by a list such as "4(x2),3"; -1 where the list does not say.
inline int tasks_of_node(const std::string& list, int node) {
  for (const char* at = list.c_str(); *at != '\0';) {
    char* end = nullptr;
    const long tasks = std::strtol(at, &end, 10);
    if (end == at || tasks < 1 || tasks > 0x7fffffff) return -1;
    long nodes = 1;
    if (end[0] == '(' && end[1] == 'x') {
      at = end + 2;
      nodes = std::strtol(at, &end, 10);
      if (end == at || nodes < 1 || *end != ')') return -1;
      ++end;
    }
    if (node < nodes) return static_cast<int>(tasks);
    node -= static_cast<int>(nodes);
    if (*end == ',') ++end;
    else if (*end != '\0') return -1;
    at = end;
  }
  return -1;
}

}  // namespace shardkit::detail
