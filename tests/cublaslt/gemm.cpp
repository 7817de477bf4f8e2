// cublaslt_gemm against products in double, its errors, its cache, and its place in CUDA graphs.
#include "float8.hpp"
#include "matrices.hpp"

#include "../cuda/fixture.hpp"

#include <shardkit/tensor/cublaslt_gemm.hpp>
#include <support/captured_graph.hpp>
#include <support/counted_heap.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace cublaslt_tests;
using cuda_tests::clean_machine;
using cuda_tests::extents;
using shardkit::bfloat16;
using shardkit::buffer;
using shardkit::cublas_error;
using shardkit::cublaslt_gemm;
using shardkit::cublaslt_options;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::f8_weights;
using shardkit::float16;
using shardkit::gemm_args;
using shardkit::matrix_view;
using shardkit::usage_error;

/// The distance of neighbouring Ts around 1.
template <class T>
constexpr double unit = std::is_same_v<T, float>     ? 1.0 / (1 << 23)
                        : std::is_same_v<T, float16> ? 1.0 / (1 << 10)
                                                     : 1.0 / (1 << 7);

/// A product in double, and the sum of its summands' magnitudes, of which rounding may cost the part `loss`.
struct reference {
  dense::matrix value, magnitude;
  reference(const dense::matrix& x, const dense::matrix& w) : value(x.rows, w.rows), magnitude(x.rows, w.rows) {
    for (std::size_t m = 0; m < x.rows; ++m)
      for (std::size_t n = 0; n < w.rows; ++n)
        for (std::size_t k = x.columns; k-- > 0;) {
          value(m, n) += x(m, k) * w(n, k);
          magnitude(m, n) += std::fabs(x(m, k) * w(n, k));
        }
  }
  template <class T>
  bool holds(const dense::matrix& got, double loss) const {
    for (std::size_t i = 0; i < got.values.size(); ++i)
      if (!(std::fabs(got.values[i] - value.values[i]) <=
            loss * magnitude.values[i] + unit<T> * std::fabs(value.values[i]) + 1e-7))
        return false;
    return true;
  }
  void add(double factor, const dense::matrix& other) {
    for (std::size_t i = 0; i < value.values.size(); ++i) {
      const double one = factor * other.values[i % other.values.size()];
      value.values[i] += one;
      magnitude.values[i] += std::fabs(one);
    }
  }
  void scale(double factor) {
    for (double& one : value.values) one *= factor;
    for (double& one : magnitude.values) one *= std::fabs(factor);
  }
};

constexpr double summing = 1.0 / (1 << 18);  // of 64 products in f32, whatever the order

template <class T>
void check_product(cublaslt_gemm& gemm, std::size_t rows, std::size_t out, std::size_t in, unsigned variant,
                   double loss = summing, bool has_workspace = false) {
  CAPTURE(rows);
  CAPTURE(out);
  CAPTURE(in);
  CAPTURE(variant);
  const cuda_stream stream;
  const std::size_t gap = variant % 3, shift = variant % 2 * 3;
  const auto x = rounded<T>(dense::rough(rows, in, 1)), w = rounded<T>(dense::rough(out, in, 2)),
             b = rounded<T>(dense::rough(1, out, 3)), r = rounded<T>(dense::rough(rows, out, 4));
  const on_device<T> device_x(x, stream.handle(), gap, shift), device_w(w, stream.handle(), gap, shift),
      device_b(b, stream.handle(), 0, has_workspace ? shift : 0), device_r(r, stream.handle(), gap + 1);
  on_device<T> device_y(r, stream.handle(), gap, shift);
  reference expected(x, w);
  gemm_args<T, cuda_space> args;
  if (variant % 4 == 1) args.alpha = -0.5f, expected.scale(-0.5);
  if (variant % 4 == 2) args.beta = 2, expected.add(2, r);
  if (variant % 4 == 3) args.residual = device_r.view(), expected.add(1, r);
  if (variant / 2 % 2 == 1) args.bias = device_b.flat(), expected.add(1, b);
  gemm(device_x.view(), device_w.view(), device_y.view(), args, stream);
  dense::matrix got(rows, out);
  CHECK(device_y.fetch(got, stream.handle()));
  CHECK(expected.holds<T>(got, loss));
}

