// A communicator of some ranks, given as a list.
#pragma once

#include <shardkit/comm/agreement.hpp>

#include <algorithm>
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
  std::vector<bool> taken(static_cast<std::size_t>(comm.size()));
  std::string wrong = ranks.empty() ? "the list of ranks is empty; name at least one" : "";
  for (const int rank : ranks) {
    if (!listed.empty()) listed += ',';
    listed += std::to_string(rank);
    if (rank < 0 || rank >= comm.size()) {
      wrong = detail::not_a_rank("rank", rank, comm.size());
      break;
    }
    if (taken[static_cast<std::size_t>(rank)])
      wrong = "rank " + std::to_string(rank) + " is listed twice; name each once";
    taken[static_cast<std::size_t>(rank)] = true;
  }
  if (!wrong.empty()) comm.reject("subset", wrong, w);
  verify_same(comm, ranks, "subset: the list of ranks", w);

  const auto place = std::find(ranks.begin(), ranks.end(), comm.rank());
  const bool is_listed = place != ranks.end();
  if (name.empty()) name = comm.name() + "/" + listed;
  // The others form a communicator, too, because a split leaves nobody out.
  auto part = comm.split(is_listed ? 0 : 1, static_cast<int>(place - ranks.begin()), std::move(name), w);
  if (!is_listed) return std::nullopt;
  return std::optional<communicator<Backend>>(std::move(part));
}

}  // namespace shardkit
