#include "dense_model.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/tensor/column_parallel_linear.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>
#include <shardkit/tensor/simd_gemm.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using dense::stored;
using shardkit::bias_placement;
using shardkit::column_parallel_linear;
using shardkit::matrix_view;
using shardkit::partition;
using shardkit::reference_gemm;
using shardkit::row_parallel_linear;
using shardkit::run_ranks;
using shardkit::simd_gemm;
using shardkit::thread_communicator;
using shardkit::view;

namespace {

using weights_type = matrix_view<const float>;

const std::size_t features_tried[] = {1, 2, 5, 7, 13};
const std::size_t rows_tried[] = {0, 1, 4};
constexpr std::size_t width = 6;  // of the dimension that is not divided

// A GEMM that insists on the promises of gemm.hpp.
struct strict_gemm {
  void operator()(matrix_view<const float> x, matrix_view<const float> weights, matrix_view<float> y,
                  const shardkit::gemm_args<float>& args, shardkit::host_space::stream) const {
    if (y.rows() == 0 || y.columns() == 0) throw std::logic_error("an empty product reached the GEMM");
    if (x.rows() != y.rows() || weights.rows() != y.columns() || weights.columns() != x.columns())
      throw std::logic_error("the shapes do not fit");
    reference_gemm()(x, weights, y, args);
  }
};

std::vector<std::byte> workspace(std::size_t bytes) { return std::vector<std::byte>(bytes); }
view<std::byte> bytes_of(std::vector<std::byte>& memory) { return {memory.data(), memory.size()}; }

shardkit::launch_options quiet() {
  shardkit::launch_options options;
  options.on_failure = nullptr;
  return options;
}

// Runs a body that must throw usage_error on one rank at least; returns its text. Every rank must be told.
template <class Body>
std::string refusal(int size, Body body) {
  std::atomic<int> told{0};
  std::string text;
  try {
    run_ranks(size, quiet(), [&](thread_communicator& comm) {
      try {
        body(comm);
        comm.barrier();
      } catch (const shardkit::error&) {
        ++told;
        throw;
      }
    });
  } catch (const shardkit::usage_error& wrong) {
    text = wrong.what();
  }
  CHECK(told == size);
  return text;
}

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("Column-parallel shards are the columns of the dense layer, whole after a gather") {
  for (int size = 1; size <= 6; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      const int rank = comm.rank();
      for (std::size_t features : features_tried)
        for (const partition& cut : dense::cuts(features, size))
          for (std::size_t rows : rows_tried) {
            const auto x = dense::exact(rows, width, 1), w = dense::exact(features, width, 2),
                       b = dense::exact(1, features, 3);
            dense::matrix expected = dense::times_transposed(x, w);
            dense::add_row(expected, b);
            const std::size_t offset = cut.offset(rank), count = cut.count(rank);
            const stored<float> xs(x, 1), ws(w, offset, count, 0, width), bs(b, 0, 1, offset, count);

            column_parallel_linear layer(comm, ws.view(), cut, {.bias = bs.flat()});
            stored<float> y(rows, count, 2);
            const auto made = layer.forward(xs.view(), y.view(), strict_gemm());
            CHECK(made.cut == cut);
            CHECK(dense::wrong(made.data, expected, offset) == 0);

            auto memory = workspace(layer.workspace_bytes(rows));
            for (std::size_t gap : {0u, 3u}) {
              stored<float> whole(rows, features, gap);
              const auto all = layer.forward_gathered(shardkit::replicated{xs.view()}, whole.view(), strict_gemm(),
                                                      bytes_of(memory));
              CHECK(dense::wrong(all.data, expected) == 0);
            }
          }
    });
}

