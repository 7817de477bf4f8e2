// What all bootstraps say in the same words.
#pragma once

#include <shardkit/comm/bootstrap.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace shardkit::detail {

inline std::string absent_ranks(const std::vector<int>& missing, int size, double seconds) {
  std::string text = missing.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < missing.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(missing[i]);
  return text + " of " + std::to_string(size) + " did not come within the init deadline of " + std::to_string(seconds) +
         " s; were they started, with the same size and token?";
}

inline void require_bootstrap_length(std::size_t bytes) {
  if (bytes > bootstrap::largest_blob)
    throw usage_error("bootstrap: a blob of " + std::to_string(bytes) + " bytes; at most " +
                      std::to_string(bootstrap::largest_blob));
}
inline void require_bootstrap_rank(int rank, int size) {
  if (size < 1 || rank < 0 || rank >= size)
    throw usage_error("bootstrap: rank " + std::to_string(rank) + " of " + std::to_string(size) +
                      "; ranks count from 0 and stay below the size");
}

}  // namespace shardkit::detail
