// The layers and the pipeline stage on device memory, over NCCL with a device for each rank: the code of the host, with
// cuBLASLt's products and the kernels of cuda/kernels.cuh.
#include "block.hpp"
#include "float8.hpp"

#include "../nccl/ranks.hpp"

#include <double/nccl_control.hpp>
#include <shardkit/pipeline/deliver.hpp>
#include <shardkit/pipeline/stage.hpp>
#include <shardkit/tensor/qkv.hpp>
#include <support/captured_graph.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace cublaslt_tests;
using nccl_test::expect_clean;
using nccl_test::on_devices;
using nccl_test::options_with_kernel;
using nccl_test::rank_counts;
using shardkit::cuda_check;
using shardkit::cuda_event;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::erase;
using shardkit::matrix_view;
using shardkit::nccl_world;
using shardkit::partition;
using shardkit::thread_communicator;
using shardkit_test::captured_graph;

/// x w^T + b.
dense::matrix linear(const dense::matrix& x, const dense::matrix& w, const dense::matrix& b) {
  dense::matrix y = dense::times_transposed(x, w);
  dense::add_row(y, b);
  return y;
}

dense::matrix columns(const dense::matrix& of, std::size_t first, std::size_t count) {
  dense::matrix result(of.rows, count);
  for (std::size_t m = 0; m < of.rows; ++m)
    for (std::size_t n = 0; n < count; ++n) result(m, n) = of(m, first + n);
  return result;
}

/// The block by hand, on one processor.
struct serial {
  explicit serial(const block& b) {
    embedded = dense::matrix(b.rows(), block::hidden);
    for (std::size_t m = 0; m < b.rows(); ++m)
      for (std::size_t c = 0; c < block::hidden; ++c) embedded(m, c) = b.table(static_cast<std::size_t>(b.ids[m]), c);
    const std::size_t q_rows = b.q.rows;
    q = linear(embedded, b.q, columns(b.qkv_bias, 0, q_rows));
    kv = linear(embedded, b.kv, columns(b.qkv_bias, q_rows, b.kv.rows));
    attended = linear(q, b.o, b.o_bias);
    dense::add(attended, embedded);
    dense::matrix gate = dense::times_transposed(attended, b.gate);
    const dense::matrix up = dense::times_transposed(attended, b.up);
    for (std::size_t i = 0; i < gate.values.size(); ++i)
      gate.values[i] *= up.values[i] / (1 + std::exp(-gate.values[i]));
    fed = dense::times_transposed(gate, b.down);
    dense::add(fed, attended);
    whole = linear(fed, b.head, b.head_bias);
    logits = dense::times_transposed(fed, b.table);
  }
  dense::matrix embedded{0, 0}, q{0, 0}, kv{0, 0}, attended{0, 0}, fed{0, 0}, whole{0, 0}, logits{0, 0};
};

/// Within `tolerance` of the largest number of `expected`, from column `first` on.
bool close(const dense::matrix& got, const dense::matrix& expected, double tolerance, std::size_t first = 0) {
  double largest = 0;
  for (const double value : expected.values) largest = std::max(largest, std::fabs(value));
  if (got.rows != expected.rows || first + got.columns > expected.columns) return false;
  for (std::size_t m = 0; m < got.rows; ++m)
    for (std::size_t n = 0; n < got.columns; ++n)
      if (!(std::fabs(got(m, n) - expected(m, first + n)) <= tolerance * largest)) return false;
  return true;
}

