// A feed-forward block y = (x U^T) D^T, U [2 I, H] (gate and up), D [H, I], float32, and the matrix-vector product
// that generation consists of. Everything that is compared is interleaved in one run, so that its ratios hold on a
// machine whose speed changes from minute to minute; medians, the slower rank counts.
//
//   tensor_block [--part=all|block|generation] [--rounds=40] [--rows=1,16,256,703] [--hidden=576] [--features=1536]
//
// Columns of the block, in microseconds:
//   kernels 1   the bare GEMMs of the whole block, one thread        layers 1    the same through the layers, 1 rank
//   kernels 2   each rank's GEMMs, both at once, no communication    layers 2    the same through the layers, 2 ranks
//   BLAS 1, 2   the whole block by CBLAS, with one and two threads of its own
#include "measuring.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/tensor/cblas_gemm.hpp>
#include <shardkit/tensor/packed_column_linear.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

using benchmark::median;
using benchmark::pin_to_core;
using benchmark::seconds;
using shardkit::host_space;
using shardkit::matrix_view;
using shardkit::partition;
using shardkit::thread_communicator;
using weights_view = matrix_view<const float>;

struct options {
  std::string part = "all";
  int rounds = 40;
  std::vector<std::size_t> rows{1, 16, 256, 703};
  std::size_t hidden = 576, features = 1536;

  options(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i];
      const auto value = [&](const char* name) -> const char* {
        const std::size_t length = std::strlen(name);
        return text.compare(0, length, name) == 0 ? text.c_str() + length : nullptr;
      };
      if (const char* v = value("--rounds=")) rounds = std::atoi(v);
      else if (const char* p = value("--part=")) part = p;
      else if (const char* h = value("--hidden=")) hidden = std::strtoull(h, nullptr, 10);
      else if (const char* f = value("--features=")) features = std::strtoull(f, nullptr, 10);
      else if (const char* r = value("--rows=")) {
        rows.clear();
        for (char* next = const_cast<char*>(r); *next != 0;) {
          rows.push_back(std::strtoull(next, &next, 10));
          if (*next == ',') ++next;
        }
      } else {
        std::fprintf(stderr, "unknown option %s\n", argv[i]);
        std::exit(2);
      }
    }
  }
};

// How often this thread was pushed off its core, or went to sleep because its peer was: such a sample measures somebody
// else's work.
long interruptions() {
  rusage use;
  getrusage(RUSAGE_THREAD, &use);
  return use.ru_nivcsw + use.ru_nvcsw;
}

// One thing to measure. `prepare` runs before each sample, on both ranks, and is not timed.
struct candidate_work {
  std::function<void()> work, prepare = [] {};
};

// Microseconds per call of each work, the median over `rounds` interleaved samples, the slower rank counting. Each
// sample repeats the call for 200 microseconds or more. Disturbed samples are left out where enough others remain.
std::vector<double> measure(thread_communicator& comm, int rounds, const std::vector<candidate_work>& all) {
  std::vector<int> repeats;
  for (const candidate_work& one : all) {
    one.prepare();
    comm.barrier();
    one.work();
    const double start = seconds();
    one.work();
    const double once = comm.all_reduce(seconds() - start, shardkit::maximum);
    repeats.push_back(static_cast<int>(std::clamp(200e-6 / std::max(once, 1e-9), 1.0, 200.0)));
  }
  std::vector<std::vector<double>> samples(all.size()), disturbed(all.size());
  for (int round = 0; round < rounds; ++round)
    for (std::size_t i = 0; i < all.size(); ++i) {
      all[i].prepare();
      // Caches as in a steady state.
      for (int repeat = 0; repeat < repeats[i]; ++repeat) all[i].work();
      comm.barrier();
      const long before = interruptions();
      const double start = seconds();
      for (int repeat = 0; repeat < repeats[i]; ++repeat) all[i].work();
      const double took = (seconds() - start) / repeats[i];
      const bool clean = comm.all_reduce(interruptions() - before, shardkit::sum) == 0;
      (clean ? samples : disturbed)[i].push_back(1e6 * comm.all_reduce(took, shardkit::maximum));
    }
  std::vector<double> medians;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (samples[i].size() < 5) samples[i].insert(samples[i].end(), disturbed[i].begin(), disturbed[i].end());
    medians.push_back(median(samples[i]));
  }
  return medians;
}

struct matrix {
  matrix(std::size_t r, std::size_t c, float value) : rows(r), columns(c), values(r * c, value) {}
  weights_view input() const { return {values.data(), rows, columns}; }
  matrix_view<float> output() { return {values.data(), rows, columns}; }

  std::size_t rows, columns;
  std::vector<float> values;
};

// A rank's share of the block and its activations.
struct share {
  share(std::size_t rows, std::size_t hidden, std::size_t features)
      : x(rows, hidden, 1.0f),
        up(2 * features, hidden, 0.01f),
        inner(rows, 2 * features, 0.0f),
        down(hidden, features, 0.01f),
        y(rows, hidden, 0.0f) {}

  template <class Gemm>
  void kernels(const Gemm& gemm) {
    gemm(x.input(), up.input(), inner.output(), shardkit::gemm_args<float>{}, host_space::stream());
    gemm(inner.input().column_range(0, down.columns), down.input(), y.output(), shardkit::gemm_args<float>{},
         host_space::stream());
  }

  matrix x, up, inner, down, y;
};

template <class Communicator>
struct block {
  block(Communicator& comm, const share& mine, const partition& features)
      : up(comm, mine.up.input(), shardkit::segmented_partition::repeated(2, features)),
        down(comm, mine.down.input(), features) {}

