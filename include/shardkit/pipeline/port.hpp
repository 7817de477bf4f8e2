// What passes from one stage of a pipeline to the next, as declared by the engine.
#pragma once

#include <shardkit/core/dtype.hpp>

#include <cstddef>
#include <string>

namespace shardkit {

/// How many rows of a port a hop carries.
enum class port_rows {
  of_hop,  ///< as many as the hop has: one for each token or sample
  fixed    ///< always max_rows: a control word, a table that belongs to the hop as a whole
};

/// One matrix [rows, row_elements], row-major without gaps, of every hop. The same list on every stage:
///
///     {"hidden", dtype::f32, 576, 64}, {"positions", dtype::i32, 1, 64}, {"seed", dtype::u64, 1, 1, port_rows::fixed}
struct port {
  std::string name;                    ///< by which hop::matrix finds it
  dtype type;                          ///< of its elements
  std::size_t row_elements;            ///< elements of one row
  std::size_t max_rows;                ///< of one hop; room for so many is allocated once
  port_rows rows = port_rows::of_hop;  ///< how many of them a hop carries
};

}  // namespace shardkit