template <class T>
void check_block(int ranks, bool fused, bool bias_in_gemm, double tolerance) {
  CAPTURE(ranks);
  CAPTURE(fused);
  CAPTURE(bias_in_gemm);
  const block whole;
  const serial expected(whole);
  double largest = 0;
  for (const double logit : expected.logits.values) largest = std::max(largest, std::fabs(logit));
  on_devices(ranks, [&](thread_communicator& host) {
    const cuda_stream stream;
    auto comm = erase(nccl_world(host, options_with_kernel()));
    const int rank = comm.rank();
    const shardkit::qkv_cut heads(block::heads, block::kv_heads, block::head_size, ranks);
    const answers got = run_block<T>(whole, comm, stream.handle(), fused, bias_in_gemm);
    CHECK(got.embedded.values == expected.embedded.values);
    CHECK(close(got.q, expected.q, tolerance, heads.q().offset(rank)));
    CHECK(close(got.k, expected.kv, tolerance, heads.kv().offset(rank)));
    CHECK(close(got.v, expected.kv, tolerance, block::kv_heads * block::head_size + heads.kv().offset(rank)));
    CHECK(close(got.attended, expected.attended, tolerance));
    CHECK(close(got.fed, expected.fed, tolerance));
    CHECK(close(got.whole, expected.whole, tolerance));
    // Near ties may turn either way: the logit at the place that was found is what counts.
    bool found = true;
    for (std::size_t m = 0; m < whole.rows(); ++m) {
      std::vector<double> sorted(expected.logits.values.begin() + static_cast<long>(m * block::words),
                                 expected.logits.values.begin() + static_cast<long>((m + 1) * block::words));
      const std::vector<double> row = sorted;
      std::sort(sorted.rbegin(), sorted.rend());
      for (std::size_t i = 0; i < block::k; ++i) {
        const auto word = static_cast<std::size_t>(got.top[m * block::k + i]);
        found = found && word < block::words && std::fabs(row[word] - sorted[i]) <= 2 * tolerance * largest &&
                std::fabs(got.values(m, i) - row[word]) <= 2 * tolerance * largest;
      }
      found = found && got.best[m] == got.top[m * block::k];
    }
    CHECK(found);
  });
}

}  // namespace

TEST_CASE(
    "A transformer block on device memory is the serial one, for every number of ranks, type and bias placement") {
  set_kernels();
  for (const int ranks : rank_counts({1, 2, 3, 4})) {
    check_block<float>(ranks, true, false, 1.0 / (1 << 16));
    check_block<float>(ranks, false, true, 1.0 / (1 << 16));
    check_block<shardkit::bfloat16>(ranks, ranks % 2 == 0, ranks % 2 == 1, 1.0 / (1 << 5));
  }
  expect_clean();
}

TEST_CASE(
    "Layers with weights of 8-bit floats and their scales are the serial ones, with shards of 16, 32 and no features") {
  int major = 0, minor = 0;
  const std::vector<int> counts = rank_counts({1, 2, 4});
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "cudaDeviceGetAttribute");
  if (10 * major + minor < 89) {
    MESSAGE("left out: this GPU does not multiply 8-bit floats");
    return;
  }
  constexpr std::size_t rows = 3, hidden = 32, features = 48;
  const dense::matrix x = rounded<e4m3>(dense::rough(rows, hidden, 1)),
                      h = rounded<e5m2>(dense::rough(rows, features, 2)),
                      up = rounded<e4m3>(dense::rough(features, hidden, 3)),
                      down = rounded<e4m3>(dense::rough(hidden, features, 4)), scales = weights(1, 2, 5);
  dense::matrix wide = dense::times_transposed(x, up), narrow = dense::times_transposed(h, down);
  for (double& value : wide.values) value *= scales(0, 0) * scales(0, 1);
  for (double& value : narrow.values) value *= scales(0, 1);
  for (const int ranks : counts)
    on_devices(ranks, [&](thread_communicator& host) {
      const cuda_stream stream;
      auto comm = nccl_world(host, options_with_kernel());
      const partition cut = partition::balanced(features, ranks, 16);
      const std::size_t offset = cut.offset(comm.rank()), count = cut.count(comm.rank());
      const on_device<e4m3> in(x, stream.handle()), up_shard(up, offset, count, 0, hidden, stream.handle()),
          down_shard(down, 0, hidden, offset, count, stream.handle());
      const on_device<e5m2> inner(h, 0, rows, offset, count, stream.handle());
      const on_device<float> factors(scales, stream.handle());
      on_device<shardkit::bfloat16> made(dense::matrix(rows, count), stream.handle()),
          summed(dense::matrix(rows, hidden), stream.handle());
      const float* const first = factors.flat().data();
      shardkit::cublaslt_gemm gemm;
      shardkit::column_parallel_linear column(comm, shardkit::f8_weights<e4m3>{up_shard.view(), first, first + 1}, cut);
      shardkit::row_parallel_linear row(
          comm, shardkit::f8_weights<e4m3, shardkit::bfloat16, e5m2>{down_shard.view(), first + 1}, cut);
      column.forward(in.view(), made.view(), gemm, stream);
      row.reduce(row.partial(inner.view(), summed.view(), gemm, stream), stream);
      dense::matrix shard(rows, count), sum(rows, hidden);
      synchronize(stream, 20, comm);
      CHECK(made.fetch(shard, stream.handle()));
      CHECK(summed.fetch(sum, stream.handle()));
      CHECK(close(shard, wide, 1.0 / (1 << 7), offset));
      CHECK(close(sum, narrow, 1.0 / (1 << 6)));
      host.barrier();
    });
  expect_clean();
}

