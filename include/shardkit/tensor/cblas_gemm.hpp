// A GEMM over any CBLAS; see gemm.hpp for the contract. Few rows go to simd_gemm: there a BLAS spends its time on
// packing (and its matrix-vector product on half of the memory's speed).
#pragma once

#include <shardkit/core/error.hpp>
#include <shardkit/tensor/simd_gemm.hpp>

#if !__has_include(<cblas.h>)
#error "shardkit: this needs a CBLAS; link shardkit::cblas, or install libopenblas-dev"
#endif
#include <cblas.h>

#include <cstddef>
#include <limits>
#include <string>

#if defined(__ELF__)
// OpenBLAS has it, others do not: null then.
extern "C" void openblas_set_num_threads(int) __attribute__((weak));
#endif

namespace shardkit {

/// Sets how many threads the BLAS uses, for the whole process. Tensor-parallel ranks want one each: a rank per core,
/// and a BLAS that starts threads of its own beneath them slows all of them down. False where this BLAS offers no
/// such call; then set its environment variable (OMP_NUM_THREADS, MKL_NUM_THREADS, BLIS_NUM_THREADS).
inline bool set_blas_threads(int threads) {
#if defined(__ELF__)
  if (&openblas_set_num_threads != nullptr) {
    openblas_set_num_threads(threads);
    return true;
  }
#endif
  (void)threads;
  return false;
}

/// GEMM of float and double on the host. Row strides become leading dimensions. Throws usage_error where an extent
/// does not fit into the int of CBLAS.
struct cblas_gemm {
  /// Up to so many rows of x, the product is made by simd_gemm, on the calling thread. Measured on AVX-512 and AVX2
  /// machines against OpenBLAS 0.3 on one thread.
  std::size_t few_rows = 32;

  void operator()(matrix_view<const float> x, matrix_view<const float> weights, matrix_view<float> y,
                  const gemm_args<float>& args, host_space::stream = {}) const {
    multiply(cblas_sgemm, x, weights, y, args);
  }
  void operator()(matrix_view<const double> x, matrix_view<const double> weights, matrix_view<double> y,
                  const gemm_args<double>& args, host_space::stream = {}) const {
    multiply(cblas_dgemm, x, weights, y, args);
  }

 private:
  template <class Function, class T>
  void multiply(Function gemm, matrix_view<const T> x, matrix_view<const T> weights, matrix_view<T> y,
                const gemm_args<T>& args) const {
    // Some BLAS refuse the leading dimensions of empty matrices.
    if (y.rows() <= few_rows || x.columns() == 0 || y.empty()) return simd_gemm()(x, weights, y, args);
    gemm(CblasRowMajor, CblasNoTrans, CblasTrans, extent("M", y.rows()), extent("N", y.columns()),
         extent("K", x.columns()), args.alpha, x.data(), extent("x.row_stride", x.row_stride()), weights.data(),
         extent("weights.row_stride", weights.row_stride()), args.beta, y.data(),
         extent("y.row_stride", y.row_stride()));
    if (args.bias.data() != nullptr) operations<host_space>::add_bias(y, args.bias);
    if (args.residual.data() != nullptr) operations<host_space>::add(y, args.residual);
  }

  static int extent(const char* name, std::size_t value) {
    if (value > static_cast<std::size_t>(std::numeric_limits<int>::max()))
      throw usage_error(std::string("cblas_gemm: ") + name + " = " + std::to_string(value) +
                        " does not fit into the int of CBLAS; cut the product into smaller ones");
    return static_cast<int>(value);
  }
};

}  // namespace shardkit
