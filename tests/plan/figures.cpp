// Numbers worked out by hand from the shapes of the two models.
#include "plan.hpp"

#include <shardkit/core/error.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace {

plan::model smollm2() { return plan::read_model(MODELS "/smollm2-135m.json"); }
plan::model llama() { return plan::read_model(MODELS "/llama-3-8b.json"); }

plan::request mesh(int tensor, int pipeline, int data) {
  plan::request what;
  what.tensor = tensor;
  what.pipeline = pipeline;
  what.data = data;
  return what;
}

}  // namespace

TEST_CASE("A whole model has the parameters that its authors state") {
  CHECK(plan::compute(smollm2(), mesh(1, 1, 1)).parameters == 134515008);
  CHECK(plan::compute(llama(), mesh(1, 1, 1)).parameters == 8030261248);
  CHECK(plan::compute(llama(), mesh(8, 4, 2)).parameters == 8030261248);
  const plan::costs alone = plan::compute(smollm2(), mesh(1, 1, 1));
  REQUIRE(alone.ranks.size() == 1);
  CHECK(alone.ranks[0].weights == 269030016);
  CHECK(alone.tensor_wire == 0);
  CHECK(alone.pipeline_wire == 0);
  CHECK(alone.data_wire == 0);
  CHECK(alone.bubble == doctest::Approx(0));
  CHECK(alone.latency_speed_up == doctest::Approx(1));
  CHECK(alone.throughput_speed_up == doctest::Approx(1));
}

TEST_CASE("Tensor ranks of Llama 3 8B hold a fourth of everything but the norms") {
  const plan::costs costs = plan::compute(llama(), mesh(4, 1, 1));
  REQUIRE(costs.ranks.size() == 4);
  for (const plan::rank_plan& rank : costs.ranks) {
    CHECK(rank.heads == 8);
    CHECK(rank.kv_heads == 2);
    CHECK(rank.features == 3584);
    // 32 x (4096 x 128 x (8 + 8 + 2 + 2) + 3 x 4096 x 3584 + 8192) + 4096 + 2 x 4096 x 32064, two bytes each
    CHECK(rank.weights == 2 * (32ull * (10485760 + 44040192 + 8192) + 4096 + 262668288));
    CHECK(rank.cache == 2ull * 32 * 2 * 128 * 4096 * 2);  // keys and values of two heads, 4096 positions, two bytes
  }
  // 65 sums of 4096 x 2 bytes; a rank of four sends 2 x 3 / 4 of each.
  CHECK(costs.tensor_wire == 65 * 8192 * 1.5);
  CHECK(costs.latency_speed_up == doctest::Approx(4));
  CHECK(costs.throughput_speed_up == doctest::Approx(4));
}

TEST_CASE("Heads that do not divide cost what the busiest rank has") {
  plan::request what = mesh(2, 1, 1);
  what.context = 0;
  const plan::costs costs = plan::compute(smollm2(), what);
  CHECK(costs.ranks[0].heads == 5);
  CHECK(costs.ranks[1].heads == 4);
  CHECK(costs.ranks[0].kv_heads == 2);  // the middle one on both
  CHECK(costs.ranks[1].kv_heads == 2);
  CHECK(costs.ranks[0].cache == 0);
  // 576 x (2 x 64 x 12 + 3 x 1536) a layer against 576 x (2 x 64 x 7 + 3 x 768); the head is cut evenly.
  CHECK(costs.serial_work == 30 * 576.0 * 6144 + 576.0 * 49152);
  CHECK(costs.stage_work.at(0) == 30 * 576.0 * 3200 + 576.0 * 24576);
  CHECK(costs.latency_speed_up == doctest::Approx(costs.serial_work / costs.stage_work.at(0)));
}

TEST_CASE("More ranks than key/value heads hold them several times") {
  const plan::costs costs = plan::compute(llama(), mesh(16, 1, 1));
  for (const plan::rank_plan& rank : costs.ranks) {
    CHECK(rank.heads == 2);
    CHECK(rank.kv_heads == 1);
  }
}

TEST_CASE("The bubble of even stages is (p - 1) / (m + p - 1)") {
  plan::model even = llama();
  even.vocabulary = 0;  // no head to make the last stage longer
  for (int stages : {1, 2, 4, 8})
    for (std::size_t count : {1u, 2u, 5u, 32u}) {
      CAPTURE(stages);
      CAPTURE(count);
      plan::request what = mesh(1, stages, 3);
      what.microbatches = count;
      const plan::costs costs = plan::compute(even, what);
      const double p = stages, m = static_cast<double>(count);
      CHECK(costs.bubble == doctest::Approx((p - 1) / (m + p - 1)));
      CHECK(costs.throughput_speed_up == doctest::Approx(3 * m * p / (m + p - 1)));
      CHECK(costs.latency_speed_up == doctest::Approx(1));
      CHECK(costs.pipeline_wire == (stages == 1 ? 0 : 4096 * 2));
    }
}

TEST_CASE("The first stage holds the embedding, the last one head and norm, a tied table both") {
  const plan::costs apart = plan::compute(llama(), mesh(1, 32, 1));
  const std::uint64_t layer = 4096ull * 128 * 80 + 3ull * 4096 * 14336 + 2 * 4096, table = 4096ull * 128256;
  std::uint64_t sum = 0;
  for (const plan::rank_plan& rank : apart.ranks) {
    const std::uint64_t extra = (rank.stage == 0 ? table : 0) + (rank.stage == 31 ? table + 4096 : 0);
    CHECK(rank.weights == 2 * (rank.layers * layer + extra));
    sum += rank.layers;
  }
  CHECK(sum == 32);
  const plan::costs tied = plan::compute(smollm2(), mesh(1, 2, 1));
  const std::uint64_t small_table = 576ull * 49152;
  CHECK(tied.ranks[0].weights + tied.ranks[1].weights == 2 * (134515008 + small_table));
}

TEST_CASE("Training adds a gradient a weight, and the optimizer's state divided by the replicas") {
  const plan::costs costs = plan::compute(smollm2(), mesh(1, 1, 4));
  CHECK(costs.ranks[0].gradients == 269030016);
  CHECK(costs.ranks[0].optimizer == 134515008 / 4 * 12);
  // Reduce-scatter of the gradients and gather of the weights: 3 / 4 of them each.
  CHECK(costs.data_wire == 2 * 0.75 * 269030016);
}

TEST_CASE("Nonsense is refused by name") {
  CHECK_THROWS_WITH_AS(plan::compute(llama(), mesh(0, 1, 1)), doctest::Contains("every axis"), shardkit::usage_error);
  CHECK_THROWS_WITH_AS(plan::read_model("no/such/place"), doctest::Contains("no/such/place"), shardkit::usage_error);
  const auto path = std::filesystem::temp_directory_path() / "shardkit_plan_broken.json";
  std::ofstream(path) << "{\"hidden_size\": 4}";
  CHECK_THROWS_WITH_AS(plan::read_model(path.string()), doctest::Contains("num_hidden_layers"), shardkit::usage_error);
  std::filesystem::remove(path);
}
