// Questions to all ranks at once: does any say yes, do all, and do they hold the same data?
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace shardkit {

/// Collective: whether any rank passes true.
template <class Communicator>
bool any_of(Communicator& comm, bool mine, typename Communicator::where w = {}) {
  const std::vector<char> all = comm.exchange(static_cast<char>(mine), w);
  return std::any_of(all.begin(), all.end(), [](char one) { return one != 0; });
}

/// Collective: whether all ranks pass true.
template <class Communicator>
bool all_of(Communicator& comm, bool mine, typename Communicator::where w = {}) {
  return !any_of(comm, !mine, w);
}

namespace detail {

/// Shape and bytes of a matrix of the host, small enough to be exchanged. Rows are compared in parts, so that the error
/// says where they differ.
struct content_summary {
  static constexpr std::size_t parts = 16;

  std::uint64_t rows = 0, columns = 0;
  std::uint64_t type = 0;  // a dtype, or `untyped` plus the size of an element that has none
  static constexpr std::uint64_t untyped = 256;
  std::uint64_t hashes[parts] = {};

  bool same_shape(const content_summary& other) const noexcept {
    return rows == other.rows && columns == other.columns && type == other.type;
  }
  bool operator==(const content_summary& other) const noexcept {
    return same_shape(other) && std::equal(hashes, hashes + parts, other.hashes);
  }
  std::string shape() const {
    return std::to_string(rows) + " x " + std::to_string(columns) + " of " +
           (type < untyped ? name_of(static_cast<dtype>(type)) : std::to_string(type - untyped) + " bytes each");
  }
};

// Eight bytes at a time; each step is invertible, so that a difference in one of them cannot vanish by itself.
inline std::uint64_t hash_bytes(std::uint64_t hash, const void* data, std::size_t bytes) noexcept {
  const char* at = static_cast<const char*>(data);
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  };
  for (; bytes >= 8; bytes -= 8, at += 8) {
    std::uint64_t word;
    std::memcpy(&word, at, sizeof word);
    mix(word);
  }
  std::uint64_t rest = 0;
  if (bytes != 0) std::memcpy(&rest, at, bytes);
  mix(rest + (std::uint64_t{bytes} << 56));
  return hash;
}

template <class T>
content_summary summary_of(matrix_view<const T, host_space> x) {
  static_assert(std::is_trivially_copyable<T>::value, "shardkit: verify_same compares plain elements");
  content_summary summary;
  summary.rows = x.rows();
  summary.columns = x.columns();
  if constexpr (has_dtype<T>::value) summary.type = static_cast<std::uint64_t>(dtype_of<T>);
  else summary.type = content_summary::untyped + sizeof(T);
  // One row is cut by columns, more by rows.
  const partition cut = partition::balanced(x.rows() == 1 ? x.columns() : x.rows(), content_summary::parts);
  for (int part = 0; part < cut.parts(); ++part) {
    std::uint64_t hash = 1;
    if (x.rows() == 1) hash = hash_bytes(hash, x.data() + cut.offset(part), cut.count(part) * sizeof(T));
    else
      for (std::size_t row = cut.offset(part); row < cut.offset(part) + cut.count(part); ++row)
        hash = hash_bytes(hash, x.row(row).data(), x.columns() * sizeof(T));
    summary.hashes[part] = hash;
  }
  return summary;
}

inline std::string list_of(const std::vector<std::size_t>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  return text;
}

/// Empty where all are the same, else who differs in what from what most have.
inline std::string difference_of(const std::vector<content_summary>& all) {
  std::size_t most = 0, reference = 0;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    const auto alike = static_cast<std::size_t>(std::count(all.begin(), all.end(), all[rank]));
    if (alike > most) {
      most = alike;
      reference = rank;
    }
  }
  if (most == all.size()) return {};
  std::string text;
  std::vector<bool> told(all.size());
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (told[rank] || all[rank] == all[reference]) continue;
    std::vector<std::size_t> group;
    for (std::size_t other = rank; other < all.size(); ++other)
      if (all[other] == all[rank]) {
        group.push_back(other);
        told[other] = true;
      }
    if (!text.empty()) text += "; ";
    text += list_of(group);
    if (!all[rank].same_shape(all[reference])) {
      text += (group.size() == 1 ? " has " : " have ") + all[rank].shape() + ", rank " + std::to_string(reference) +
              " " + all[reference].shape();
      continue;
    }
    const bool by_columns = all[rank].rows == 1;
    const partition cut = partition::balanced(by_columns ? all[rank].columns : all[rank].rows, content_summary::parts);
    int first = 0;
    while (all[rank].hashes[first] == all[reference].hashes[first]) ++first;
    text += (group.size() == 1 ? " differs" : " differ") + std::string(" from rank ") + std::to_string(reference) +
            ", first within " + (by_columns ? "elements " : "rows ") + std::to_string(cut.offset(first)) + " to " +
            std::to_string(cut.offset(first) + cut.count(first) - 1);
  }
  return text;
}

}  // namespace detail

/// Collective: throws mismatch_error on every rank unless all pass the same type, shape and bytes (so NaN equals NaN
/// and -0 differs from +0). The error names the ranks that differ from what most have, and what differs; `what` is for
/// its text. The communicator is as good as before. Bytes are compared by 64-bit hashes.
///
///     verify_same(comm, weights, "the embedding table");
template <class Communicator, class T>
void verify_same(Communicator& comm, matrix_view<T, host_space> data, const std::string& what,
                 typename Communicator::where w = {}) {
  using element = std::remove_const_t<T>;
  const auto all = comm.exchange(detail::summary_of(matrix_view<const element, host_space>(data)), w);
  const std::string difference = detail::difference_of(all);
  if (difference.empty()) return;
  mismatch_error failure(what + " is not the same on all ranks: " + difference);
  comm.explain(failure, "verify_same", w.site);
  throw failure;
}
/// The same for one row: a vector, span or view of the host.
template <class Communicator, class Data>
void verify_same(Communicator& comm, const Data& data, const std::string& what, typename Communicator::where w = {}) {
  const auto x = detail::input_of<host_space>(data);
  verify_same(comm, matrix_view(x.data(), 1, x.size()), what, w);
}

}  // namespace shardkit