template <class Body>
void over_shapes(Body body) {
  unsigned variant = 0;
  for (const std::size_t rows : extents{1, 2, 7, 33})
    for (const std::size_t out : extents{1, 3, 16, 40})
      for (const std::size_t in : extents{1, 5, 16, 61}) body(rows, out, in, variant++);
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <class Error, class Body>
std::string refusal(Body body) {
  try {
    body();
  } catch (const Error& failure) {
    return failure.what();
  }
  return "nothing was thrown";
}

int choices() { return shardkit_double::calls("cublasLtMatmulAlgoGetHeuristic"); }

/// A small product that can be called again and again.
template <class T = float>
struct small_product {
  explicit small_product(std::size_t in = 5)
      : x(dense::exact(3, in, 1), stream.handle()),
        w(dense::exact(4, in, 2), stream.handle()),
        b(dense::exact(1, 4, 3), stream.handle()),
        y(dense::exact(3, 4, 4), stream.handle()),
        expected(dense::times_transposed(dense::exact(3, in, 1), dense::exact(4, in, 2))) {}

  void run(cublaslt_gemm& gemm, const gemm_args<T, cuda_space>& args = {}) {
    gemm(x.view(), w.view(), y.view(), args, stream);
  }
  bool right() {
    dense::matrix got(3, 4);
    return y.fetch(got, stream.handle()) && got.values == expected.values;
  }

  cuda_stream stream;
  on_device<T> x, w, b, y;
  dense::matrix expected;
};

}  // namespace

TEST_CASE("Products of f32, f16 and bf16 are those of double, on awkward shapes, with gaps and off alignment") {
  const clean_machine machine;
  buffer<std::byte, cuda_space> memory(1 << 20);
  for (const bool with_workspace : {false, true}) {
    cublaslt_gemm gemm(with_workspace ? cublaslt_options{.workspace = view_of(memory)} : cublaslt_options{});
    over_shapes([&](auto... shape) { check_product<float>(gemm, shape..., summing, with_workspace); });
    over_shapes([&](auto... shape) { check_product<float16>(gemm, shape..., summing, with_workspace); });
    over_shapes([&](auto... shape) { check_product<bfloat16>(gemm, shape..., summing, with_workspace); });
  }
}

TEST_CASE("TF32 is used where it is asked for, for f32 alone, and sums stay in f32") {
  const clean_machine machine;
  constexpr double tf32 = 1.0 / (1 << 10);
  cublaslt_gemm gemm({.tf32 = true}), exact;
  over_shapes([&](auto... shape) { check_product<float>(gemm, shape..., summing + tf32); });
  check_product<bfloat16>(gemm, 7, 16, 61, 0);
  const auto x = dense::rough(4, 64, 1), w = dense::rough(4, 64, 2);
  const cuda_stream stream;
  const on_device<float> device_x(x, stream.handle()), device_w(w, stream.handle());
  on_device<float> y(x, 0, 4, 0, 4, stream.handle());
  dense::matrix got(4, 4);
  gemm(device_x.view(), device_w.view(), y.view(), gemm_args<float, cuda_space>{}, stream);
  CHECK(y.fetch(got, stream.handle()));
  CHECK_FALSE(reference(x, w).holds<float>(got, summing));
  exact(device_x.view(), device_w.view(), y.view(), gemm_args<float, cuda_space>{}, stream);
  CHECK(y.fetch(got, stream.handle()));
  CHECK(reference(x, w).holds<float>(got, summing));
}

