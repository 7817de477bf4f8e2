// The header of one safetensors file, read and checked whole before anything is allocated for its tensors.
//
// A file is 8 bytes of header length (little-endian), the header in JSON, and the tensors' bytes:
//
//   {"__metadata__":{"format":"pt"}, "w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}, ...}
//
// Rules: the reference implementation's, and those its README adds (begins with '{', no duplicate keys); besides,
// fields other than the three, null metadata, more than 65,536 metadata entries and extents whose product overflows
// beside a zero are refused.
#pragma once

#include <shardkit/checkpoint/detail/file.hpp>
#include <shardkit/checkpoint/detail/header_events.hpp>
#include <shardkit/checkpoint/detail/header_table.hpp>
#include <shardkit/checkpoint/stored_dtype.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardkit {

/// Names, types, shapes and places of the tensors of one file.
class safetensors_header {
 public:
  /// Longer headers are refused, as by the reference implementation.
  static constexpr std::uint64_t longest = 100'000'000;
  /// No index: what `find` returns where there is no such tensor.
  static constexpr std::size_t npos = detail::header_table::npos;

  /// Reads and checks the header of the file at `path`. Throws checkpoint_error that names file, tensor and rule.
  /// Takes memory below the length of the header text, and up to three times that while a single string of it is
  /// read.
  explicit safetensors_header(const std::string& path) : safetensors_header(detail::file(path)) {}
  explicit safetensors_header(const detail::file& from) {
    const std::uint64_t length = checked_length(from);
    tensors_.reserve(length);
    detail::header_events events(from.path(), tensors_, metadata_);
    detail::read_json(from, 8, length, events);
    data_begin_ = 8 + length;
    if (const std::size_t twin = tensors_.finish(); twin != npos)
      events.refuse("tensor " + detail::in_quotes(tensors_.name(twin)) + " occurs twice");
    std::sort(metadata_.begin(), metadata_.end());
    for (std::size_t i = 1; i < metadata_.size(); ++i)
      if (metadata_[i].first == metadata_[i - 1].first)
        events.refuse("__metadata__ " + detail::in_quotes(metadata_[i].first) + " occurs twice");
    check_spans(from, events);
  }

  /// Number of tensors. Index 0 has its data first in the file.
  std::size_t size() const noexcept { return tensors_.size(); }
  /// Valid as long as the header.
  std::string_view name(std::size_t index) const noexcept { return tensors_.name(index); }
  /// Of its elements, as stored.
  stored_dtype type(std::size_t index) const noexcept { return tensors_[index].type; }
  /// [] for a single number.
  std::vector<std::size_t> shape(std::size_t index) const { return tensors_.shape(index); }
  /// First byte within the file.
  std::uint64_t offset(std::size_t index) const noexcept { return data_begin_ + tensors_[index].begin; }
  /// Of its elements.
  std::uint64_t bytes(std::size_t index) const noexcept { return tensors_[index].end - tensors_[index].begin; }

  /// Index of the tensor called `name`, or npos.
  std::size_t find(std::string_view name) const noexcept { return tensors_.find(name); }
  /// Index of the i-th tensor in the order of names.
  std::size_t by_name(std::size_t i) const noexcept { return tensors_.by_name(i); }
  /// The file's __metadata__, ordered by key.
  const std::vector<std::pair<std::string, std::string>>& metadata() const noexcept { return metadata_; }

 private:
  static std::uint64_t checked_length(const detail::file& from) {
    const auto refuse = [&](const std::string& why) {
      throw checkpoint_error(detail::in_quotes(from.path()) + " is not a valid safetensors file: " + why);
    };
    if (from.size() < 8)
      refuse("it has " + std::to_string(from.size()) + " bytes, fewer than the 8 that hold the header's length");
    unsigned char start[9] = {};
    from.read(0, start, from.size() < 9 ? 8 : 9);
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i) length = length << 8 | start[i];
    if (length > longest)
      refuse("its header claims " + std::to_string(length) + " bytes, more than the " + std::to_string(longest) +
             " that the format allows; is this another kind of file?");
    if (length > from.size() - 8)
      refuse("its header claims " + std::to_string(length) + " bytes, the file has only " +
             std::to_string(from.size() - 8) + " after the length: is it incomplete?");
    if (length == 0 || start[8] != '{') refuse("its header does not begin with '{'");
    return length;
  }

  void check_spans(const detail::file& from, const detail::header_events& events) const {
    std::uint64_t reached = 0;
    for (std::size_t i = 0; i < size(); ++i) {
      if (tensors_[i].begin != reached)
        events.refuse("tensor " + detail::in_quotes(name(i)) + " begins at byte " + std::to_string(tensors_[i].begin) +
                      " of the data, the one before it ends at " + std::to_string(reached) +
                      (tensors_[i].begin < reached ? ": they overlap" : ": there is a hole"));
      reached = tensors_[i].end;
    }
    const std::uint64_t available = from.size() - data_begin_;
    if (reached != available)
      events.refuse("its tensors take " + std::to_string(reached) + " bytes, the file holds " +
                    std::to_string(available) + " after the header" +
                    (reached > available ? ": is it incomplete?" : ": what follows the last tensor?"));
  }

  detail::header_table tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::uint64_t data_begin_ = 0;
};

}  // namespace shardkit
