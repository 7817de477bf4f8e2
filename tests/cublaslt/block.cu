// The layers with the kernels of nvcc, and the stand-ins that the double needs for these.
#include "../cuda/kernels.cu"
#include "block.hpp"

#include <shardkit/tensor/gated_mlp.hpp>
#include <shardkit/tensor/qkv.hpp>
#include <shardkit/tensor/vocabulary.hpp>

namespace cublaslt_tests {

using namespace shardkit;

namespace {

/// Integers in device memory.
struct integers {
  explicit integers(std::size_t count) : memory(count) {}
  integers(const std::vector<std::int32_t>& from, cudaStream_t stream) : integers(from.size()) {
    cuda_space::copy(memory.data(), from.data(), from.size() * sizeof(std::int32_t), stream);
  }
  std::vector<std::int32_t> fetch(cudaStream_t stream) const {
    std::vector<std::int32_t> result(memory.size());
    cuda_space::copy(result.data(), memory.data(), result.size() * sizeof(std::int32_t), stream);
    cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize", stream);
    return result;
  }
  buffer<std::int32_t, cuda_space> memory;
};

/// The rank's rows of query, key and value weights, one below the other; a bias is a column of these.
dense::matrix fused_rows(const dense::matrix& all, const segmented_partition& cut, int rank) {
  dense::matrix result(cut.count(rank), all.columns);
  for (std::size_t segment = 0; segment < cut.segments().size(); ++segment) {
    const segment_range range = cut.range(rank, segment);
    for (std::size_t i = 0; i < range.count; ++i)
      for (std::size_t c = 0; c < all.columns; ++c) result(range.shard_offset + i, c) = all(range.source_offset + i, c);
  }
  return result;
}

dense::matrix below(const dense::matrix& a, const dense::matrix& b) {
  dense::matrix result(a.rows + b.rows, a.columns);
  result.values = a.values;
  result.values.insert(result.values.end(), b.values.begin(), b.values.end());
  return result;
}
dense::matrix turned(const dense::matrix& row) {
  dense::matrix result(row.columns, row.rows);
  result.values = row.values;
  return result;
}

template <class T>
dense::matrix fetched(matrix_view<T, cuda_space> of, cudaStream_t stream) {
  dense::matrix result(of.rows(), of.columns());
  std::vector<T> values(of.rows() * of.columns());
  cuda_space::copy_2d(values.data(), of.columns() * sizeof(T), of.data(), of.row_stride() * sizeof(T),
                      of.columns() * sizeof(T), of.rows(), stream);
  cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize", stream);
  for (std::size_t i = 0; i < values.size(); ++i) result.values[i] = static_cast<double>(static_cast<float>(values[i]));
  return result;
}

}  // namespace

template <class T>
answers run_block(const block& b, device_communicator& comm, cudaStream_t stream, bool fused, bool bias_in_gemm) {
  const int rank = comm.rank();
  const std::size_t rows = b.rows(), hidden = block::hidden;
  const partition words = partition::balanced(block::words, comm.size());
  const partition features = partition::balanced(block::features, comm.size());
  const partition wide = partition::block(block::wide, comm.size());
  const qkv_cut heads(block::heads, block::kv_heads, block::head_size, comm.size());
  const bias_placement placement = bias_in_gemm ? bias_placement::rank0_epilogue : bias_placement::after_reduce;

  const dense::matrix qkv_all = below(b.q, b.kv);
  const dense::matrix qkv_rows = fused_rows(qkv_all, heads.rows(), rank);
  const dense::matrix bias_rows = fused_rows(turned(b.qkv_bias), heads.rows(), rank);
  const on_device<T> table(b.table, words.offset(rank), words.count(rank), 0, hidden, stream);
  const on_device<T> qkv_weights(qkv_rows, stream), qkv_bias(turned(bias_rows), stream);
  const on_device<T> o_weights(b.o, 0, hidden, heads.q().offset(rank), heads.q().count(rank), stream, 1);
  const on_device<T> o_bias(b.o_bias, stream);
  const on_device<T> gate(b.gate, features.offset(rank), features.count(rank), 0, hidden, stream);
  const on_device<T> up(b.up, features.offset(rank), features.count(rank), 0, hidden, stream);
  const on_device<T> down(b.down, 0, hidden, features.offset(rank), features.count(rank), stream);
  const on_device<T> wide_weights(b.head, wide.offset(rank), wide.count(rank), 0, hidden, stream);
  const on_device<T> wide_bias(b.head_bias, 0, 1, wide.offset(rank), wide.count(rank), stream);
  const integers ids(b.ids, stream);

  using weights_view = matrix_view<const T, cuda_space>;
  const vocabulary_embedding embedding(comm, table.view(), words);
  const segment_range q = heads.rows().range(rank, 0), k = heads.rows().range(rank, 1), v = heads.rows().range(rank, 2);
  const auto rows_of = [&](const segment_range& range) {
    return qkv_weights.view().row_range(range.shard_offset, range.count);
  };
  const auto bias_of = [&](const segment_range& range) {
    return qkv_bias.flat().subview(range.shard_offset, range.count);
  };
  using qkv_layer = qkv_parallel_linear<device_communicator, weights_view>;
  const qkv_layer qkv = fused ? qkv_layer(comm, qkv_weights.view(), heads, {.bias = qkv_bias.flat()})
                              : qkv_layer(comm, rows_of(q), rows_of(k), rows_of(v), heads,
                                          {.biases = {bias_of(q), bias_of(k), bias_of(v)}});
  const row_parallel_linear o(comm, o_weights.view(), heads.q(), {.bias = o_bias.flat(), .placement = placement});
  const gated_mlp mlp(comm, gate.view(), up.view(), down.view(), features);
  const column_parallel_linear last(comm, wide_weights.view(), wide, {.bias = wide_bias.flat()});
  const vocabulary_head head(comm, table.view(), words);

  const dense::matrix zeros(rows, 64);
  const auto memory = [&](std::size_t columns, std::size_t gap = 0) {
    return on_device<T>(zeros, 0, rows, 0, columns, stream, gap);
  };
  on_device<T> x = memory(hidden), projections = memory(qkv.columns(), 1), y = memory(hidden), z = memory(hidden),
               logits = memory(words.count(rank)), whole = memory(block::wide, 2), values = memory(block::k);
  integers best(rows), top(rows * block::k);
  buffer<std::byte, cuda_space> workspace(1 << 14), scratch(1 << 16);
  cublaslt_gemm gemm({.workspace = view_of(scratch)});

  const auto embedded = embedding.forward(view_of(ids.memory), x.view(), stream);
  const auto parts = qkv.forward(embedded, projections.view(), gemm, stream);
  const auto attended = o.forward(parts.q, y.view(), gemm, embedded.data, stream);
  const auto fed = mlp.forward(attended, z.view(), gemm, silu_multiply(), view_of(workspace), attended.data, stream);
  last.forward_gathered(fed, whole.view(), gemm, view_of(workspace), stream);
  const auto made = head.local_logits(fed, logits.view(), gemm, stream);
  head.argmax(made, view_of(best.memory), view_of(workspace), stream);
  head.top_k(made, values.view(), matrix_view<std::int32_t, cuda_space>(top.memory.data(), rows, block::k),
             view_of(workspace), stream);
  return {fetched<T>(x.view(), stream),
          fetched<T>(parts.q.data, stream),
          fetched<T>(parts.k.data, stream),
          fetched<T>(parts.v.data, stream),
          fetched<T>(y.view(), stream),
          fetched<T>(z.view(), stream),
          fetched<T>(whole.view(), stream),
          fetched<T>(values.view(), stream),
          best.fetch(stream),
          top.fetch(stream)};
}
template answers run_block<float>(const block&, device_communicator&, cudaStream_t, bool, bool);
template answers run_block<bfloat16>(const block&, device_communicator&, cudaStream_t, bool, bool);

void set_kernels() { cuda_tests::set_kernel_stand_ins(); }

void feed_forward::enqueue(device_communicator& comm, cudaStream_t stream) {
  const column_parallel_linear wide(comm, up.view(), cut, {.bias = up_bias.flat()});
  const row_parallel_linear narrow(comm, down.view(), cut, {.bias = down_bias.flat()});
  narrow.forward(wide.forward(x.view(), inner.view(), gemm, stream), y.view(), gemm, stream);
}

void feed_forward::add_bias(cudaStream_t stream) {
  operations<cuda_space>::add_bias(y.view(), down_bias.flat(), stream);
}

}  // namespace cublaslt_tests