namespace {

bool multiplies_f8() {
  int major = 0, minor = 0;
  REQUIRE(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  REQUIRE(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0) == cudaSuccess);
  return 10 * major + minor >= 89;
}

template <class Element, class Input, class T>
void check_f8() {
  const cuda_stream stream;
  cublaslt_gemm gemm;
  for (const std::size_t rows : extents{1, 3, 32})
    for (const std::size_t in : extents{16, 48})
      for (const bool scaled : {false, true}) {
        constexpr std::size_t out = 32;
        const auto x = rounded<Input>(dense::rough(rows, in, 1)), w = rounded<Element>(dense::rough(out, in, 2)),
                   b = rounded<T>(dense::rough(1, out, 3)), r = rounded<T>(dense::rough(rows, out, 4));
        dense::matrix factors(1, 2);
        factors.values = {0.25, 3};
        const on_device<Input> device_x(x, stream.handle(), 16);
        const on_device<Element> device_w(w, stream.handle(), 32);
        const on_device<T> device_b(b, stream.handle()), device_r(r, stream.handle(), 16);
        const on_device<float> scales(factors, stream.handle());
        on_device<T> y(r, stream.handle(), 16);
        f8_weights<Element, T, Input> weights{device_w.view()};
        reference expected(x, w);
        if (scaled) {
          weights.scale = scales.flat().data(), weights.input_scale = scales.flat().data() + 1;
          expected.scale(0.75);
        }
        gemm_args<T, cuda_space> args;
        args.residual = device_r.view(), expected.add(1, r);
        if (!std::is_same_v<T, float>) args.bias = device_b.flat(), expected.add(1, b);
        gemm(device_x.view(), weights, y.view(), args, stream);
        dense::matrix got(rows, out);
        CHECK(y.fetch(got, stream.handle()));
        // Hopper sums products of 8-bit floats with 14 bits.
        CHECK(expected.holds<T>(got, shardkit_double::active() ? summing : 1.0 / (1 << 10)));
      }
}

}  // namespace

TEST_CASE("8-bit floats are multiplied with their scales into f32, f16 and bf16") {
  const clean_machine machine;
  if (!multiplies_f8()) {
    MESSAGE("left out: this GPU does not multiply 8-bit floats");
    return;
  }
  check_f8<e4m3, e4m3, bfloat16>();
  check_f8<e4m3, e4m3, float16>();
  check_f8<e4m3, e4m3, float>();
  check_f8<e4m3, e5m2, bfloat16>();
  check_f8<e5m2, e4m3, float>();
}

TEST_CASE("8-bit floats that cuBLASLt cannot multiply are refused with the remedy, before anything is enqueued") {
  const clean_machine machine;
  const cuda_stream stream;
  if (shardkit_double::active()) {
    shardkit_double::set_compute_capability(8, 6);
    cublaslt_gemm gemm;
    on_device<e4m3> x(dense::exact(16, 16, 1), stream.handle());
    on_device<bfloat16> y(dense::exact(16, 16, 1), stream.handle());
    const std::string text = refusal<shardkit::unsupported_error>(
        [&] { gemm(x.view(), f8_weights<e4m3>{x.view()}, y.view(), gemm_args<bfloat16, cuda_space>{}, stream); });
    CHECK(has(text, "compute capability 8.6"));
    shardkit_double::set_compute_capability(8, 9);
    cublaslt_gemm ada;
    ada(x.view(), f8_weights<e4m3>{x.view()}, y.view(), gemm_args<bfloat16, cuda_space>{}, stream);
    shardkit::cuda_check(cudaStreamSynchronize(stream.handle()), "cudaStreamSynchronize");
  }
  if (!multiplies_f8()) return;
  cublaslt_gemm gemm;
  struct place {
    std::size_t gap = 0, shift = 0;
  };
  const auto refused = [&](std::size_t in, std::size_t out, place x_at, place w_at, place y_at) {
    on_device<e4m3> x(dense::exact(3, in, 1), stream.handle(), x_at.gap, x_at.shift),
        w(dense::exact(out, in, 1), stream.handle(), w_at.gap, w_at.shift);
    on_device<bfloat16> y(dense::exact(3, out, 1), stream.handle(), y_at.gap, y_at.shift);
    const std::string text = refusal<usage_error>([&] {
      gemm(x.view(), f8_weights<e4m3>{w.view()}, y.view(), gemm_args<bfloat16, cuda_space>{}, stream);
      shardkit::cuda_check(cudaStreamSynchronize(stream.handle()), "cudaStreamSynchronize");
    });
    return has(text, "cut the partition with a granularity of 16");
  };
  CHECK(refused(17, 16, {15}, {15}, {}));
  CHECK(refused(16, 12, {}, {}, {4}));
  CHECK(refused(16, 16, {8}, {}, {}));
  CHECK(refused(16, 16, {}, {8}, {}));
  CHECK(refused(16, 16, {}, {}, {4}));
  CHECK(refused(16, 16, {0, 8}, {}, {}));
  CHECK(refused(16, 16, {}, {0, 8}, {}));
  CHECK(refused(16, 16, {}, {}, {0, 4}));
  CHECK_FALSE(refused(16, 8, {16, 16}, {32, 16}, {8, 8}));
  on_device<e4m3> x(dense::exact(16, 16, 1), stream.handle());
  on_device<float> y(dense::exact(16, 16, 1), stream.handle()), b(dense::exact(1, 16, 1), stream.handle());
  gemm_args<float, cuda_space> args;
  args.bias = b.flat();
  CHECK(has(refusal<usage_error>([&] { gemm(x.view(), f8_weights<e4m3, float>{x.view()}, y.view(), args, stream); }),
            "take no f32 bias"));
}

