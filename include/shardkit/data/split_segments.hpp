// A rank's shard of a fused tensor and back: copies each segment's range to its place in the packed shard.
#pragma once

#include <shardkit/data/detail/copy_items.hpp>
#include <shardkit/data/detail/items.hpp>
#include <shardkit/data/segmented_partition.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace shardkit {
namespace detail {

enum class segmented_dimension { rows, columns };

/// Checks the shapes and calls copy(range) for every segment.
template <segmented_dimension Dimension, class T, class Space, class Copy>
void for_each_segment(const participant& who, const char* operation, matrix_view<T, Space> fused,
                      const segmented_partition& segments, std::size_t shard_rows, std::size_t shard_columns,
                      Copy copy) {
  constexpr bool by_rows = Dimension == segmented_dimension::rows;
  if (segments.parts() != who.size())
    who.reject(operation, "the segments are cut over " + std::to_string(segments.parts()) +
                              " ranks and the communicator has " + std::to_string(who.size()));
  const std::size_t items = by_rows ? fused.rows() : fused.columns();
  if (items != segments.total())
    who.reject(operation, "the fused tensor has " + std::to_string(items) + (by_rows ? " rows" : " columns") +
                              " and its segments " + std::to_string(segments.total()));
  const std::size_t count = segments.count(who.rank());
  require_shape(who, operation, "the shard", shard_rows, shard_columns, by_rows ? count : fused.rows(),
                by_rows ? fused.columns() : count);
  for (std::size_t i = 0; i < segments.segments().size(); ++i) copy(segments.range(who.rank(), i));
}

template <segmented_dimension Dimension, class T, class Space>
matrix_view<T, Space> part_of(matrix_view<T, Space> matrix, std::size_t offset, std::size_t count) {
  if constexpr (Dimension == segmented_dimension::rows) return matrix.row_range(offset, count);
  else return matrix.column_range(offset, count);
}

template <segmented_dimension Dimension, class Fused, class Shard>
void split_segments(const participant& who, const char* operation, const Fused& fused, Shard& shard,
                    const segmented_partition& segments, typename space_of<const Fused>::stream on) {
  using space = space_of<const Fused>;
  using T = element_of<const Fused>;
  const matrix_view<const T, space> from = input_rows<space>(fused);
  const matrix_view<T, space> to = output_rows<T, space>(shard);
  for_each_segment<Dimension>(who, operation, from, segments, to.rows(), to.columns(), [&](const segment_range& part) {
    copy_rows<T, space>(part_of<Dimension>(to, part.shard_offset, part.count),
                        part_of<Dimension>(from, part.source_offset, part.count), {on, who.site()});
  });
}

template <segmented_dimension Dimension, class Shard, class Fused>
void merge_segments(const participant& who, const char* operation, const Shard& shard, Fused& fused,
                    const segmented_partition& segments, typename space_of<const Shard>::stream on) {
  using space = space_of<const Shard>;
  using T = element_of<const Shard>;
  const matrix_view<const T, space> from = input_rows<space>(shard);
  const matrix_view<T, space> to = output_rows<T, space>(fused);
  for_each_segment<Dimension>(
      who, operation, to, segments, from.rows(), from.columns(), [&](const segment_range& part) {
        copy_rows<T, space>(part_of<Dimension>(to, part.source_offset, part.count),
                            part_of<Dimension>(from, part.shard_offset, part.count), {on, who.site()});
      });
}

}  // namespace detail

/// `shard` = this rank's items of every segment of `fused`, packed one after the other. An item is an element of a
/// list (a fused bias) or a row of a matrix (a fused weight [out, in] cut along out): fused [segments.total(), k],
/// shard [segments.count(rank), k]. Copies only; ordered on `on`. Wrong shapes fail the communicator and throw
/// usage_error.
template <class Fused, class Shard>
void split_segments(participant who, const Fused& fused, Shard&& shard, const segmented_partition& segments,
                    typename detail::space_of<const Fused>::stream on = {}) {
  detail::require_lasting_output<Shard>();
  detail::split_segments<detail::segmented_dimension::rows>(who, "split_segments", fused, shard, segments, on);
}

/// The inverse: writes the rank's shard to its places in `fused` and leaves the rest as it is. Done for every rank
/// in turn, merge_segments(participant(r, size), shards[r], fused, segments), it restores the whole.
template <class Shard, class Fused>
void merge_segments(participant who, const Shard& shard, Fused&& fused, const segmented_partition& segments,
                    typename detail::space_of<const Shard>::stream on = {}) {
  detail::require_lasting_output<Fused>();
  detail::merge_segments<detail::segmented_dimension::rows>(who, "merge_segments", shard, fused, segments, on);
}

/// The same along columns: fused [m, segments.total()], shard [m, segments.count(rank)]. For weights cut along their
/// input and for activations of a fused layer.
template <class Fused, class Shard>
void split_segment_columns(participant who, const Fused& fused, Shard&& shard, const segmented_partition& segments,
                           typename detail::space_of<const Fused>::stream on = {}) {
  detail::require_lasting_output<Shard>();
  detail::split_segments<detail::segmented_dimension::columns>(who, "split_segment_columns", fused, shard, segments,
                                                               on);
}

/// The inverse along columns.
template <class Shard, class Fused>
void merge_segment_columns(participant who, const Shard& shard, Fused&& fused, const segmented_partition& segments,
                           typename detail::space_of<const Shard>::stream on = {}) {
  detail::require_lasting_output<Fused>();
  detail::merge_segments<detail::segmented_dimension::columns>(who, "merge_segment_columns", shard, fused, segments,
                                                               on);
}

}  // namespace shardkit
