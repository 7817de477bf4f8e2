// What the model computes on. This is the host: float32 in ordinary memory, BLAS for the products, the kernels of
// kernels.hpp. cuda/cuda_device.hpp is a GPU. The model and the generation are templates that take either, and use
// what is public here; on a GPU all of it is only enqueued, but where a function says that it waits.
#pragma once

#include "host_communicator.hpp"
#include "kernels.hpp"

#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/comm/mesh.hpp>
#include <shardkit/pipeline/hop.hpp>
#include <shardkit/tensor/cblas_gemm.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace llama {

class host_device {
 public:
  using space = shardkit::host_space;
  using communicator = host_communicator;
  using kv_cache = llama::kv_cache;
  using rotary_table = rotary_embedding;
  using head_list = std::vector<head_pair>;
  struct token_room {};

  /// From what connects the ranks' devices, and the grid of the ranks. Here the ranks are the devices.
  host_device(communicator&, shardkit::mesh<host_communicator>& grid)
      : pipeline(grid["pipeline"]), tensor(grid["tensor"]) {
    shardkit::set_blas_threads(1);  // the ranks are the parallelism
  }

  communicator &pipeline, &tensor;
  space::stream stream;
  shardkit::cblas_gemm gemm;

  // ---- Memory ----

  /// Collective: fills the arena from the checkpoint.
  void load(const shardkit::load_plan& plan, shardkit::buffer<std::byte>& arena) {
    shardkit::buffer<std::byte> staging(std::size_t{1} << 20);
    plan.load(tensor, arena, staging);
  }
  rotary_table make_rotary_table(const rotary_embedding& table) const { return table; }
  head_list make_head_list(const std::vector<head_pair>& heads) const { return heads; }
  token_room make_token_room(std::size_t) const { return {}; }

  /// The ids where the embedding reads them. The room is used again when the host has seen what came of them.
  shardkit::view<const int> tokens(const std::vector<int>& ids, token_room&) const { return shardkit::view_of(ids); }
  /// Waits for the device, and returns the values.
  template <class T>
  std::vector<T> fetch(shardkit::view<const T> values) const {
    return {values.begin(), values.end()};
  }
  /// Waits for the device.
  void finish() {}

  // ---- Kernels ----

  void rms_norm(const_matrix x, shardkit::view<const float> weight, float epsilon, matrix out) const {
    llama::rms_norm(x, weight, epsilon, out);
  }
  void rotate(matrix x, const rotary_table& table, std::size_t first_position) const { table.apply(x, first_position); }
  void store(const_matrix k, const_matrix v, std::size_t first_position, kv_cache& cache) const {
    cache.store(k, v, first_position);
  }
  void attend(const_matrix q, const kv_cache& cache, const head_list& heads, std::size_t head_dim,
              std::size_t first_position, matrix out) {
    llama::attend(q, cache, heads, head_dim, first_position, scores_, out);
  }
  void silu_multiply(matrix gate, const_matrix up) const { llama::silu_multiply(gate, up); }

  // ---- From stage to stage: hidden states travel within the hops of the decode_ring ----

  static std::vector<shardkit::port> ports(std::size_t hidden, std::size_t most_rows) {
    return {{"hidden", shardkit::dtype::f32, hidden, most_rows}};
  }
  /// Where a stage leaves its hidden states: in the hop that goes out, or in its own memory.
  matrix room(shardkit::hop<>& out, matrix own) const { return pipeline.is_last() ? own : out.matrix<float>(0); }
  /// Those of the stage before.
  void receive(const shardkit::hop<>& in, matrix hidden) {
    std::copy_n(in.matrix<float>(0).data(), hidden.rows() * hidden.columns(), hidden.data());
  }
  /// To the stage behind.
  void send(const_matrix) {}

 private:
  std::vector<float> scores_;
};

}  // namespace llama