TEST_CASE("Where the GEMM of one rank throws, the others are told before they wait for its summand") {
  constexpr int size = 3;
  const partition cut = partition::balanced(6, size);
  const auto x = dense::exact(2, 6, 1), w = dense::exact(width, 6, 2);
  std::atomic<int> told{0};
  run_ranks(size, quiet(), [&](thread_communicator& comm) {
    const std::size_t offset = cut.offset(comm.rank()), count = cut.count(comm.rank());
    const stored<float> xs(x, 0, 2, offset, count), ws(w, 0, width, offset, count);
    stored<float> y(2, width);
    const row_parallel_linear layer(comm, ws.view(), cut);
    const auto gemm = [&](auto... operands) {
      if (comm.rank() == 1) throw std::runtime_error("out of order");
      reference_gemm()(operands...);
    };
    try {
      layer.forward(xs.view(), y.view(), gemm);
    } catch (const shardkit::peer_failed& failure) {
      CHECK(has(failure.what(), "out of order"));
      ++told;
    } catch (const std::runtime_error&) {
      // Still here: that this rank leaves is not what tells the others.
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      while (told != size - 1 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    }
  });
  CHECK(told == size - 1);
}

TEST_CASE("Column-parallel shards have the bits of the unsharded layer") {
  const std::size_t features = 29, depth = 43, rows = 5;
  const auto x = dense::rough(rows, depth, 1), w = dense::rough(features, depth, 2);
  const stored<float> xs(x), whole(w);
  const auto check = [&](auto gemm) {
    stored<float> unsharded(rows, features);
    gemm(xs.view(), whole.view(), unsharded.view(), shardkit::gemm_args<float>{});
    for (int size = 1; size <= 6; ++size)
      run_ranks(size, [&](thread_communicator& comm) {
        const partition cut = partition::balanced(features, size);
        column_parallel_linear layer(comm, whole.view().row_range(cut.offset(comm.rank()), cut.count(comm.rank())),
                                     cut);
        stored<float> y(rows, features);
        auto memory = workspace(layer.workspace_bytes(rows));
        layer.forward_gathered(xs.view(), y.view(), gemm, bytes_of(memory));
        CHECK(std::memcmp(y.flat().data(), unsharded.flat().data(), y.flat().bytes()) == 0);
      });
  };
  check(reference_gemm());
  check(simd_gemm());
}

TEST_CASE("Row-parallel layers sum to the dense layer, bias and residual counted once, wherever they are added") {
  for (int size = 1; size <= 6; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      const int rank = comm.rank();
      for (std::size_t features : features_tried)
        for (const partition& cut : dense::cuts(features, size))
          for (std::size_t rows : rows_tried) {
            const auto x = dense::exact(rows, features, 1), w = dense::exact(width, features, 2),
                       b = dense::exact(1, width, 3), r = dense::exact(rows, width, 4);
            const dense::matrix product = dense::times_transposed(x, w);
            dense::matrix with_bias = product;
            dense::add_row(with_bias, b);
            dense::matrix with_both = with_bias;
            dense::add(with_both, r);
            const std::size_t offset = cut.offset(rank), count = cut.count(rank);
            const stored<float> xs(x, 0, rows, offset, count, 1), ws(w, 0, width, offset, count), bs(b), rs(r, 1);
            stored<float> y(rows, width);

            for (const auto placement : {bias_placement::after_reduce, bias_placement::rank0_epilogue}) {
              const bool after = placement == bias_placement::after_reduce;
              row_parallel_linear layer(comm, ws.view(), cut, {.bias = bs.flat(), .placement = placement});
              CHECK(dense::wrong(layer.forward(xs.view(), y.view(), strict_gemm()).data, with_bias) == 0);
              CHECK(dense::wrong(layer.forward(xs.view(), y.view(), strict_gemm(), rs.view()).data, with_both) == 0);

              auto summand = after ? layer.partial(xs.view(), y.view(), strict_gemm())
                                   : layer.partial(xs.view(), y.view(), strict_gemm(), rs.view());
              const auto sum = after ? layer.finish(summand, rs.view()) : layer.finish(summand);
              CHECK(dense::wrong(sum.data, with_both) == 0);
            }

            row_parallel_linear bare(comm, ws.view(), cut,
                                     {.placement = bias_placement::caller, .combine = by_rank(shardkit::sum)});
            CHECK(dense::wrong(bare.forward(xs.view(), y.view(), strict_gemm()).data, product) == 0);
            CHECK(dense::wrong(bare.reduce(bare.partial(xs.view(), y.view(), strict_gemm())).data, product) == 0);
          }
    });
}

TEST_CASE("A row-parallel layer reads its features of a replicated input") {
  for (int size = 1; size <= 6; ++size)
    run_ranks(size, [&](thread_communicator& comm) {
      const std::size_t features = 7, rows = 3;
      for (const partition& cut : dense::cuts(features, size)) {
        const auto x = dense::exact(rows, features, 1), w = dense::exact(width, features, 2);
        const dense::matrix expected = dense::times_transposed(x, w);
        const stored<float> xs(x), ws(w, 0, width, cut.offset(comm.rank()), cut.count(comm.rank()));
        stored<float> y(rows, width);
        row_parallel_linear tagged(comm, ws.view(), cut);
        CHECK(dense::wrong(tagged.forward(shardkit::replicated{xs.view()}, y.view(), reference_gemm()).data,
                           expected) == 0);
        row_parallel_linear plain(comm, ws.view(), cut, {.input = shardkit::row_input::replicated});
        CHECK(dense::wrong(plain.forward(xs.view(), y.view(), reference_gemm()).data, expected) == 0);
      }
    });
}

