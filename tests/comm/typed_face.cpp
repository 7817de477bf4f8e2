// What may be handed to a verb, and what becomes of it: kinds of buffers, element types of one's own, call sites.
#include <doctest/doctest.h>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/launch/run_ranks.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

using shardkit::in_place;
using shardkit::partition;
using shardkit::run_ranks;
using shardkit::thread_communicator;
using shardkit::view;

namespace engine {

/// A tensor of somebody's engine, and all that it takes to pass it.
struct tensor {
  std::vector<float> storage;
};
inline view<float> view_of(tensor& x) { return {x.storage.data(), x.storage.size()}; }
inline view<const float> view_of(const tensor& x) { return {x.storage.data(), x.storage.size()}; }

struct half {
  std::uint16_t bits;
};
struct quarter {
  std::uint8_t bits;
};

}  // namespace engine

template <>
struct shardkit::dtype_traits<engine::half> {
  static constexpr dtype value = dtype::bf16;
};
template <>
struct shardkit::dtype_traits<engine::quarter> {
  static constexpr dtype value = dtype::f8e4m3;
};

TEST_CASE("every kind of contiguous buffer can be passed") {
  run_ranks(2, [](thread_communicator& comm) {
    const float mine = static_cast<float>(comm.rank() + 1);
    const auto gathers = [&](const auto& in, auto&& out, auto read) {
      comm.all_gather(in, out);
      CHECK(read(0) == 1.0f);
      CHECK(read(1) == 2.0f);
    };
    std::vector<float> vector(2);
    std::array<float, 2> array{};
    float plain[2]{};
    shardkit::buffer<float> owned(2);
    engine::tensor tensor{{0, 0}};
    const auto at = [](auto& x) { return [&x](std::size_t i) { return x[i]; }; };
    gathers(std::vector<float>{mine}, vector, at(vector));
    gathers(std::array<float, 1>{mine}, array, at(array));
    const float one[] = {mine};
    gathers(one, plain, at(plain));
    gathers(view(&mine, 1), owned, at(owned));
    gathers(std::span<const float>(&mine, 1), std::span<float>(vector), at(vector));
    gathers(engine::tensor{{mine}}, tensor, at(tensor.storage));
    gathers(std::initializer_list<float>{mine}, view(vector.data(), vector.size()), at(vector));
    const std::vector<float> constant{mine};
    gathers(constant, vector, at(vector));

    comm.all_reduce(in_place(tensor), shardkit::sum);
    CHECK(tensor.storage[1] == 4.0f);
    comm.all_reduce(in_place(std::span<float>(vector).first(1)), shardkit::sum);
    CHECK(vector[0] == 2.0f);
    CHECK(vector[1] == 2.0f);
  });
}

TEST_CASE("an element type of one's own travels and reduces as the dtype that it names") {
  run_ranks(3, [](thread_communicator& comm) {
    std::vector<engine::half> x{{0x3f80}};  // 1.0 in bf16
    comm.all_reduce(in_place(x), shardkit::sum);
    CHECK(x[0].bits == 0x4040);  // 3.0

    std::vector<engine::quarter> all(3);
    const engine::quarter mine{static_cast<std::uint8_t>(0x7f - comm.rank())};
    comm.all_gather(view(&mine, 1), all);
    CHECK(all[2].bits == 0x7d);
    std::vector<std::byte> bytes(1, std::byte{static_cast<unsigned char>(comm.rank())});
    comm.broadcast(bytes, 2);
    CHECK(bytes[0] == std::byte{2});
  });
  CHECK_THROWS_AS(run_ranks(2,
                            [](thread_communicator& comm) {
                              std::vector<engine::quarter> x(4);
                              comm.all_reduce(in_place(x), shardkit::sum);
                            }),
                  shardkit::unsupported_error);
}

TEST_CASE("an error names the line that made the call") {
  int line = 0;
  std::string what;
  try {
    run_ranks(1, {.limits = {}, .on_failure = nullptr}, [&](thread_communicator& comm) {
      std::vector<float> x(2), y(3);
      line = __LINE__ + 1;
      comm.all_reduce(x, y, shardkit::sum);
    });
  } catch (const shardkit::usage_error& wrong) {
    what = wrong.what();
    CHECK(wrong.context().site.line == line);
    CHECK(wrong.context().operation == "all_reduce");
    CHECK(wrong.context().communicator == "world");
    CHECK(wrong.context().rank == 0);
    CHECK(wrong.context().size == 1);
    CHECK(wrong.context().sequence == 1);
  }
  CHECK(what.find("typed_face.cpp:" + std::to_string(line)) != std::string::npos);
}

TEST_CASE("a group refuses a communicator that was moved from, and so does whatever wraps one") {
  const shardkit::launch_options quiet{.limits = {}, .on_failure = nullptr};
  CHECK_THROWS_WITH_AS(run_ranks(2, quiet,
                                 [](thread_communicator& comm) {
                                   auto other = comm.split(0), taken = std::move(other);
                                   comm.group([&](auto& g) { g.with(other).barrier(); });
                                 }),
                       doctest::Contains("with at "), shardkit::usage_error);
  CHECK_THROWS_WITH_AS(run_ranks(2, quiet,
                                 [](thread_communicator& comm) {
                                   auto taken = std::move(comm);
                                   (void)shardkit::erase(std::move(comm));
                                 }),
                       doctest::Contains("erase at "), shardkit::usage_error);
}

TEST_CASE("names follow the communicator through split and erase") {
  run_ranks(4, [](thread_communicator& comm) {
    CHECK(comm.name() == "world");
    CHECK(comm.is_root() == (comm.rank() == 0));
    CHECK(comm.is_last() == (comm.rank() == 3));
    auto child = comm.split(comm.rank() / 2, 0, "pipeline");
    CHECK(child.name() == "pipeline");
    CHECK(child.split(7).name() == "pipeline/7");
    auto any = shardkit::erase(std::move(child));
    CHECK(any.name() == "pipeline");
    CHECK(any.split(8).name() == "pipeline/8");
    CHECK(any.size() == 2);
    CHECK(any.rank() == comm.rank() % 2);
  });
}
