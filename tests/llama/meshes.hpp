// The meshes on which the results must be the same.
#pragma once

#include "program.hpp"

namespace llama_test {

/// 9 heads and 3 key/value heads over 2, 3, 4 (one rank has no heads) and 6 ranks (key/value heads shared by two), 5
/// layers over 2, 3 and 5 stages, replicas, and mixtures.
inline constexpr mesh meshes[] = {{1, 1, 1}, {2, 1, 1}, {3, 1, 1}, {4, 1, 1}, {6, 1, 1}, {1, 2, 1}, {1, 3, 1},
                                  {1, 5, 1}, {2, 2, 1}, {2, 1, 2}, {1, 1, 3}, {1, 2, 2}, {3, 2, 1}};

}  // namespace llama_test