TEST_CASE("All ranks hold the same bits after a row-parallel layer") {
  run_ranks(5, [&](thread_communicator& comm) {
    const std::size_t features = 37, rows = 4;
    const partition cut = partition::balanced(features, comm.size());
    const stored<float> x(dense::rough(rows, features, 1)), w(dense::rough(width, features, 2));
    const std::size_t offset = cut.offset(comm.rank()), count = cut.count(comm.rank());
    row_parallel_linear layer(comm, w.view().column_range(offset, count), cut);
    stored<float> y(rows, width);
    layer.forward(x.view().column_range(offset, count), y.view(), simd_gemm());
    std::vector<float> all(y.flat().size() * 5);
    comm.all_gather(y.flat(), all);
    for (std::size_t other = 0; other < 5; ++other)
      CHECK(std::memcmp(all.data() + other * y.flat().size(), y.flat().data(), y.flat().bytes()) == 0);
  });
}

TEST_CASE("Opaque weights go through the layers untouched") {
  struct scaled_bytes {
    using value_type = float;
    const signed char* data;
    float scale;
  };
  const auto gemm = [](matrix_view<const float> x, const scaled_bytes& w, matrix_view<float> y,
                       const shardkit::gemm_args<float>&, shardkit::host_space::stream) {
    for (std::size_t m = 0; m < y.rows(); ++m)
      for (std::size_t n = 0; n < y.columns(); ++n) {
        y(m, n) = 0;
        for (std::size_t k = 0; k < x.columns(); ++k)
          y(m, n) += x(m, k) * w.scale * static_cast<float>(w.data[n * x.columns() + k]);
      }
  };
  shardkit::self_communicator comm{shardkit::self_backend()};
  const signed char up_data[] = {1, 2, 3, 4, 5, 6}, down_data[] = {1, -1, 2};
  column_parallel_linear up(comm, scaled_bytes{up_data, 0.5f}, partition::balanced(3, 1));
  row_parallel_linear down(comm, scaled_bytes{down_data, 2.0f}, partition::balanced(3, 1));
  const stored<float> x(dense::exact(2, 2, 1));
  stored<float> hidden(2, 3), y(2, 1);
  down.forward(up.forward(x.view(), hidden.view(), gemm), y.view(), gemm);
  for (std::size_t m = 0; m < 2; ++m) {
    const float a = x.view()(m, 0), b = x.view()(m, 1);
    CHECK(y.view()(m, 0) == (a + 2 * b) - (3 * a + 4 * b) + 2 * (5 * a + 6 * b));
  }
}

TEST_CASE("Layers work over an erased communicator") {
  run_ranks(2, [](thread_communicator& threads) {
    auto comm = shardkit::erase(std::move(threads));
    const auto x = dense::exact(3, 5, 1), w = dense::exact(4, 5, 2), d = dense::exact(2, 4, 3);
    const partition cut = partition::balanced(4, 2);
    const std::size_t offset = cut.offset(comm.rank()), count = cut.count(comm.rank());
    const stored<float> xs(x), ws(w, offset, count, 0, 5), ds(d, 0, 2, offset, count);
    column_parallel_linear up(comm, ws.view(), cut);
    row_parallel_linear down(comm, ds.view(), cut);
    stored<float> hidden(3, count), y(3, 2);
    down.forward(up.forward(xs.view(), hidden.view(), reference_gemm()), y.view(), reference_gemm());
    CHECK(dense::wrong(y.view(), dense::times_transposed(dense::times_transposed(x, w), d)) == 0);
  });
}

TEST_CASE("Layers that are cut differently refuse each other's activations on every rank") {
  const std::string text = refusal(3, [](thread_communicator& comm) {
    const partition two_two_one = partition::balanced(5, 3), one_two_two = partition::from_counts({1, 2, 2});
    const stored<float> x(2, 4), up_weights(two_two_one.count(comm.rank()), 4),
        down_weights(4, one_two_two.count(comm.rank()));
    column_parallel_linear up(comm, up_weights.view(), two_two_one);
    row_parallel_linear down(comm, down_weights.view(), one_two_two);
    stored<float> hidden(2, two_two_one.count(comm.rank())), y(2, 4);
    down.forward(up.forward(x.view(), hidden.view(), reference_gemm()), y.view(), reference_gemm());
  });
  CHECK(has(text, "x is cut as 2+2+1 and the layer as 1+2+2; give both layers the same partition"));
  CHECK(has(text, "row_parallel_linear"));
  CHECK(has(text, "linear.cpp:"));
}

