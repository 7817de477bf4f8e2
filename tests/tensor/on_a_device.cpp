// The layers over a space whose memory the host cannot touch: a device pointer lies far from the memory that it names,
// so that a layer that reads or writes through one crashes. Everything has to go through the space, its operations,
// the GEMM and the backend, on the caller's stream.
#include "dense_model.hpp"

#include <shardkit/tensor/gated_mlp.hpp>
#include <shardkit/tensor/qkv.hpp>
#include <shardkit/tensor/vocabulary.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <variant>
#include <vector>

namespace {

constexpr std::uintptr_t distance = std::uintptr_t{1} << 46;

template <class T>
T* near(T* far) {
  return far == nullptr ? nullptr : reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(far) - distance);
}
template <class T>
T* far(T* near) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(near) + distance);
}

int steps = 0, steps_elsewhere = 0;

struct far_space {
  struct stream {
    int number = 0;
  };

  static void* native(stream on) noexcept { return reinterpret_cast<void*>(static_cast<std::intptr_t>(on.number)); }
  static stream from_native(void* handle) noexcept {
    return {static_cast<int>(reinterpret_cast<std::intptr_t>(handle))};
  }
  static void count(stream on) {
    ++steps;
    if (on.number != 7) ++steps_elsewhere;
  }
  static void copy(void* to, const void* from, std::size_t bytes, stream on) {
    count(on);
    shardkit::host_space::copy(near(to), near(from), bytes);
  }
  static void copy_2d(void* to, std::size_t to_stride, const void* from, std::size_t from_stride, std::size_t row_bytes,
                      std::size_t rows, stream on) {
    count(on);
    shardkit::host_space::copy_2d(near(to), to_stride, near(from), from_stride, row_bytes, rows);
  }
  static void fill_bytes(void* to, int value, std::size_t bytes, stream on) {
    count(on);
    shardkit::host_space::fill_bytes(near(to), value, bytes);
  }
  static void fill_2d(void* to, std::size_t stride, int value, std::size_t row_bytes, std::size_t rows, stream on) {
    count(on);
    shardkit::host_space::fill_2d(near(to), stride, value, row_bytes, rows);
  }
};

template <class T>
shardkit::matrix_view<T> near(shardkit::matrix_view<T, far_space> x) {
  return {near(x.data()), x.rows(), x.columns(), x.row_stride()};
}
template <class T>
shardkit::view<T> near(shardkit::view<T, far_space> x) {
  return {near(x.data()), x.size()};
}
template <class T>
shardkit::matrix_view<T, far_space> far(shardkit::matrix_view<T> x) {
  return {far(x.data()), x.rows(), x.columns(), x.row_stride()};
}
template <class T>
shardkit::view<T, far_space> far(shardkit::view<T> x) {
  return {far(x.data()), x.size()};
}

/// Rank 0 of 2; the other rank contributes zeros and no candidates.
struct far_backend {
  using space = far_space;

  int rank() const noexcept { return 0; }
  int size() const noexcept { return 2; }

  void perform(const shardkit::barrier_call&) {}
  void perform(const shardkit::broadcast_call&) {}
  void perform(const shardkit::reduce_call&) {}
  void perform(const shardkit::reduce_scatter_call&) {}
  void perform(const shardkit::send_call&) {}
  void perform(const shardkit::recv_call&) {}
  void perform(const shardkit::group_call&) {}
  void perform(const shardkit::all_reduce_call& call) { deliver(call.out, call.in, call, call.count); }
  void perform(const shardkit::all_gather_call& call) {
    deliver(call.out, call.in, call, call.count);
    // A candidate of all ones is none().
    shardkit::host_space::fill_bytes(near(static_cast<char*>(call.out)) + call.count, 0xff, call.count);
  }
  void perform(const shardkit::all_gather_uneven_call& call) {
    deliver(call.out, call.in, call, call.layout->count(0));
    const std::size_t element = size_of(call.type);
    shardkit::host_space::fill_bytes(near(static_cast<char*>(call.out)) + call.layout->offset(1) * element, 0,
                                     call.layout->count(1) * element);
  }
  template <class Call>
  void deliver(void* out, const void* in, const Call& call, std::size_t count) {
    far_space::copy(out, in, count * size_of(call.type), far_space::from_native(call.stream));
  }

  template <class Call>
  shardkit::request start(const Call&) {
    return {};
  }
  far_backend split(int, int, const shardkit::call_site&) { return {}; }
  void exchange(const void*, void*, std::size_t, const shardkit::call_site&) {}
  void fail(const std::string&) noexcept {}
};

const auto far_gemm = [](shardkit::matrix_view<const float, far_space> x,
                         shardkit::matrix_view<const float, far_space> weights,
                         shardkit::matrix_view<float, far_space> y, const shardkit::gemm_args<float, far_space>& args,
                         far_space::stream on) {
  far_space::count(on);
  shardkit::gemm_args<float> near_args{args.alpha, args.beta, near(args.bias), near(args.residual)};
  shardkit::reference_gemm()(near(x), near(weights), near(y), near_args);
};

}  // namespace

// What an engine writes for a space of its own.
template <>
struct shardkit::operations<far_space> {
  using host = operations<host_space>;
  using stream = far_space::stream;

