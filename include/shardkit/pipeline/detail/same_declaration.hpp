// Finds at construction what would otherwise be a wrong size or a wrong meaning in the middle of a run.
#pragma once

#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace shardkit::detail {

/// Collective: every rank throws usage_error, naming the first rank that differs from rank 0, unless all have given the
/// same text. The communicator stays usable.
template <class Communicator>
void require_same_declaration(Communicator& comm, const char* operation, const std::string& text,
                              typename Communicator::where w) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  const std::vector<std::uint64_t> hashes = comm.exchange(hash, w);
  std::size_t odd = 1;
  while (odd < hashes.size() && hashes[odd] == hashes[0]) ++odd;
  if (odd >= hashes.size()) return;

  struct excerpt {
    char characters[256];
  } mine{};
  text.copy(mine.characters, sizeof mine.characters - 1);
  const std::vector<excerpt> all = comm.exchange(mine, w);
  usage_error wrong("rank " + std::to_string(odd) + " declares " + all[odd].characters + ", and rank 0 declares " +
                    all[0].characters + "; declare the same on every rank");
  comm.explain(wrong, operation, w.site);
  throw wrong;
}

}  // namespace shardkit::detail