TEST_CASE("A wrong argument on one rank is reported there and reaches all others") {
  const partition cut = partition::balanced(6, 3);
  const auto run = [&](auto body) {
    return refusal(3, [&](thread_communicator& comm) {
      const std::size_t odd = comm.rank() == 1 ? 1 : 0;  // rank 1 is wrong
      body(comm, odd);
    });
  };
  const stored<float> weights(2, 4), down_weights(4, 2), x(3, 4), wrong_x(3, 5), hidden(3, 2), bias(1, 5);

  CHECK(has(run([&](auto& comm, std::size_t odd) {
              column_parallel_linear layer(comm, weights.view().row_range(0, 2 - odd), cut);
            }),
            "the weights have 1 rows and this rank's shard has 2"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              column_parallel_linear layer(comm, weights.view(), odd ? partition::balanced(6, 2) : cut);
            }),
            "over 2 ranks and the communicator has 3"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              column_parallel_linear layer(comm, weights.view(), cut, {.bias = bias.flat().subview(0, 2 + odd)});
            }),
            "the bias has 3 elements and needs 2"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              column_parallel_linear layer(comm, weights.view(), cut);
              stored<float> y(3, 6);
              auto memory = workspace(layer.workspace_bytes(3) - odd);
              layer.forward_gathered(x.view(), y.view(), reference_gemm(), bytes_of(memory));
            }),
            "the workspace has 71 bytes and needs 72; see workspace_bytes"));
  const std::string shape = run([&](auto& comm, std::size_t odd) {
    column_parallel_linear layer(comm, weights.view(), cut);
    stored<float> y(3, 6);
    auto memory = workspace(layer.workspace_bytes(3));
    layer.forward_gathered(odd ? wrong_x.view() : x.view(), y.view(), reference_gemm(), bytes_of(memory));
  });
  CHECK(has(shape, "x is [3, 5] and needs to be [3, 4]"));
  CHECK(has(shape, "rank 1 of 3"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              row_parallel_linear layer(comm, down_weights.view(), cut);
              stored<float> y(3, 4 + odd);
              layer.forward(hidden.view(), y.view(), reference_gemm());
            }),
            "y is [3, 5] and needs to be [3, 4]"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              row_parallel_linear layer(comm, down_weights.view(), cut);
              stored<float> y(3, 4, odd);
              layer.forward(hidden.view(), y.view(), reference_gemm());
            }),
            "the rows of y have gaps between them"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              row_parallel_linear layer(comm, down_weights.view(), cut);
              stored<float> y(3, 4);
              layer.forward(hidden.view(), y.view(), reference_gemm(), x.view().row_range(0, 3 - odd));
            }),
            "the residual is [2, 4] and needs to be [3, 4]"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              row_parallel_linear layer(comm, down_weights.view(), cut,
                                        {.bias = bias.flat().subview(0, 4),
                                         .placement = odd ? bias_placement::caller : bias_placement::after_reduce});
            }),
            "a bias was given that is left to the caller"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              row_parallel_linear layer(comm, down_weights.view(), cut,
                                        {.placement = odd ? bias_placement::caller : bias_placement::after_reduce});
              stored<float> y(3, 4);
              layer.forward(hidden.view(), y.view(), reference_gemm(), x.view());
            }),
            "a residual was passed that is left to the caller"));
  CHECK(has(run([&](auto& comm, std::size_t odd) {
              row_parallel_linear layer(comm, down_weights.view(), cut,
                                        {.combine = odd ? shardkit::maximum : shardkit::sum});
            }),
            "partial products are summed, not combined by maximum"));
  CHECK(has(refusal(4,
                    [&](thread_communicator& comm) {
                      row_parallel_linear layer(comm, down_weights.view(), partition::balanced(4, 4).replicas(2));
                    }),
            "has replicas, which would be counted 2 times"));
  CHECK(has(refusal(2,
                    [&](thread_communicator& comm) {
                      row_parallel_linear layer(comm, down_weights.view(), partition::balanced(4, 2));
                      stored<float> y(3, 4);
                      layer.partial(hidden.view(), y.view(), reference_gemm(), x.view());
                    }),
            "partial adds a residual under rank0_epilogue only; pass it to finish"));
  CHECK(has(refusal(2,
                    [&](thread_communicator& comm) {
                      row_parallel_linear layer(comm, down_weights.view(), partition::balanced(4, 2),
                                                {.placement = bias_placement::rank0_epilogue});
                      stored<float> y(3, 4);
                      layer.finish(layer.partial(hidden.view(), y.view(), reference_gemm()), x.view());
                    }),
            "under rank0_epilogue the residual belongs to the GEMM; pass it to partial"));
}
