// The bytes of a file that make up one slice of a tensor: a list of runs, repeated at a fixed distance.
#pragma once

#include <shardkit/checkpoint/archive.hpp>
#include <shardkit/checkpoint/slice.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace shardkit {
namespace detail {

/// For [outer][extent][inner] elements cut along the middle: each of `rows` outer steps holds `runs`.
struct strided_source {
  struct run {
    std::uint64_t offset, bytes;  // counted from the beginning of its row
  };
  std::size_t file = 0;
  std::uint64_t begin = 0;  // of the first row within the file
  std::uint64_t rows = 0;
  std::uint64_t row_bytes = 0;
  std::vector<run> runs;

  std::uint64_t bytes() const noexcept {
    std::uint64_t each = 0;
    for (const run& one : runs) each += one.bytes;
    return rows * each;
  }
};

inline strided_source source_of(const tensor_info& tensor, const slice::resolved& cut) {
  strided_source source;
  source.file = tensor.file;
  source.begin = tensor.offset;
  if (tensor.bytes == 0) return source;
  source.rows = 1;
  source.row_bytes = tensor.bytes;
  if (tensor.shape.empty()) {
    source.runs.push_back({0, tensor.bytes});
    return source;
  }
  for (std::size_t d = 0; d < cut.dimension; ++d) source.rows *= tensor.shape[d];
  source.row_bytes = tensor.bytes / source.rows;
  const std::uint64_t item = source.row_bytes / tensor.shape[cut.dimension];
  for (const index_range& range : cut.ranges) {
    if (range.count == 0) continue;
    if (!source.runs.empty() && source.runs.back().offset + source.runs.back().bytes == range.first * item)
      source.runs.back().bytes += range.count * item;
    else source.runs.push_back({range.first * item, range.count * item});
  }
  if (source.runs.size() == 1 && source.runs[0].bytes == source.row_bytes) {
    source.runs[0].bytes = tensor.bytes;
    source.row_bytes = tensor.bytes;
    source.rows = 1;
  }
  return source;
}

/// Walks the runs in order, any number of bytes at a time.
class run_cursor {
 public:
  explicit run_cursor(const strided_source& of) noexcept : source_(&of), row_(of.runs.empty() ? of.rows : 0) {}

  bool done() const noexcept { return row_ == source_->rows; }
  /// Where the next byte lies in the file.
  std::uint64_t position() const noexcept {
    return source_->begin + row_ * source_->row_bytes + source_->runs[run_].offset + within_;
  }
  /// Bytes left of the current run.
  std::uint64_t remaining() const noexcept { return source_->runs[run_].bytes - within_; }
  /// Bytes walked so far.
  std::uint64_t walked() const noexcept { return walked_; }
  /// At most remaining().
  void advance(std::uint64_t bytes) noexcept {
    walked_ += bytes;
    within_ += bytes;
    if (within_ < source_->runs[run_].bytes) return;
    within_ = 0;
    if (++run_ < source_->runs.size()) return;
    run_ = 0;
    ++row_;
  }

 private:
  const strided_source* source_;
  std::uint64_t row_, within_ = 0, walked_ = 0;
  std::size_t run_ = 0;
};

}  // namespace detail
}  // namespace shardkit
