#include "dense_model.hpp"

#include <shardkit/tensor/cblas_gemm.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

using dense::stored;
using shardkit::cblas_gemm;
using shardkit::gemm_args;
using shardkit::matrix_view;
using shardkit::reference_gemm;
using shardkit::detail::vector_unit;

namespace {

struct unit_gemm {
  vector_unit unit;
  template <class T>
  void operator()(matrix_view<const T> x, matrix_view<const T> weights, matrix_view<T> y,
                  const gemm_args<T>& args) const {
    shardkit::detail::simd_multiply<T>(unit, x, weights, y, args);
  }
};

std::vector<vector_unit> units() {
  std::vector<vector_unit> all{vector_unit::baseline};
  if (shardkit::detail::best_vector_unit() >= vector_unit::avx2) all.push_back(vector_unit::avx2);
  if (shardkit::detail::best_vector_unit() >= vector_unit::avx512) all.push_back(vector_unit::avx512);
  return all;
}

// 0, 1, a vector and its neighbours, more than the rows that are kept resident.
const std::size_t rows_tried[] = {0, 1, 2, 3, 4, 5, 7, 8, 33, 67};
const std::size_t columns_tried[] = {0, 1, 2, 3, 4, 5, 9, 16, 31};
const std::size_t depths_tried[] = {0, 1, 3, 4, 15, 16, 17, 40};

// Calls check(x, weights, y, args, expected) for all shapes, with and without summands, with gaps between rows.
template <class T, class Multiply>
long wrong_elements(Multiply multiply) {
  long wrong = 0;
  for (std::size_t m : rows_tried)
    for (std::size_t n : columns_tried)
      for (std::size_t k : depths_tried)
        for (int variant = 0; variant < 3; ++variant) {
          const std::size_t gap = variant == 1 ? 3 : 0;
          const auto x = dense::exact(m, k, 1), w = dense::exact(n, k, 2), bias = dense::exact(1, n, 3),
                     residual = dense::exact(m, n, 4), before = dense::exact(m, n, 5);
          dense::matrix expected = dense::times_transposed(x, w);
          const stored<T> xs(x, gap), ws(w, gap), bs(bias), rs(residual, gap);
          stored<T> ys(m, n, gap);  // nonsense that beta = 0 must not read
          gemm_args<T> args;
          if (variant == 2) {
            for (double& value : expected.values) value *= 2;
            for (std::size_t i = 0; i < m * n; ++i) expected.values[i] -= before.values[i];
            ys = stored<T>(before, gap);
            args.alpha = 2;
            args.beta = -1;
          }
          if (variant != 0) {
            if (n != 0) dense::add_row(expected, bias);
            dense::add(expected, residual);
            args.bias = bs.flat();
            args.residual = rs.view();
          } else if (m * n != 0) {
            ys.view()(0, 0) = std::numeric_limits<T>::quiet_NaN();
          }
          multiply(xs.view(), ws.view(), ys.view(), args);
          const long here = dense::wrong(ys.view(), expected);
          for (std::size_t row = 0; gap != 0 && row < m; ++row)
            for (std::size_t i = n; i < n + gap; ++i)
              if (ys.view().row(row).data()[i] != stored<T>::nonsense) ++wrong;
          wrong += here;
        }
  return wrong;
}

}  // namespace

TEST_CASE("Every GEMM multiplies every shape and adds its summands, and leaves gaps between rows alone") {
  shardkit::set_blas_threads(1);
  CHECK(wrong_elements<float>(reference_gemm()) == 0);
  CHECK(wrong_elements<double>(reference_gemm()) == 0);
  CHECK(wrong_elements<float>(shardkit::simd_gemm()) == 0);
  for (const vector_unit unit : units()) {
    CAPTURE(static_cast<int>(unit));
    CHECK(wrong_elements<float>(unit_gemm{unit}) == 0);
    CHECK(wrong_elements<double>(unit_gemm{unit}) == 0);
  }
  for (const std::size_t few : {std::size_t{0}, std::size_t{4}, cblas_gemm().few_rows}) {
    CHECK(wrong_elements<float>(cblas_gemm{few}) == 0);
    CHECK(wrong_elements<double>(cblas_gemm{few}) == 0);
  }
}

