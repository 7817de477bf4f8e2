// Query, key and value projections with grouped heads, divided so that every rank holds the key/value heads that its
// query heads read, and the questions an attention kernel asks about its local heads.
//
//   const qkv_cut heads(9, 3, 64, comm.size());             9 query heads, 3 key/value heads of 64 elements
//   qkv_parallel_linear qkv(comm, weights, heads);          fused [q rows + k rows + v rows, hidden], or three
//   auto [q, k, v] = qkv.forward(x, y, gemm, stream);       y [rows, qkv.columns()]
//   ... attention over heads.heads(rank) heads; local head h reads local key/value head heads.kv_head(rank, h) ...
//   row_parallel_linear o(comm, o_weights, heads.q());      reads what the rank's query heads wrote
//
// Whole groups where their number allows it; where the ranks are a multiple of the key/value heads, these are
// replicated (9 and 3 heads over 6 ranks: 2,1,2,1,2,1 query heads, one key/value head each). In between, whole groups
// (over 2 ranks: 6,3; ranks left over hold no heads) or, with head_groups::split, even numbers of query heads (5,4).
#pragma once

#include <shardkit/tensor/packed_column_linear.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace shardkit {

/// Which rank holds which heads and which rows of the weights.
class qkv_cut {
 public:
  /// Throws usage_error where kv_heads does not divide heads.
  qkv_cut(std::size_t heads, std::size_t kv_heads, std::size_t head_size, int ranks,
          head_groups how = head_groups::whole)
      : groups_(grouped(heads, kv_heads, ranks, how)),
        rows_(segmented_partition::query_key_value(groups_, head_size)),
        group_(heads / kv_heads),
        head_size_(head_size) {}

  /// Elements of one head.
  std::size_t head_size() const noexcept { return head_size_; }
  /// Query heads of a rank.
  std::size_t heads(int rank) const noexcept { return groups_.heads.count(rank); }
  /// The first of them among all query heads.
  std::size_t first_head(int rank) const noexcept { return groups_.heads.offset(rank); }
  /// Key/value heads of a rank.
  std::size_t kv_heads(int rank) const noexcept { return groups_.kv_heads.count(rank); }
  /// The first of them among all key/value heads.
  std::size_t first_kv_head(int rank) const noexcept { return groups_.kv_heads.offset(rank); }
  /// The rank's key/value head, counted from its first, that its query head `head`, counted likewise, reads.
  std::size_t kv_head(int rank, std::size_t head) const noexcept {
    return (first_head(rank) + head) / group_ - first_kv_head(rank);
  }

  /// Rows of the query weights; also the input features of the output projection.
  const partition& q() const noexcept { return rows_.segments()[0]; }
  /// Rows of the key weights, and of the value weights. Ranges of ranks that share a head overlap.
  const partition& kv() const noexcept { return rows_.segments()[1]; }
  /// Rows of query, key and value weights in one matrix, in this order: for loading fused weights.
  const segmented_partition& rows() const noexcept { return rows_; }

 private:
  grouped_heads groups_;
  segmented_partition rows_;
  std::size_t group_, head_size_;
};

/// The projections of a rank's heads, side by side in one matrix.
template <class T, class Space = host_space>
struct qkv_shards {
  sharded<T, Space> q;  ///< [rows, heads * head_size]
  sharded<T, Space> k;  ///< [rows, kv_heads * head_size]
  sharded<T, Space> v;  ///< [rows, kv_heads * head_size]
};

/// Query, key and value projections in one call, from one fused weight or from three.
template <class Communicator, class Weights, class T = typename Weights::value_type>
class qkv_parallel_linear {
 public:
  using space = typename Communicator::space;
  using where = at<space>;

  /// `fused` [columns(), hidden]: the rank's query rows, below them its key rows, below them its value rows.
  qkv_parallel_linear(Communicator& comm, Weights fused, const qkv_cut& cut, fused_options<T, space> options = {},
                      call_site site = call_site::current())
      : packed_(comm, std::move(fused), cut.rows(), options, site) {}

  /// Three weights [q().count(rank), hidden] and twice [kv().count(rank), hidden], with biases of their own.
  qkv_parallel_linear(Communicator& comm, Weights q, Weights k, Weights v, const qkv_cut& cut,
                      separate_options<T, space> options = {}, call_site site = call_site::current())
      : packed_(comm, std::vector<Weights>{std::move(q), std::move(k), std::move(v)}, cut.rows(), std::move(options),
                site) {}

  /// Columns of y on this rank.
  std::size_t columns() const noexcept { return packed_.cut().count(packed_.communicator().rank()); }

  /// y [rows, columns()] from x [rows, hidden], replicated or plain; returns its parts. No communication.
  template <class X, class Y, class Gemm>
  qkv_shards<T, space> forward(const X& x, const Y& y, Gemm&& gemm, where w = {}) const {
    const auto parts = packed_.forward(x, y, gemm, w);
    return {parts[0], parts[1], parts[2]};
  }

 private:
  packed_column_linear<Communicator, Weights, T> packed_;
};

}  // namespace shardkit
