// The kernels, and on the double their stand-ins: the code of one cell, one vector or one candidate is the device's
// own, run on the host in the place of the grid.
#include "kernels.hpp"

#include <double/control.hpp>

#include <shardkit/cuda/kernels.cuh>

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace cuda_tests {
namespace {

using namespace shardkit::detail;
using shardkit::bfloat16;
using shardkit::candidate;
using shardkit::cuda_space;
using shardkit::float16;
using shardkit_double::access;
using shardkit_double::access_mode;
using shardkit_double::kernel_launch;
using shardkit_double::operation;
using shardkit_double::progress;
using shardkit_double::storage;

template <class T>
T* stored(T* device) {
  return device == nullptr ? nullptr : static_cast<T*>(storage(device));
}
template <class T>
cells<T> stored(const cells<T>& device) {
  return {stored(device.data), device.row_stride};
}
template <class T>
access matrix_access(access_mode mode, const T* data, std::size_t rows, std::size_t columns, std::size_t stride) {
  return {mode, data, columns * sizeof(T), rows, stride * sizeof(T)};
}
template <class T>
access matrix_access(access_mode mode, const cells<T>& of, std::size_t rows, std::size_t columns) {
  return matrix_access(mode, of.data, rows, columns, of.row_stride);
}
constexpr access_mode reading = access_mode::read, writing = access_mode::write;

// What a body touches, and the same body on the host's storage.
template <class T>
void tell(const add_bias_cell<T>& of, std::size_t rows, std::size_t columns, operation& op) {
  op.accesses = {matrix_access(writing, of.rows, rows, columns), matrix_access(reading, of.bias, 1, columns, columns)};
}
template <class T>
add_bias_cell<T> on_storage(const add_bias_cell<T>& of) {
  return {stored(of.rows), stored(of.bias)};
}
template <class T>
void tell(const add_cell<T>& of, std::size_t rows, std::size_t columns, operation& op) {
  op.accesses = {matrix_access(writing, of.rows, rows, columns), matrix_access(reading, of.addend, rows, columns)};
}
template <class T>
add_cell<T> on_storage(const add_cell<T>& of) {
  return {stored(of.rows), stored(of.addend)};
}
template <class T>
void tell(const silu_multiply_cell<T>& of, std::size_t rows, std::size_t columns, operation& op) {
  op.accesses = {matrix_access(writing, of.gate, rows, columns), matrix_access(reading, of.up, rows, columns)};
}
template <class T>
silu_multiply_cell<T> on_storage(const silu_multiply_cell<T>& of) {
  return {stored(of.gate), stored(of.up)};
}
template <class T, class Id>
void tell(const gather_rows_cell<T, Id>& of, std::size_t rows, std::size_t columns, operation& op) {
  op.accesses = {matrix_access(writing, of.rows, rows, columns),
                 matrix_access(reading, of.table, of.table_rows, columns),
                 matrix_access(reading, of.ids, 1, rows, rows)};
}
template <class T, class Id>
gather_rows_cell<T, Id> on_storage(const gather_rows_cell<T, Id>& of) {
  return {stored(of.table), of.table_rows, of.first_id, stored(of.ids), stored(of.rows)};
}

template <class Body>
operation cells_on_host(const kernel_launch& launch) {
  const Body body = launch.argument<Body>(0);
  const std::size_t rows = launch.argument<std::size_t>(1), columns = launch.argument<std::size_t>(2);
  operation op;
  tell(body, rows, columns, op);
  op.run = [=] {
    const Body here = on_storage(body);
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t column = 0; column < columns; ++column) here(row, column);
    return progress::done;
  };
  return op;
}

template <class T, class Combination>
operation elements_on_host(const kernel_launch& launch) {
  using body = ordered_reduce_body<T, Combination>;
  const body device = launch.argument<body>(0);
  const std::size_t vectors = launch.argument<std::size_t>(1), count = launch.argument<std::size_t>(2);
  operation op;
  for (int to = 0; to < device.out.count; ++to)
    op.accesses.push_back(shardkit_double::writes(device.out.each[to], count * sizeof(T)));
  for (int rank = 0; rank < device.in.count; ++rank)
    op.accesses.push_back(shardkit_double::reads(device.in.template input<T>(rank), count * sizeof(T)));
  op.run = [=] {
    body here = device;
    for (int to = 0; to < device.out.count; ++to) here.out.each[to] = storage(device.out.each[to]);
    here.in.blocks = stored(device.in.blocks);
    if (here.in.blocks == nullptr)
      for (int rank = 0; rank < device.in.count; ++rank) here.in.each[rank] = storage(device.in.each[rank]);
    for (std::size_t v = 0; v < vectors; ++v) here.vector(v);
    for (std::size_t i = vectors * body::lanes; i < count; ++i) here.element(i);
    return progress::done;
  };
  return op;
}

template <class T>
void tell(const scored_columns<T>& from, const candidate_cells<T>& to, std::size_t rows, std::size_t k, operation& op) {
  op.accesses = {matrix_access(reading, from.scores, rows, from.columns, from.row_stride),
                 matrix_access(writing, to.best, rows, k, to.row_stride)};
}
template <class T, class Id>
void tell(const candidate_lists<T>& from, const index_cells<T, Id>& to, std::size_t rows, std::size_t k,
          operation& op) {
  op.accesses = {shardkit_double::reads(from.lists, from.list_count * rows * k * sizeof(candidate<T>)),
                 matrix_access(writing, to.indices, rows, k, to.index_stride)};
  if (to.scores != nullptr) op.accesses.push_back(matrix_access(writing, to.scores, rows, k, to.score_stride));
}
template <class T>
scored_columns<T> on_storage(scored_columns<T> of) {
  of.scores = stored(of.scores);
  return of;
}
template <class T>
candidate_lists<T> on_storage(candidate_lists<T> of) {
  of.lists = stored(of.lists);
  return of;
}
template <class T>
candidate_cells<T> on_storage(candidate_cells<T> of) {
  of.best = stored(of.best);
  return of;
}
template <class T, class Id>
index_cells<T, Id> on_storage(index_cells<T, Id> of) {
  of.indices = stored(of.indices);
  of.scores = stored(of.scores);
  return of;
}

template <class T, class From, class To>
operation choice_on_host(const kernel_launch& launch) {
  const From from = launch.argument<From>(0);
  const To to = launch.argument<To>(1);
  const std::size_t rows = launch.argument<std::size_t>(2), k = launch.argument<std::size_t>(3);
  if (launch.block[0] != choosing_threads) throw std::invalid_argument("a block of another size");
  operation op;
  tell(from, to, rows, k, op);
  op.run = [=] {
    const From source = on_storage(from);
    const To target = on_storage(to);
    for (std::size_t row = 0; row < rows; ++row) {
      std::vector<candidate<T>> all;
      for (std::size_t i = 0; i < source.size(); ++i) all.push_back(source(row, i));
      std::stable_sort(all.begin(), all.end(), shardkit::chosen_before<T>);
      all.resize(std::max(all.size(), k), candidate<T>::none());
      for (std::size_t place = 0; place < k; ++place) target.put(row, place, all[place]);
    }
    return progress::done;
  };
  return op;
}

bool names(const kernel_launch& launch, const std::string& part) {
  return launch.kernel.find(part) != std::string::npos;
}

template <class T>
operation cells_of_type(const kernel_launch& launch) {
  if (names(launch, "add_bias_cell")) return cells_on_host<add_bias_cell<T>>(launch);
  if (names(launch, "add_cell")) return cells_on_host<add_cell<T>>(launch);
  if (names(launch, "gather_rows_cell")) return cells_on_host<gather_rows_cell<T, std::int32_t>>(launch);
  return cells_on_host<silu_multiply_cell<T>>(launch);
}
template <class T>
operation elements_of_type(const kernel_launch& launch) {
  if (names(launch, "any_combination")) return elements_on_host<T, any_combination>(launch);
  return elements_on_host<T, fixed_combination<shardkit::reduction_kind::sum>>(launch);
}
template <class T>
operation choice_of_type(const kernel_launch& launch) {
  if (names(launch, "scored_columns")) return choice_on_host<T, scored_columns<T>, candidate_cells<T>>(launch);
  return choice_on_host<T, candidate_lists<T>, index_cells<T, std::int32_t>>(launch);
}

}  // namespace