TEST_CASE("Rounded products stay within the error bound of a sum in any order") {
  for (std::size_t k : {17u, 576u, 1703u}) {
    const auto x = dense::rough(9, k, 1), w = dense::rough(13, k, 2);
    const dense::matrix expected = dense::times_transposed(x, w);
    dense::matrix magnitude = x;
    for (double& value : magnitude.values) value = std::fabs(value);
    dense::matrix magnitude_w = w;
    for (double& value : magnitude_w.values) value = std::fabs(value);
    const dense::matrix bound = dense::times_transposed(magnitude, magnitude_w);
    double worst = 0;
    for (double value : bound.values) worst = std::max(worst, value);
    const double tolerance = static_cast<double>(k) * 6e-8 * worst;
    const stored<float> xs(x), ws(w);
    stored<float> y(9, 13);
    for (const vector_unit unit : units()) {
      unit_gemm{unit}(xs.view(), ws.view(), y.view(), gemm_args<float>{});
      CHECK(dense::wrong(y.view(), expected, 0, tolerance) == 0);
    }
    cblas_gemm{0}(xs.view(), ws.view(), y.view(), gemm_args<float>{});
    CHECK(dense::wrong(y.view(), expected, 0, tolerance) == 0);
  }
}

TEST_CASE("An element's bits do not depend on the weight rows beside it") {
  const std::size_t k = 61;
  const auto x = dense::rough(70, k, 1), w = dense::rough(23, k, 2);
  const stored<float> xs(x), ws(w);
  const auto compare = [&](auto gemm) {
    for (std::size_t m : {1u, 2u, 3u, 6u, 40u, 70u}) {
      stored<float> whole(m, 23), part(m, 23);
      const auto rows = xs.view().row_range(0, m);
      gemm(rows, ws.view(), whole.view(), gemm_args<float>{});
      for (std::size_t n0 = 0; n0 < 23; n0 += 3)
        for (std::size_t n : {std::size_t{1}, std::size_t{5}, 23 - n0}) {
          if (n0 + n > 23) continue;
          const auto out = part.view().column_range(n0, n);
          gemm(rows, ws.view().row_range(n0, n), out, gemm_args<float>{});
          for (std::size_t row = 0; row < m; ++row)
            CHECK(std::memcmp(out.row(row).data(), whole.view().row(row).data() + n0, n * sizeof(float)) == 0);
        }
    }
  };
  compare(reference_gemm());
  for (const vector_unit unit : units()) compare(unit_gemm{unit});
}

TEST_CASE("reference_gemm sums 16-bit floats in float") {
  // In f16, 2048 + 1 is 2048 again.
  stored<shardkit::float16> x(1, 3), w(1, 3), y(1, 1);
  const float values[] = {2048, 1, 1};
  for (std::size_t i = 0; i < 3; ++i) {
    x.view()(0, i) = shardkit::float16(values[i]);
    w.view()(0, i) = shardkit::float16(1.0f);
  }
  reference_gemm()(x.view(), w.view(), y.view(), gemm_args<shardkit::float16>{});
  CHECK(static_cast<float>(y.view()(0, 0)) == 2050.0f);
}

TEST_CASE("cblas_gemm refuses extents that CBLAS cannot express, before it reads anything") {
  const std::size_t beyond = std::size_t{1} << 31;
  const float x = 0, w = 0;
  float y = 7;
  try {
    cblas_gemm{0}(matrix_view<const float>(&x, 1, 1), matrix_view<const float>(&w, 1, 1, beyond),
                  matrix_view<float>(&y, 1, 1), gemm_args<float>{});
    FAIL("nothing was thrown");
  } catch (const shardkit::usage_error& wrong) {
    CHECK(std::string(wrong.what()).find("weights.row_stride = 2147483648 does not fit") != std::string::npos);
  }
  CHECK(y == 7);
}
