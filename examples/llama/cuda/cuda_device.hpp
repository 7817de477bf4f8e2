// A GPU as what the model computes on: the public members are those of host_device. All work is enqueued on one stream,
// which the host waits for only to see the candidates for the next token. Plain C++; the kernels are in cuda_device.cu.
#pragma once

#include "../host_communicator.hpp"
#include "../kernels.hpp"

#include <shardkit/backends/cuda_thread_options.hpp>
#include <shardkit/checkpoint/device_ring.hpp>
#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/comm/mesh.hpp>
#include <shardkit/comm/request.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/pinned_space.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>
#include <shardkit/pipeline/hop.hpp>
#include <shardkit/tensor/cublaslt_gemm.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace llama {

class cuda_device {
 public:
  using space = shardkit::cuda_space;
  using communicator = shardkit::any_communicator<space>;
  using matrix = shardkit::matrix_view<float, space>;
  using const_matrix = shardkit::matrix_view<const float, space>;
  template <class T>
  using memory = shardkit::buffer<T, space>;

  /// Keys and values [kv_heads, positions, head_dim] of one sequence in one layer.
  struct kv_cache {
    kv_cache(std::size_t heads, std::size_t dimension, std::size_t most_positions)
        : kv_heads(heads),
          head_dim(dimension),
          positions(most_positions),
          keys(heads * dimension * most_positions),
          values(heads * dimension * most_positions) {}

    std::size_t kv_heads, head_dim, positions;
    memory<float> keys, values;
  };
  struct rotary_table {
    std::size_t head_dim;
    memory<float> cosine, sine;  ///< [positions, head_dim / 2]
  };
  using head_list = memory<head_pair>;
  struct token_room {
    shardkit::buffer<int, shardkit::pinned_space> host;
    memory<int> device;
  };

  /// Works on the calling thread's current GPU.
  cuda_device(communicator& world, shardkit::mesh<host_communicator>& grid)
      : axes_(world, grid.axes()),
        products_(std::size_t{32} << 20),
        pipeline(axes_["pipeline"]),
        tensor(axes_["tensor"]),
        gemm({.workspace = shardkit::view_of(products_)}) {}

 private:  // what the others are made of
  shardkit::mesh<communicator> axes_;
  memory<std::byte> products_;

 public:
  communicator &pipeline, &tensor;
  shardkit::cuda_stream stream;
  shardkit::cublaslt_gemm gemm;

  // ---- Memory ----

  /// Through pinned memory, so that the next piece is read and converted while the former is copied.
  void load(const shardkit::load_plan& plan, memory<std::byte>& arena) {
    shardkit::device_ring ring;
    plan.load(tensor, arena, ring, stream);
  }
  rotary_table make_rotary_table(const rotary_embedding& table) {
    return {table.head_dim(), on_device(table.cosine()), on_device(table.sine())};
  }
  head_list make_head_list(const std::vector<head_pair>& heads) { return on_device(heads); }
  token_room make_token_room(std::size_t most) const {
    return {shardkit::buffer<int, shardkit::pinned_space>(most), memory<int>(most)};
  }

  shardkit::view<const int, space> tokens(const std::vector<int>& ids, token_room& room) {
    std::copy(ids.begin(), ids.end(), room.host.begin());
    const shardkit::view<int, space> there(room.device.data(), ids.size());
    shardkit::copy(there, shardkit::view<const int>(room.host.data(), ids.size()), stream);
    return there;
  }
  template <class T>
  std::vector<T> fetch(shardkit::view<const T, space> values) {
    if (landing_.size() < values.bytes()) landing_ = decltype(landing_)(values.bytes());
    const shardkit::view<T> here(reinterpret_cast<T*>(landing_.data()), values.size());
    shardkit::copy(here, values, stream);
    finish();
    return {here.begin(), here.end()};
  }
  void finish() {
    sent_.wait();
    shardkit::synchronize(stream, shardkit::no_deadline, tensor, pipeline);
  }

  // ---- Kernels ----

  /// Sums over ranks that are threads; see cuda_thread_options.
  static shardkit::cuda_reduce_function ordered_reduce();

  void rms_norm(const_matrix x, shardkit::view<const float, space> weight, float epsilon, matrix out);
  void rotate(matrix x, const rotary_table& table, std::size_t first_position);
  void store(const_matrix k, const_matrix v, std::size_t first_position, kv_cache& cache);
  void attend(const_matrix q, const kv_cache& cache, const head_list& heads, std::size_t head_dim,
              std::size_t first_position, matrix out);
  void silu_multiply(matrix gate, const_matrix up);

  // ---- From stage to stage: the decode_ring tells whose turn it is; hidden states go from GPU to GPU ----

  static std::vector<shardkit::port> ports(std::size_t, std::size_t) { return {}; }
  /// Own memory, when the stage behind has been told of what was sent from there.
  matrix room(shardkit::hop<>&, matrix own) {
    sent_.wait();
    return own;
  }
  void receive(const shardkit::hop<>&, matrix hidden) { pipeline.recv(hidden.flat(), pipeline.rank() - 1, stream); }
  /// Does not wait for the stage behind, which receives when the ring has passed on that it is its turn.
  void send(const_matrix hidden) {
    // nvcc takes the assignment's result, which is no new request, for one that is dropped.
    static_cast<void>(sent_ = pipeline.send_async(hidden.flat(), pipeline.rank() + 1, stream));
  }

 private:
  /// Waits; for what is made once.
  template <class T>
  memory<T> on_device(const std::vector<T>& values) {
    memory<T> there(values.size());
    shardkit::copy(there, values, stream);
    finish();
    return there;
  }

  shardkit::buffer<std::byte, shardkit::pinned_space> landing_;
  shardkit::request sent_;  // of hidden states to the stage behind
};

}  // namespace llama