TEST_CASE("A product that fails inside a layer names the line that called the layer") {
  if (!shardkit_double::active()) return;
  on_devices(rank_counts({1}).front(), [](thread_communicator& host) {
    const cuda_stream stream;
    auto comm = nccl_world(host, options_with_kernel());
    const on_device<float> x(dense::exact(4, 4, 1), stream.handle());
    on_device<float> y(dense::exact(4, 4, 1), stream.handle());
    shardkit::cublaslt_gemm gemm;
    const shardkit::column_parallel_linear layer(comm, x.view(), partition::balanced(4, 1));
    shardkit_double::fail_call("cublasLtMatmul", 1, CUBLAS_STATUS_EXECUTION_FAILED);
    std::string text;
    const int line = __LINE__ + 2;
    try {
      layer.forward(x.view(), y.view(), gemm, stream);
    } catch (const shardkit::cublas_error& failure) {
      text = failure.what();
    }
    CHECK_MESSAGE(text.find("layers.cpp:" + std::to_string(line)) != std::string::npos, text);
  });
  expect_clean();
}

namespace {

void blas_check(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS) throw std::runtime_error(cublasLtGetStatusName(status));
}

/// y = x w^T + bias as an engine writes it against the library, with f32 matrices without gaps.
class product_by_hand {
 public:
  product_by_hand(cublasLtHandle_t library, matrix_view<const float, cuda_space> x,
                  matrix_view<const float, cuda_space> w, matrix_view<float, cuda_space> y, const float* bias,
                  std::uint64_t workspace_bytes)
      : library_(library), x_(x.data()), w_(w.data()), y_(y.data()) {
    blas_check(cublasLtMatmulDescCreate(&op_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const std::int32_t transposed = CUBLAS_OP_T;
    blas_check(cublasLtMatmulDescSetAttribute(op_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    if (bias != nullptr) {
      const std::uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      blas_check(cublasLtMatmulDescSetAttribute(op_, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
      blas_check(cublasLtMatmulDescSetAttribute(op_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    }
    const auto layout = [](cublasLtMatrixLayout_t* to, const auto& of) {
      blas_check(
          cublasLtMatrixLayoutCreate(to, CUDA_R_32F, of.columns(), of.rows(), static_cast<std::int64_t>(of.columns())));
    };
    layout(&a_, w), layout(&b_, x), layout(&d_, y);
    cublasLtMatmulPreference_t wish = nullptr;
    blas_check(cublasLtMatmulPreferenceCreate(&wish));
    blas_check(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes,
                                                    sizeof workspace_bytes));
    int found = 0;
    blas_check(cublasLtMatmulAlgoGetHeuristic(library, op_, a_, b_, d_, d_, wish, 1, &best_, &found));
    blas_check(cublasLtMatmulPreferenceDestroy(wish));
  }
  product_by_hand(const product_by_hand&) = delete;
  product_by_hand& operator=(const product_by_hand&) = delete;
  ~product_by_hand() {
    (void)cublasLtMatmulDescDestroy(op_);
    for (const cublasLtMatrixLayout_t one : {a_, b_, d_}) (void)cublasLtMatrixLayoutDestroy(one);
  }
  void enqueue(void* workspace, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    blas_check(cublasLtMatmul(library_, op_, &one, w_, a_, x_, b_, &zero, y_, d_, y_, d_, &best_.algo, workspace,
                              best_.workspaceSize, stream));
  }

 private:
  cublasLtHandle_t library_;
  const float *x_, *w_;
  float* y_;
  cublasLtMatmulDesc_t op_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  cublasLtMatmulHeuristicResult_t best_{};
};

}  // namespace

TEST_CASE("The captured forward of column and row layer holds exactly the nodes of the sequence written by hand") {
  if (!shardkit_double::active()) return;
  set_kernels();
  for (const int ranks : rank_counts({1, 2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      const cuda_stream stream;
      auto world = nccl_world(host, options_with_kernel());
      const ncclComm_t handle = world.backend().native_handle();
      auto comm = erase(std::move(world));
      feed_forward layers(comm, stream.handle());
      layers.enqueue(comm, stream.handle());  // the shapes become known
      synchronize(stream, 20, comm);
      const char* const asking[] = {"cudaMalloc",
                                    "cudaFree",
                                    "cudaStreamSynchronize",
                                    "cudaStreamQuery",
                                    "cudaEventQuery",
                                    "cublasLtMatmulAlgoGetHeuristic",
                                    "cublasLtMatmulDescCreate"};
      const auto asked = [&] {
        int all = 0;
        for (const char* function : asking) all += shardkit_double::calls(function, host.rank());
        return all;
      };
      const int before = asked();
      const captured_graph by_layers(stream, [&] { layers.enqueue(comm, stream.handle()); });
      CHECK(asked() == before);

      cublasLtHandle_t library = nullptr;
      blas_check(cublasLtCreate(&library));
      {
        const product_by_hand wide(library, layers.x.view(), layers.up.view(), layers.inner.view(),
                                   layers.up_bias.flat().data(), layers.memory.size());
        const product_by_hand narrow(library, layers.inner.view(), layers.down.view(), layers.y.view(), nullptr,
                                     layers.memory.size());
        const shardkit::nccl_api api = shardkit::nccl_api::of_program();
        const captured_graph by_hand(stream, [&] {
          float* const y = layers.y.view().data();
          wide.enqueue(layers.memory.data(), stream.handle());
          narrow.enqueue(layers.memory.data(), stream.handle());
          ncclResult_t result = api.all_reduce(y, y, feed_forward::rows * feed_forward::hidden, ncclFloat32, ncclSum,
                                               handle, stream.handle());
          while (result == ncclInProgress) REQUIRE(api.comm_get_async_error(handle, &result) == ncclSuccess);
          REQUIRE(result == ncclSuccess);
          layers.add_bias(stream.handle());
        });
        CHECK(by_layers.text() == by_hand.text());
        CHECK(by_layers.types() == by_hand.types());
        // By itself, a rank has nothing to reduce.
        CHECK(by_layers.types() == std::vector<cudaGraphNodeType>(host.size() == 1 ? 3 : 4, cudaGraphNodeTypeKernel));
      }
      blas_check(cublasLtDestroy(library));
      host.barrier();
    });
  }
  expect_clean();
}

namespace {

/// Every stage: y = x w^T + b, w and b being its own.
dense::matrix stage_weights(int stage) {
  return weights(block::hidden, block::hidden, 20 + static_cast<unsigned>(stage));
}
dense::matrix stage_bias(int stage) { return weights(1, block::hidden, 30 + static_cast<unsigned>(stage)); }

}  // namespace

TEST_CASE("On a device a microbatch passes all stages before the first stage has begun with the next") {
  const std::vector<int> counts = rank_counts({3});
  if (counts.empty()) return;
  std::atomic<bool> arrived{false}, waited_in_vain{false};
  on_devices(3, [&](thread_communicator& host) {
    const cuda_stream stream;
    auto comm = nccl_world(host, options_with_kernel());
    {
      shardkit::stage pipeline(comm, {{"hidden", shardkit::dtype::f32, block::hidden, 4}}, stream);
      pipeline.forward(
          partition::balanced(12, 3),
          [&](const shardkit::microbatch& mb, const auto& in, auto& out) {
            if (pipeline.is_last() && mb.index == 0) {
              synchronize(stream, 20, comm);
              arrived = true;
            }
            if (pipeline.is_first() && mb.index == 1) {
              const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
              while (!arrived && std::chrono::steady_clock::now() < end) std::this_thread::yield();
              if (!arrived) waited_in_vain = true;
            }
            const auto to = out.template matrix<float>("hidden");
            if (pipeline.is_first()) fill_zero(to, stream);
            else copy(to, in.template matrix<float>("hidden"), stream);
          },
          stream);
      synchronize(stream, 20, comm);
    }
    host.barrier();
  });
  CHECK_FALSE(waited_in_vain);
  expect_clean();
}

namespace {

/// Within 20 seconds.
bool comes_to_be(const std::function<bool()>& what) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!what())
    if (std::chrono::steady_clock::now() > end) return false;
    else std::this_thread::yield();
  return true;
}

}  // namespace

TEST_CASE("With a fork a stage computes while the microbatch before is sent and the next one received") {
  if (rank_counts({2}).empty()) return;
  shardkit_double::nccl::connect_on_first_use(true);
  on_devices(2, [&](thread_communicator& host) {
    const cuda_stream compute, communication, beside;
    auto comm = nccl_world(host, options_with_kernel());
    auto gate = comm.split(0);
    std::vector<cuda_event> computed(5);
    shardkit::buffer<float, cuda_space> word(1);
    cuda_space::fill_bytes(word.data(), 0, sizeof(float), compute);
    {
      shardkit::stage pipeline(comm, {{"hidden", shardkit::dtype::f32, block::hidden, 1}}, compute);
      const auto forward = [&](int microbatches, bool gated) {
        pipeline.forward(
            partition::balanced(static_cast<std::size_t>(microbatches), microbatches),
            [&](const shardkit::microbatch& mb, const auto& in, auto& out) {
              if (gated && pipeline.is_last() && mb.index == 0) gate.recv(word, 0, compute);
              const auto to = out.template matrix<float>("hidden");
              if (pipeline.is_first()) fill_zero(to, compute);
              else copy(to, in.template matrix<float>("hidden"), compute);
              computed[static_cast<std::size_t>(mb.index)].record(compute);
            },
            shardkit::fork{compute, communication});
      };
      // Once NCCL has connected the ranks, no call waits for the peer's on the host.
      forward(1, false);
      if (pipeline.is_first()) gate.send(word, 1, compute);
      else gate.recv(word, 0, compute);
      synchronize(compute, 20, comm, gate);
      host.barrier();
      if (pipeline.is_first()) {
        forward(5, true);
        // Nobody has received anything yet.
        CHECK(comes_to_be([&] { return computed[1].reached(); }));
        CHECK_FALSE(computed[2].reached());
        host.barrier();
        // The last stage does not come further than its first microbatch.
        CHECK(comes_to_be([&] { return computed[3].reached(); }));
        CHECK_FALSE(computed[4].reached());
        cuda_space::fill_bytes(word.data(), 0, sizeof(float), beside);
        gate.send(word, 1, beside);
        synchronize(beside, 20, gate);
      } else {
        host.barrier();
        forward(5, true);
      }
      synchronize(compute, 20, comm, gate);
    }
    host.barrier();
  });
  expect_clean();
}

TEST_CASE("A pipeline on device memory gives the serial result, directly and replayed from a graph") {
  constexpr std::size_t most = 5;
  const partition microbatches = partition::from_counts({3, 0, most, 1});
  const dense::matrix x = dense::exact(microbatches.total(), block::hidden, 40);
  for (const auto& [ranks, forked] : {std::pair(1, true), {2, false}, {2, true}, {3, false}, {3, true}}) {
    if (rank_counts({ranks}).empty()) continue;
    shardkit_double::nccl::connect_on_first_use(forked);
    CAPTURE(ranks);
    CAPTURE(forked);
    dense::matrix expected = x;
    for (int stage = 0; stage < ranks; ++stage) expected = linear(expected, stage_weights(stage), stage_bias(stage));
    on_devices(ranks, [&, overlap = forked](thread_communicator& host) {
      const cuda_stream stream, beside;
      auto comm = nccl_world(host, options_with_kernel());
      {
        shardkit::stage pipeline(comm, {{"hidden", shardkit::dtype::f32, block::hidden, most}}, stream);
        const on_device<float> input(x, stream.handle()), w(stage_weights(comm.rank()), stream.handle()),
            b(stage_bias(comm.rank()), stream.handle());
        on_device<float> output(dense::matrix(x.rows, x.columns), stream.handle());
        shardkit::cublaslt_gemm gemm;
        const auto step = [&] {
          pipeline.forward(
              microbatches,
              [&](const shardkit::microbatch& mb, const auto& in, auto& out) {
                shardkit::gemm_args<float, cuda_space> args;
                args.bias = b.flat();
                const auto from = pipeline.is_first() ? input.view().row_range(mb.first, mb.rows)
                                                      : in.template matrix<float>("hidden");
                const auto to = pipeline.is_last() ? output.view().row_range(mb.first, mb.rows)
                                                   : out.template matrix<float>("hidden");
                gemm(from, w.view(), to, args, stream);
              },
              shardkit::fork{stream, overlap ? cuda_space::stream(beside) : cuda_space::stream(stream)});
          shardkit::deliver(comm, output.view().flat(), shardkit::delivery::all, stream);
        };
        const auto right = [&] {
          dense::matrix got(x.rows, x.columns);
          synchronize(stream, 20, comm);
          return output.fetch(got, stream.handle()) && close(got, expected, 1.0 / (1 << 16));
        };
        step();
        CHECK(right());
        const captured_graph graph(stream, step);
        for (int replay = 0; replay < 2; ++replay) {
          fill_zero(output.view(), stream);
          graph.launch(stream);
          CHECK(right());
        }
      }
      host.barrier();
    });
  }
  expect_clean();
}