  void forward(share& mine) {
    const auto inner = up.forward(mine.x.input(), mine.inner.output(), shardkit::cblas_gemm());
    down.forward(inner[0], mine.y.output(), shardkit::cblas_gemm());
  }

  shardkit::packed_column_linear<Communicator, weights_view> up;
  shardkit::row_parallel_linear<Communicator, weights_view> down;
};

// The matrix-vector product and the matrix product of the BLAS, as an engine would call them.
struct blas_gemm {
  void operator()(weights_view x, weights_view weights, matrix_view<float> y, const shardkit::gemm_args<float>& args,
                  host_space::stream stream) const {
    const auto n = static_cast<int>(y.columns()), k = static_cast<int>(x.columns());
    if (y.rows() == 1)
      cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, weights.data(), k, x.data(), 1, 0, y.data(), 1);
    else shardkit::cblas_gemm{0}(x, weights, y, args, stream);
  }
};

void measure_block(thread_communicator& comm, const options& given) {
  const partition features = partition::balanced(given.features, comm.size());
  shardkit::self_communicator alone{shardkit::self_backend()};
  if (comm.is_root())
    std::printf(
        "Feed-forward block, usec\n\n"
        "| rows x H x I | kernels 1 | layers 1 | kernels 2 | layers 2 | BLAS 1 | BLAS 2 | layers / kernels, 1 rank "
        "| speed-up of 2 ranks | of it the kernels alone | share reached | against BLAS 2 |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const std::size_t rows : given.rows) {
    share half(rows, given.hidden, features.count(comm.rank()));
    share whole(rows, given.hidden, given.features);
    block<thread_communicator> divided(comm, half, features);
    block<shardkit::self_communicator> undivided(alone, whole, partition::balanced(given.features, 1));
    const bool first = comm.is_root();
    const std::vector<double> t = measure(comm, given.rounds,
                                          {{[&] {
                                             if (first) whole.kernels(shardkit::cblas_gemm());
                                           }},
                                           {[&] {
                                             if (first) undivided.forward(whole);
                                           }},
                                           {[&] { half.kernels(shardkit::cblas_gemm()); }},
                                           {[&] { divided.forward(half); }},
                                           {[&] {
                                             if (first) whole.kernels(blas_gemm());
                                           }}});
    // The threads of the BLAS spin for a while after a call; what follows must not share its core with them.
    const auto blas_threads = [&](int threads) {
      comm.barrier();
      if (first) shardkit::set_blas_threads(threads);
      std::this_thread::sleep_for(std::chrono::milliseconds(60));
      comm.barrier();
    };
    const std::vector<double> threaded = measure(comm, given.rounds,
                                                 {{[&] { divided.forward(half); }, [&] { blas_threads(1); }},
                                                  {[&] {
                                                     if (first) whole.kernels(blas_gemm());
                                                   },
                                                   [&] { blas_threads(2); }}});
    blas_threads(1);
    if (first)
      std::printf("| %zux%zux%zu | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.3f | %.2f | %.2f | %.1f%% | %.2fx |\n",
                  rows, given.hidden, given.features, t[0], t[1], t[2], t[3], t[4], threaded[1], t[1] / t[0],
                  t[0] / t[3], t[0] / t[2], 100 * t[2] / t[3], threaded[1] / threaded[0]);
    std::fflush(stdout);
  }
}

void measure_generation(thread_communicator& comm, const options& given) {
  if (comm.is_root())
    std::printf(
        "\nMatrix-vector product, GB/s of weights\n\n"
        "| out x in | MiB | cblas_gemm, 1 rank | cblas_sgemv | cblas_sdot per row | cblas_gemm / best of these | "
        "cblas_gemm, 2 ranks |\n|---|---|---|---|---|---|---|\n");
  const std::size_t shapes[][2] = {{3072, 576}, {576, 1536}, {49152, 576}, {11264, 2048}, {2048, 5632}};
  for (const auto& [out, in] : shapes) {
    const std::size_t half = out / 2;
    const matrix weights(comm.is_root() ? out : half, in, 0.01f), x(1, in, 1.0f);
    matrix y(1, out, 0.0f);
    const bool first = comm.is_root();
    const auto n = static_cast<int>(out), k = static_cast<int>(in);
    const auto multiply = [&](std::size_t count) {
      shardkit::cblas_gemm()(x.input(), weights.input().row_range(0, count), y.output().column_range(0, count),
                             shardkit::gemm_args<float>{});
    };
    const std::vector<double> t =
        measure(comm, given.rounds,
                {{[&] {
                   if (first) multiply(out);
                 }},
                 {[&] {
                   if (first)
                     cblas_sgemv(CblasRowMajor, CblasNoTrans, n, k, 1, weights.values.data(), k, x.values.data(), 1, 0,
                                 y.values.data(), 1);
                 }},
                 {[&] {
                   for (std::size_t row = 0; first && row < out; ++row)
                     y.values[row] = cblas_sdot(k, weights.values.data() + row * in, 1, x.values.data(), 1);
                 }},
                 {[&] { multiply(half); }}});
    const double kilobytes = static_cast<double>(out * in * sizeof(float)) * 1e-3;
    if (first)
      std::printf("| %zux%zu | %.1f | %.1f | %.1f | %.1f | %.2fx | %.1f |\n", out, in, kilobytes / 1048.576,
                  kilobytes / t[0], kilobytes / t[1], kilobytes / t[2], std::min(t[1], t[2]) / t[0], kilobytes / t[3]);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const options given(argc, argv);
  shardkit::set_blas_threads(1);
  shardkit::run_ranks(2, [&](thread_communicator& comm) {
    pin_to_core(comm.rank());
    if (given.part != "generation") measure_block(comm, given);
    if (given.part != "block") measure_generation(comm, given);
  });
}
