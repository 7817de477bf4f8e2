// Host bytes of a length that differs between ranks, over any communicator: names, tokens, serialised metadata.
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

namespace shardkit {

namespace detail {

template <class Communicator>
void require_rank(Communicator& comm, const char* operation, int rank, const typename Communicator::where& w) {
  if (rank >= 0 && rank < comm.size()) return;
  comm.reject(operation, not_a_rank("rank", rank, comm.size()), w);
}

/// A string, or a vector of one-byte elements.
template <class Blob>
inline constexpr bool is_blob = std::is_trivially_copyable<typename Blob::value_type>::value &&
                                sizeof(typename Blob::value_type) == 1;

template <class Blob>
view<const std::byte> bytes_of(const Blob& blob) {
  return {reinterpret_cast<const std::byte*>(blob.data()), blob.size()};
}
template <class Blob>
view<std::byte> bytes_of(Blob& blob) {
  return {reinterpret_cast<std::byte*>(blob.data()), blob.size()};
}

// Where buffers lie on a device: bytes go in pieces as metadata, which travels on the host.
struct blob_piece {
  std::byte bytes[4096];
};
template <class Communicator, class Take>
void exchange_pieces(Communicator& comm, view<const std::byte> mine, std::size_t longest, Take take,
                     typename Communicator::where w) {
  for (std::size_t first = 0; first < longest; first += sizeof(blob_piece)) {
    blob_piece piece{};
    if (first < mine.size()) std::memcpy(piece.bytes, mine.data() + first, std::min(sizeof piece, mine.size() - first));
    const auto all = comm.exchange(piece, w);
    for (std::size_t rank = 0; rank < all.size(); ++rank) take(rank, first, all[rank].bytes);
  }
}
inline void put_piece(view<std::byte> to, std::size_t first, const std::byte* piece) {
  if (first < to.size()) std::memcpy(to.data() + first, piece, std::min(sizeof(blob_piece), to.size() - first));
}

}  // namespace detail

/// Collective: element r of the result is rank r's `mine`, a std::string or a vector of one-byte elements. Lengths may
/// differ, 0 included.
template <class Communicator, class Blob>
std::vector<Blob> all_gather_bytes(Communicator& comm, const Blob& mine, typename Communicator::where w = {}) {
  static_assert(detail::is_blob<Blob>,
                "shardkit: all_gather_bytes takes a std::string or a vector of one-byte elements");
  const std::vector<std::size_t> lengths = comm.exchange(mine.size(), w);
  std::vector<Blob> all(lengths.size());
  for (std::size_t rank = 0; rank < all.size(); ++rank) all[rank].resize(lengths[rank]);
  if constexpr (std::is_same<typename Communicator::space, host_space>::value) {
    const partition layout = partition::from_counts(lengths);
    std::vector<std::byte> joined(layout.total());
    comm.all_gather(detail::bytes_of(mine), joined, layout, w);
    for (std::size_t rank = 0; rank < all.size(); ++rank)
      host_space::copy(all[rank].data(), joined.data() + layout.offset(static_cast<int>(rank)), lengths[rank]);
  } else {
    const std::size_t longest = *std::max_element(lengths.begin(), lengths.end());
    detail::exchange_pieces(
        comm, detail::bytes_of(mine), longest,
        [&](std::size_t rank, std::size_t first, const std::byte* piece) {
          detail::put_piece(detail::bytes_of(all[rank]), first, piece);
        },
        w);
  }
  return all;
}

/// Collective: returns the root's `blob` on every rank, a std::string or a vector of one-byte elements; what others
/// pass is ignored.
template <class Communicator, class Blob>
Blob broadcast_bytes(Communicator& comm, Blob blob, int root = 0, typename Communicator::where w = {}) {
  static_assert(detail::is_blob<Blob>,
                "shardkit: broadcast_bytes takes a std::string or a vector of one-byte elements");
  detail::require_rank(comm, "broadcast_bytes", root, w);
  if constexpr (std::is_same<typename Communicator::space, host_space>::value) {
    std::size_t length = blob.size();
    comm.broadcast(view(&length, 1), root, w);
    blob.resize(length);
    comm.broadcast(detail::bytes_of(blob), root, w);
  } else {
    const std::size_t length = comm.exchange(blob.size(), w)[static_cast<std::size_t>(root)];
    blob.resize(length);
    const Blob mine = blob;
    detail::exchange_pieces(
        comm, detail::bytes_of(mine), length,
        [&](std::size_t rank, std::size_t first, const std::byte* piece) {
          if (rank == static_cast<std::size_t>(root)) detail::put_piece(detail::bytes_of(blob), first, piece);
        },
        w);
  }
  return blob;
}

}  // namespace shardkit