TEST_CASE("A product of no columns is beta * y, a residual, a bias or zeros") {
  const clean_machine machine;
  cublaslt_gemm gemm;
  for (const int what : {0, 1, 2, 3}) {
    CAPTURE(what);
    small_product<> of(0);
    const auto before = dense::exact(3, 4, 4), r = dense::exact(3, 4, 5), b = dense::exact(1, 4, 3);
    const on_device<float> residual(r, of.stream.handle(), 2);
    gemm_args<float, cuda_space> args;
    of.expected = dense::matrix(3, 4);
    if (what == 1) args.beta = 1, of.expected = before;
    if (what == 2) args.residual = residual.view(), of.expected = r;
    if (what == 3) args.bias = of.b.flat(), dense::add_row(of.expected, b);
    of.run(gemm, args);
    CHECK(of.right());
    args.bias = of.b.flat();
    if (what == 1 || what == 2) CHECK(has(refusal<usage_error>([&] { of.run(gemm, args); }), "would need a kernel"));
  }
  CHECK(gemm.shapes() == 0);
}

TEST_CASE("The algorithm is chosen once for a shape; later calls ask for nothing and allocate nothing") {
  const clean_machine machine;
  small_product<> of;
  cublaslt_gemm gemm;
  const int before = choices();
  of.run(gemm);
  gemm_args<float, cuda_space> args;
  args.bias = of.b.flat();
  of.run(gemm, args);
  CHECK(gemm.shapes() == 2);
  cublaslt_gemm moved(std::move(gemm));
  for (int again = 0; again < 3; ++again) of.run(moved), of.run(moved, args), of.run(moved);
  CHECK(moved.shapes() == 2);
  CHECK(of.right());
  // Another bias.
  const auto other = dense::exact(1, 4, 9);
  const on_device<float> device_other(other, of.stream.handle());
  const dense::matrix without_bias = of.expected;
  args.bias = device_other.flat();
  of.run(moved, args);
  dense::add_row(of.expected, other);
  CHECK(of.right());
  of.expected = without_bias;
  of.run(moved);
  CHECK(moved.shapes() == 2);
  // Another stride, another alignment.
  moved(of.x.view().column_range(1, 4), of.w.view().column_range(1, 4), of.y.view(), {}, of.stream);
  moved(of.x.view().column_range(0, 4), of.w.view().column_range(0, 4), of.y.view(), {}, of.stream);
  CHECK(moved.shapes() == 4);
  if (!shardkit_double::active()) return;
  CHECK(choices() == before + 4);
  // The double itself allocates in what it queues, hence without that.
  shardkit_double::drop_call("cublasLtMatmul", 0);
  of.run(moved);
  const long allocated = counted_heap::own_allocations;
  for (int again = 0; again < 5; ++again) of.run(moved);
  CHECK(counted_heap::own_allocations == allocated);
  CHECK(choices() == before + 4);
  shardkit::cuda_check(cudaStreamSynchronize(of.stream.handle()), "cudaStreamSynchronize");
}

TEST_CASE("A failed call is an error with call, status, shape, types, device, stream and line; the next one works") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  small_product<> of;
  for (const char* function :
       {"cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute", "cublasLtMatrixLayoutCreate",
        "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulAlgoGetHeuristic",
        "cublasLtMatmul"}) {
    CAPTURE(function);
    cublaslt_gemm gemm;
    shardkit_double::fail_call(function, 1, CUBLAS_STATUS_INTERNAL_ERROR);
    const std::string text = refusal<cublas_error>([&] { of.run(gemm); });
    for (const char* part :
         {function, "CUBLAS_STATUS_INTERNAL_ERROR (14)", "y f32 [3, 4] = x f32 [3, 5] times weights f32 [4, 5]",
          "device 0", "stream 0x", "gemm.cpp:"})
      CHECK_MESSAGE(has(text, part), text);
    of.run(gemm);
    CHECK(of.right());
  }
  shardkit_double::fail_call("cublasLtCreate", 1, CUBLAS_STATUS_NOT_INITIALIZED);
  CHECK(has(refusal<cublas_error>([] { cublaslt_gemm(); }), "nvidia-smi"));
}

