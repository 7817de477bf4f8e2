// A communicator of some ranks, given as a list.
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// Collective over all ranks of `comm`: a communicator of those listed, in the order of the list; empty on the others.
/// The list is the same on every rank. Throws mismatch_error on every rank where it is not, and usage_error where it is
/// empty, names a rank twice, or names one that does not exist.
template <class Backend>
std::optional<communicator<Backend>> subset(communicator<Backend>& comm, const std::vector<int>& ranks,
                                            std::string name = {}, typename communicator<Backend>::where w = {}) {
  std::string listed;
  std::uint64_t fingerprint = 0xcbf29ce484222325u;  // FNV-1a
  std::vector<bool> taken(static_cast<std::size_t>(comm.size()));
  std::string wrong = ranks.empty() ? "the list of ranks is empty" : "";
  for (const int rank : ranks) {
    listed += (listed.empty() ? "" : ",") + std::to_string(rank);
    fingerprint = (fingerprint ^ static_cast<std::uint32_t>(rank)) * 0x100000001b3u;
    if (rank < 0 || rank >= comm.size()) {
      wrong = "rank " + std::to_string(rank) + " is not a rank of '" + comm.name() + "', which has " +
              std::to_string(comm.size());
      break;
    }
    if (taken[static_cast<std::size_t>(rank)]) wrong = "rank " + std::to_string(rank) + " is listed twice";
    taken[static_cast<std::size_t>(rank)] = true;
  }
  if (!wrong.empty()) {
    comm.fail("subset: " + wrong);
    throw usage_error("subset: " + wrong);
  }
  const std::vector<std::uint64_t> all = comm.exchange(fingerprint, w);
  for (std::size_t rank = 1; rank < all.size(); ++rank)
    if (all[rank] != all[0])
      throw mismatch_error("subset: rank 0 and rank " + std::to_string(rank) + " list different ranks; rank " +
                           std::to_string(comm.rank()) + " lists " + listed);

  const auto place = std::find(ranks.begin(), ranks.end(), comm.rank());
  const bool is_listed = place != ranks.end();
  if (name.empty()) name = comm.name() + "/" + listed;
  // The others form a communicator, too, because a split leaves nobody out.
  auto part = comm.split(is_listed ? 0 : 1, static_cast<int>(place - ranks.begin()), std::move(name), w);
  if (!is_listed) return std::nullopt;
  return std::optional<communicator<Backend>>(std::move(part));
}

}  // namespace shardkit
