// Bodies of the stage tests for a communicator of any kind and size.
#pragma once

#include "support.hpp"

#include <shardkit/core/operations.hpp>
#include <shardkit/pipeline/deliver.hpp>
#include <shardkit/pipeline/stage.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace pipeline_test {

using shardkit::delivery;
using shardkit::dtype;
using shardkit::hop;
using shardkit::microbatch;
using shardkit::partition;
using shardkit::port;
using shardkit::port_rows;
using shardkit::stage;

/// Several ports of different types and row counts: the numbers, the rows they belong to, and one word for each hop
/// that says which microbatch it is and how many stages it has passed.
inline std::vector<port> mixed_ports(std::size_t max_rows) {
  return {{"hidden", dtype::f32, width, max_rows},
          {"passed", dtype::u64, 1, 1, port_rows::fixed},
          {"row", dtype::i16, 1, max_rows},
          {"weights", dtype::f64, 3, 2, port_rows::fixed}};
}

/// Runs `batch` rows in these microbatches through the stages; the result is right on every rank.
template <class Communicator>
void forward_equals_serial(stage<Communicator>& pipeline, const partition& microbatches, std::uint64_t seed) {
  auto& comm = pipeline.communicator();
  std::vector<float> result(microbatches.total() * width, -1.0f);
  int expected_index = 0;
  pipeline.forward(microbatches, [&](const microbatch& mb, const hop<>& in, hop<>& out) {
    pause_at_random(mixed(seed, static_cast<std::uint64_t>(mb.index * 64 + pipeline.index())));
    bool right = mb.index == expected_index++ && mb.first == microbatches.offset(mb.index) &&
                 mb.rows == microbatches.count(mb.index) && out.rows() == mb.rows &&
                 in.rows() == (pipeline.is_first() ? 0 : mb.rows);
    const auto x = in.matrix<float>("hidden");
    const auto y = out.matrix<float>(0);
    const auto row_in = in.matrix<std::int16_t>("row");
    const auto row_out = out.matrix<std::int16_t>("row");
    right = right && y.rows() == mb.rows && y.columns() == width && x.rows() == in.rows();
    for (std::size_t i = 0; i < mb.rows; ++i) {
      const auto row = static_cast<std::int16_t>(mb.first + i);
      right = right && (pipeline.is_first() || row_in(i, 0) == row);
      row_out(i, 0) = row;
      for (std::size_t k = 0; k < width; ++k)
        y(i, k) = staged(pipeline.is_first() ? input(mb.first + i, k) : x(i, k), pipeline.index());
    }
    const auto stamp = static_cast<std::uint64_t>(mb.index) * 1000 + static_cast<std::uint64_t>(pipeline.index());
    right = right && (pipeline.is_first() || in.matrix<std::uint64_t>(1)(0, 0) == stamp - 1);
    out.matrix<std::uint64_t>("passed")(0, 0) = stamp;
    const auto weights = out.matrix<double>(3);
    right = right && weights.rows() == 2 && weights.columns() == 3;
    right = right && (pipeline.is_first() || in.matrix<double>(3)(1, 2) == static_cast<double>(stamp - 1) / 8);
    weights(1, 2) = static_cast<double>(stamp) / 8;
    if (pipeline.is_last()) shardkit::copy(shardkit::matrix_view(result.data() + mb.first * width, mb.rows, width), y);
    CHECK(right);
  });
  CHECK(expected_index == microbatches.parts());

  shardkit::deliver(comm, result, delivery::all);
  bool equal = true;
  for (std::size_t row = 0; row < microbatches.total(); ++row)
    for (std::size_t k = 0; k < width; ++k)
      equal = equal && static_cast<double>(result[row * width + k]) == serial(row, k, comm.size());
  CHECK(equal);
}

/// Calls `body` with a stage. Everything was sent when the stage ends, or it would have failed the communicator.
template <class Communicator, class Body>
void with_stage(Communicator& comm, const std::vector<port>& ports, Body body) {
  {
    stage<Communicator> pipeline(comm, ports);
    body(pipeline);
  }
  comm.barrier();
}

/// Every batch size over every number of microbatches, on one stage object.
template <class Communicator>
void forward_over_all_sizes(Communicator& comm, std::size_t largest_batch, int most_microbatches) {
  with_stage(comm, mixed_ports(largest_batch), [&](auto& pipeline) {
    for (std::size_t batch = 0; batch <= largest_batch; ++batch)
      for (int parts = 1; parts <= most_microbatches; ++parts) {
        CAPTURE(batch);
        CAPTURE(parts);
        const std::uint64_t seed = mixed(batch, static_cast<std::uint64_t>(parts));
        forward_equals_serial(pipeline, partition::balanced(batch, parts), seed);
      }
  });
}

template <class Communicator>
void forward_over_uneven_microbatches(Communicator& comm) {
  for (const partition& uneven :
       {partition::from_counts({0, 5, 0, 13, 1}), partition::from_counts({13}), partition::from_counts({0}),
        partition::from_counts({1, 2, 3, 4, 5, 6}), partition::from_counts({0, 0, 0, 1}), partition::block(10, 7)})
    with_stage(comm, mixed_ports(13),
               [&](auto& pipeline) { forward_equals_serial(pipeline, uneven, mixed(uneven.total())); });
}

/// A loop of the engine's own over the blocks, with two hops expected ahead.
template <class Communicator>
void blocks_in_a_loop_of_ones_own(Communicator& comm) {
  with_stage(comm, {{"hidden", dtype::f32, width, 7}}, [&](auto& pipeline) {
    const std::vector<std::size_t> rows{3, 7, 0, 1, 5, 7, 2};
    pipeline.guarded("loop", [&] {
      pipeline.expect(rows[0]);
      pipeline.expect(rows[1]);
      for (std::size_t i = 0; i < rows.size(); ++i) {
        const hop<>& in = pipeline.receive();
        CHECK(in.rows() == (pipeline.is_first() ? 0 : rows[i]));
        hop<>& out = pipeline.outgoing(rows[i]);
        const auto x = in.matrix<float>(0);
        const auto y = out.matrix<float>("hidden");
        bool right = true;
        for (std::size_t r = 0; r < rows[i]; ++r)
          for (std::size_t k = 0; k < width; ++k) {
            const float before = pipeline.is_first() ? input(i * 10 + r, k) : x(r, k);
            y(r, k) = staged(before, pipeline.index());
            right = right && static_cast<double>(y(r, k)) == serial(i * 10 + r, k, pipeline.index() + 1);
          }
        CHECK(right);
        pipeline.pass_on();
        // At first hop 1 is expected already; later the hop that was read last holds one of the two slots.
        if (i > 0 && i + 1 < rows.size()) pipeline.expect(rows[i + 1]);
      }
      pipeline.drain();
    });
  });
}

/// Each way of delivery reaches whom it names and leaves the others alone.
template <class Communicator>
void deliveries_reach_whom_they_name(Communicator& comm) {
  for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{1000}})
    for (const delivery to : {delivery::last, delivery::root, delivery::all}) {
      std::vector<std::int32_t> result(n, comm.is_last() ? 42 : -comm.rank() - 1);
      const bool has_it = comm.is_last() || to == delivery::all || (to == delivery::root && comm.is_root());
      // Ranks that get nothing need no memory for it.
      if (!has_it) result.resize(std::min<std::size_t>(n, 1));
      shardkit::deliver(comm, result, to);
      for (const std::int32_t value : result) CHECK(value == (has_it ? 42 : -comm.rank() - 1));
    }
}

}  // namespace pipeline_test
