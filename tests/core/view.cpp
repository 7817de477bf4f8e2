#include <shardkit/comm/in_place.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/view.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <list>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

// An engine's tensor, which the library has never heard of.
namespace engine {

struct tensor {
  std::vector<float> values;
};
inline shardkit::view<float, shardkit::host_space> view_of(tensor& x) { return {x.values.data(), x.values.size()}; }
inline shardkit::view<const float, shardkit::host_space> view_of(const tensor& x) {
  return {x.values.data(), x.values.size()};
}

// One that is written to only.
struct accumulator {
  float value;
};
inline shardkit::view<float, shardkit::host_space> view_of(accumulator& x) { return {&x.value, 1}; }

}  // namespace engine

using shardkit::matrix_view;
using shardkit::view;
using shardkit::view_of;
using shardkit::detail::has_view;

namespace {

template <class X>
using view_type = decltype(shardkit::detail::as_view(std::declval<X&>()));

}  // namespace

static_assert(std::is_same_v<view_type<std::vector<int>>, view<int>>);
static_assert(std::is_same_v<view_type<const std::vector<int>>, view<const int>>);
static_assert(std::is_same_v<view_type<std::array<double, 3>>, view<double>>);
static_assert(std::is_same_v<view_type<int[4]>, view<int>>);
static_assert(std::is_same_v<view_type<const std::span<int>>, view<int>>);
static_assert(std::is_same_v<view_type<std::span<const int>>, view<const int>>);
static_assert(std::is_same_v<view_type<std::initializer_list<int>>, view<const int>>);
static_assert(std::is_same_v<view_type<view<float>>, view<float>>);
static_assert(std::is_same_v<view_type<shardkit::buffer<float>>, view<float>>);
static_assert(std::is_same_v<view_type<const shardkit::buffer<float>>, view<const float>>);
static_assert(std::is_same_v<view_type<engine::tensor>, view<float>>);
static_assert(std::is_same_v<view_type<const engine::tensor>, view<const float>>);
static_assert(!has_view<std::list<int>>::value && !has_view<std::set<int>>::value && !has_view<std::deque<int>>::value);
static_assert(!has_view<std::vector<bool>>::value && !has_view<int>::value && !has_view<int*>::value);

// A view that points is a fine temporary output; an owner is not.
static_assert(shardkit::detail::is_borrowing<std::span<int>>() && shardkit::detail::is_borrowing<view<int>>());
static_assert(!shardkit::detail::is_borrowing<std::vector<int>>() && !shardkit::detail::is_borrowing<engine::tensor>());
static_assert(has_view<engine::accumulator>::value && !shardkit::detail::is_borrowing<engine::accumulator>());

static_assert(std::is_convertible_v<view<int>, view<const int>> && !std::is_convertible_v<view<const int>, view<int>>);
static_assert(std::is_convertible_v<matrix_view<int>, matrix_view<const int>>);
static_assert(!std::is_convertible_v<matrix_view<const int>, matrix_view<int>>);

TEST_CASE("view_of sees the elements of every contiguous owner where they are") {
  std::vector<int> vector{1, 2, 3};
  CHECK(view_of(vector).data() == vector.data());
  CHECK(view_of(vector).size() == 3);
  int plain[] = {4, 5};
  CHECK(view_of(plain).data() == plain);
  CHECK(view_of(plain).size() == 2);
  engine::tensor tensor{{6, 7, 8, 9}};
  CHECK(shardkit::detail::as_view(tensor).data() == tensor.values.data());
  CHECK(shardkit::detail::as_view(tensor).size() == 4);
  CHECK(shardkit::in_place(tensor).data.data() == tensor.values.data());
}

TEST_CASE("A view is a range of its elements, also at compile time") {
  static constexpr int digits[] = {3, 1, 4, 1, 5};
  constexpr view<const int> all(digits, 5);
  static_assert(all.size() == 5 && all[2] == 4 && !all.empty() && all.bytes() == 5 * sizeof(int));
  static_assert(all.subview(1, 3)[2] == 1 && all.subview(5, 0).empty() && view<int>().empty());
  int sum = 0;
  for (int digit : all) sum += digit;
  CHECK(sum == 14);
  CHECK(shardkit::view(digits, 2).size() == 2);
}

TEST_CASE("A matrix view addresses rows, columns and elements by its stride") {
  std::vector<int> data(3 * 5);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<int>(i);
  const matrix_view<int> wide(data.data(), 3, 4, 5);
  CHECK(wide(2, 3) == 13);
  CHECK(wide.row(1)[2] == 7);
  CHECK(wide.row(1).size() == 4);
  CHECK(!wide.contiguous());
  CHECK(wide.row_range(1, 2)(1, 0) == 10);
  CHECK(wide.row_range(1, 2).rows() == 2);
  const auto columns = wide.column_range(1, 2);
  CHECK(columns.columns() == 2);
  CHECK(columns(2, 1) == 12);
  CHECK(wide.row_range(2, 1).contiguous());
  CHECK(wide.column_range(4, 0).empty());

  const matrix_view dense(data.data(), 3, 5);
  CHECK(dense.contiguous());
  CHECK(dense.row_stride() == 5);
  CHECK(dense.flat().size() == 15);
  CHECK(matrix_view<int>(nullptr, 0, 7).column_range(3, 2).data() == nullptr);
}

TEST_CASE("A buffer owns aligned memory and moves it") {
  shardkit::buffer<double> owner(10);
  CHECK(owner.size() == 10);
  CHECK(reinterpret_cast<std::uintptr_t>(owner.data()) % shardkit::host_space::alignment == 0);
  for (double& x : owner) x = 2;
  const double* where = owner.data();
  shardkit::buffer<double> moved = std::move(owner);
  CHECK(moved.data() == where);
  CHECK(moved[9] == 2);
  CHECK(owner.size() == 0);
  owner = std::move(moved);
  CHECK(owner.data() == where);
  CHECK(shardkit::buffer<int>(0).data() == nullptr);
  static_assert(!std::is_copy_constructible_v<shardkit::buffer<int>>);
}

TEST_CASE("Two-dimensional copies honour both strides and leave the gaps alone") {
  std::vector<char> from{'a', 'b', '.', 'c', 'd', '.'}, to(8, '-');
  shardkit::host_space::copy_2d(to.data(), 4, from.data(), 3, 2, 2);
  CHECK(std::string(to.begin(), to.end()) == "ab--cd--");
  shardkit::host_space::copy_2d(to.data(), 2, from.data(), 2, 2, 3);
  CHECK(std::string(to.begin(), to.end()) == "ab.cd.--");
  shardkit::host_space::copy_2d(nullptr, 0, nullptr, 0, 0, 5);
  shardkit::host_space::fill_bytes(to.data(), 'x', 3);
  CHECK(std::string(to.begin(), to.end()) == "xxxcd.--");
}