void set_kernel_stand_ins() {
  shardkit_double::set_stand_in("shardkit::detail::over_cells", [](const kernel_launch& launch) {
    if (names(launch, "<float")) return cells_of_type<float>(launch);
    return cells_of_type<bfloat16>(launch);
  });
  shardkit_double::set_stand_in("shardkit::detail::choose", [](const kernel_launch& launch) {
    if (names(launch, "<float")) return choice_of_type<float>(launch);
    return choice_of_type<bfloat16>(launch);
  });
  shardkit_double::set_stand_in("shardkit::detail::over_elements", [](const kernel_launch& launch) {
    if (names(launch, "body<double")) return elements_of_type<double>(launch);
    if (names(launch, "body<float")) return elements_of_type<float>(launch);
    if (names(launch, "float16")) {
      return names(launch, "bfloat16") ? elements_of_type<bfloat16>(launch) : elements_of_type<float16>(launch);
    }
    if (names(launch, "body<int")) return elements_of_type<std::int32_t>(launch);
    if (names(launch, "body<unsigned char")) return elements_of_type<std::uint8_t>(launch);
    throw std::invalid_argument("no stand-in of this type");
  });
}

template <class T>
void kernels<T>::add_bias(matrix rows, shardkit::view<const T, cuda_space> bias, where w) {
  shardkit::operations<cuda_space>::add_bias(rows, bias, w);
}
template <class T>
void kernels<T>::add(matrix rows, const_matrix addend, where w) {
  shardkit::operations<cuda_space>::add(rows, addend, w);
}
template <class T>
void kernels<T>::gather_rows(const_matrix table, std::size_t first_id,
                             shardkit::view<const std::int32_t, cuda_space> ids, matrix rows, where w) {
  shardkit::operations<cuda_space>::gather_rows(table, first_id, ids, rows, w);
}
template <class T>
void kernels<T>::silu_multiply(matrix gate, const_matrix up, where w) {
  shardkit::operations<cuda_space>::silu_multiply(gate, up, w);
}
template <class T>
void kernels<T>::top_k(const_matrix scores, std::size_t first_index, shardkit::matrix_view<candidates, cuda_space> best,
                       where w) {
  shardkit::operations<cuda_space>::top_k(scores, first_index, best, w);
}
template <class T>
void kernels<T>::merge_top_k(shardkit::view<candidates, cuda_space> lists, std::size_t list_count, matrix scores,
                             shardkit::matrix_view<std::int32_t, cuda_space> indices, where w) {
  shardkit::operations<cuda_space>::merge_top_k(lists, list_count, scores, indices, w);
}
template struct kernels<float>;
template struct kernels<bfloat16>;

void ordered_reduce(shardkit::reduction_kind kind, shardkit::dtype type, const void* const* inputs, int input_count,
                    void* out, std::size_t count, shardkit::at<cuda_space> where) {
  shardkit::cuda_ordered_reduce(kind, type, inputs, input_count, &out, 1, count, where);
}
void ordered_reduce_to_each(shardkit::reduction_kind kind, shardkit::dtype type, const void* const* inputs,
                            int input_count, void* const* outputs, int output_count, std::size_t count,
                            shardkit::at<cuda_space> where) {
  shardkit::cuda_ordered_reduce(kind, type, inputs, input_count, outputs, output_count, count, where);
}
void ordered_reduce_blocks(shardkit::reduction_kind kind, shardkit::dtype type, const void* in, int ranks, void* out,
                           std::size_t count, cuda_space::stream stream) {
  shardkit::cuda_ordered_reduce_blocks(kind, type, in, ranks, out, count, stream.handle);
}

}  // namespace cuda_tests