TEST_CASE("Wrong devices, workspaces and arguments are told before anything is enqueued") {
  const clean_machine machine;
  small_product<> of;
  cublaslt_gemm gemm;
  gemm_args<float, cuda_space> args;
  args.beta = 1, args.residual = of.y.view();
  CHECK(has(refusal<usage_error>([&] { of.run(gemm, args); }), "put their sum into y"));
  args.beta = 0, args.residual = of.x.view();
  CHECK(has(refusal<usage_error>([&] { of.run(gemm, args); }),
            "the residual: [3, 5], and the other operands need [3, 4]"));
  args = {};
  args.bias = of.x.flat();
  CHECK(has(refusal<usage_error>([&] { of.run(gemm, args); }), "the bias: [1, 5], and the other operands need [1, 4]"));
  args.bias = shardkit::view<const float, cuda_space>(of.x.flat().data() + 1, 4);
  CHECK(has(refusal<usage_error>([&] { of.run(gemm, args); }), "has no room for a copy, which needs 256"));
  CHECK(has(refusal<usage_error>([&] { gemm(of.x.view(), of.y.view(), of.y.view(), {}, of.stream); }), "x: [3, 5]"));
  CHECK(has(refusal<usage_error>([&] { gemm(of.x.view(), of.x.view(), of.y.view(), {}, of.stream); }),
            "weights: [3, 5]"));
  buffer<std::byte, cuda_space> memory(1 << 16);
  const auto crooked = view_of(memory).subview(16, 4096);
  CHECK(has(refusal<usage_error>([&] { cublaslt_gemm({.workspace = crooked}); }), "aligned to 256 bytes"));
  args = {};
  args.workspace = crooked;
  CHECK(has(refusal<usage_error>([&] { of.run(gemm, args); }), "aligned to 256 bytes"));
  const auto far_apart = [](auto x) { return decltype(x)(x.data(), x.rows(), x.columns(), std::size_t{1} << 31); };
  CHECK(has(refusal<usage_error>([&] { gemm(far_apart(of.x.view()), of.w.view(), of.y.view(), {}, of.stream); }),
            "31 bits"));
  if (!shardkit_double::active()) return;
  shardkit::cuda_check(cudaSetDevice(1), "cudaSetDevice");
  const std::string text = refusal<usage_error>([&] { of.run(gemm); });
  shardkit::cuda_check(cudaSetDevice(0), "cudaSetDevice");
  CHECK_MESSAGE((has(text, "made on device 0 and is called on device 1") && has(text, "gemm.cpp:")), text);
  CHECK(shardkit_double::calls("cublasLtMatmul") == 0);
}

TEST_CASE("A workspace that two streams use at once is found") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  small_product<> one, other;
  buffer<std::byte, cuda_space> memory(1 << 16);
  cublaslt_gemm gemm({.workspace = view_of(memory)});
  one.run(gemm);
  other.run(gemm);
  const auto found = shardkit_double::reports();
  CHECK(std::any_of(found.begin(), found.end(),
                    [](const auto& r) { return r.kind == shardkit_double::report_kind::race; }));
  for (auto* of : {&one, &other})
    shardkit::cuda_check(cudaStreamSynchronize(of->stream.handle()), "cudaStreamSynchronize");
  shardkit_double::clear_reports();
}

TEST_CASE("A captured product is one node, and gives its result at every replay") {
  const clean_machine machine;
  small_product<> of;
  cublaslt_gemm gemm;
  of.run(gemm);
  CHECK(of.right());
  const int before = choices();
  const shardkit_test::captured_graph graph(of.stream, [&] { of.run(gemm); });
  CHECK(choices() == before);
  if (shardkit_double::active()) CHECK(graph.nodes() == 1);
  for (int replay = 0; replay < 2; ++replay) {
    cuda_space::fill_2d(of.y.view().data(), 4 * sizeof(float), 0, 4 * sizeof(float), 3, of.stream);
    graph.launch(of.stream);
    CHECK(of.right());
  }
}