  static void add_bias(matrix_view<float, far_space> rows, view<const float, far_space> bias, stream on) {
    far_space::count(on);
    host::add_bias(near(rows), near(bias));
  }
  static void add(matrix_view<float, far_space> rows, matrix_view<const float, far_space> addend, stream on) {
    far_space::count(on);
    host::add(near(rows), near(addend));
  }
  static void gather_rows(matrix_view<const float, far_space> table, std::size_t first, view<const int, far_space> ids,
                          matrix_view<float, far_space> rows, stream on) {
    far_space::count(on);
    host::gather_rows(near(table), first, near(ids), near(rows));
  }
  static void silu_multiply(matrix_view<float, far_space> gate, matrix_view<const float, far_space> up, stream on) {
    far_space::count(on);
    host::silu_multiply(near(gate), near(up));
  }
  static void top_k(matrix_view<const float, far_space> scores, std::size_t first,
                    matrix_view<candidate<float>, far_space> best, stream on) {
    far_space::count(on);
    host::top_k(near(scores), first, near(best));
  }
  static void merge_top_k(view<candidate<float>, far_space> lists, std::size_t count,
                          matrix_view<float, far_space> scores, matrix_view<int, far_space> indices, stream on) {
    far_space::count(on);
    host::merge_top_k(near(lists), count, near(scores), near(indices));
  }
};

TEST_CASE("Layers touch device memory through the space alone, on the caller's stream") {
  using shardkit::partition;
  constexpr std::size_t hidden = 4, rows = 3;
  shardkit::communicator<far_backend> comm{far_backend()};
  const far_space::stream stream{7};
  const partition features = partition::from_counts({3, 2}), words = partition::from_counts({5, 4});
  const shardkit::qkv_cut heads(2, 2, 2, 2);

  const auto table = dense::exact(5, hidden, 1), gate_up = dense::exact(6, hidden, 2),
             down = dense::exact(hidden, 3, 3), qkv_weights = dense::exact(6, hidden, 4),
             o_weights = dense::exact(hidden, 2, 5), bias = dense::exact(1, hidden, 6),
             wide_weights = dense::exact(3, hidden, 7);
  dense::stored<float> t(table), gu(gate_up), d(down), qw(qkv_weights), ow(o_weights), b(bias), ww(wide_weights);
  dense::stored<float> x(rows, hidden), y(rows, hidden), z(rows, hidden), q(rows, 6), whole(rows, 5), logits(rows, 5),
      values(rows, 2);
  std::vector<int> ids{4, 6, 1}, best(rows), top(rows * 2);
  std::vector<std::byte> memory(4096);
  const auto workspace = far(shardkit::view(memory.data(), memory.size()));

  shardkit::vocabulary_embedding embedding(comm, far(t.view()), words);
  shardkit::qkv_parallel_linear qkv(comm, far(qw.view()), heads);
  shardkit::row_parallel_linear o(comm, far(ow.view()), heads.q(), {.bias = far(b.flat())});
  shardkit::gated_mlp mlp(comm, far(gu.view()), far(d.view()), features);
  shardkit::column_parallel_linear wide(comm, far(ww.view()), features);
  shardkit::vocabulary_head head(comm, far(t.view()), words);

  const auto embedded = embedding.forward(far(shardkit::view<const int>(ids.data(), 3)), far(x.view()), stream);
  const auto parts = qkv.forward(embedded, far(q.view()), far_gemm, stream);
  const auto attended = o.forward(parts.q, far(y.view()), far_gemm, embedded.data, stream);
  mlp.forward(attended, far(z.view()), far_gemm, shardkit::silu_multiply(), workspace, stream);
  wide.forward_gathered(attended, far(whole.view()), far_gemm, workspace, stream);
  const auto made = head.local_logits(attended, far(logits.view()), far_gemm, stream);
  head.argmax(made, far(shardkit::view(best.data(), best.size())), workspace, stream);
  head.top_k(made, far(values.view()), far(shardkit::matrix_view(top.data(), rows, 2)), workspace, stream);

  // The second word lies on the other rank.
  dense::matrix expected(rows, hidden);
  for (std::size_t c = 0; c < hidden; ++c) {
    expected(0, c) = table(4, c);
    expected(2, c) = table(1, c);
  }
  CHECK(dense::wrong(x.view(), expected) == 0);
  dense::matrix queries(2, hidden);
  for (std::size_t i = 0; i < queries.values.size(); ++i) queries.values[i] = qkv_weights.values[i];
  dense::matrix after = dense::times_transposed(dense::times_transposed(expected, queries), o_weights);
  dense::add_row(after, bias);
  dense::add(after, expected);
  CHECK(dense::wrong(y.view(), after) == 0);
  const dense::matrix scores = dense::times_transposed(after, table),
                      columns = dense::times_transposed(after, wide_weights);
  for (std::size_t m = 0; m < rows; ++m) {
    std::size_t highest = 0;
    for (std::size_t n = 0; n < 5; ++n)
      if (scores(m, n) > scores(m, highest)) highest = n;
    CHECK(static_cast<std::size_t>(best[m]) == highest);
    CHECK(static_cast<std::size_t>(top[2 * m]) == highest);
    CHECK(static_cast<double>(values.view()(m, 0)) == scores(m, highest));
    for (std::size_t n = 0; n < 3; ++n) CHECK(static_cast<double>(whole.view()(m, n)) == columns(m, n));
    for (std::size_t n = 3; n < 5; ++n) CHECK(whole.view()(m, n) == 0);
  }
  CHECK(steps > 20);
  CHECK(steps_elsewhere == 0);
}
