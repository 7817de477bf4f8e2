// Writes one safetensors file: all tensors are declared first, then their elements follow in the same order, in pieces
// of any size. The file appears under its name when it is complete, or not at all.
//
//   safetensors_writer out("tiny/model.safetensors", {{"w", dtype::f32, {2, 3}}, {"b", dtype::f32, {3}}});
//   out.write(weights);
//   out.write(bias);
//   out.commit();
#pragma once

#include <shardkit/checkpoint/detail/output_file.hpp>
#include <shardkit/checkpoint/safetensors_header.hpp>
#include <shardkit/checkpoint/stored_dtype.hpp>
#include <shardkit/comm/in_place.hpp>
#include <shardkit/core/dtype.hpp>

#if !__has_include(<nlohmann/json.hpp>)
#error "shardkit: this needs nlohmann-json; link shardkit::checkpoint, or install nlohmann-json3-dev"
#endif
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// What the header says of a tensor.
struct tensor_declaration {
  std::string name;                ///< UTF-8, once in a file
  dtype type = dtype::f32;         ///< of the elements as written
  std::vector<std::size_t> shape;  ///< [] for a single number
};

/// One file under way; see the top of this file.
class safetensors_writer {
 public:
  /// Begins a file beside `path` and writes the header. Throws usage_error for a name that is not UTF-8 or occurs
  /// twice, or a size beyond 63 bits; checkpoint_error where the file cannot be written.
  safetensors_writer(std::string path, std::vector<tensor_declaration> tensors,
                     std::vector<std::pair<std::string, std::string>> metadata = {})
      : tensors_(std::move(tensors)), header_(header_of(tensors_, metadata)), out_(std::move(path)) {
    char length[8];
    for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<char>(header_.size() >> (8 * i));
    out_.append(length, sizeof length);
    out_.append(header_.data(), header_.size());
    skip_complete();
  }

  /// Appends elements of the tensor that is due, in its declared type or as std::byte; at most those still missing.
  template <class X>
  void write(const X& elements) {
    const auto data = detail::input_of<host_space>(elements);
    using element = std::remove_const_t<typename decltype(data)::element_type>;
    if (data.empty()) return;
    if (next_ == tensors_.size()) throw usage_error("safetensors_writer: all declared tensors are complete");
    const tensor_declaration& due = tensors_[next_];
    const std::string name = "safetensors_writer: tensor " + detail::in_quotes(due.name);
    if (!std::is_same<element, std::byte>::value && dtype_of<element> != due.type)
      throw usage_error(name + " was declared as " + name_of(due.type) + ", not " + name_of(dtype_of<element>));
    const std::uint64_t missing = bytes_of(due) - written_;
    if (data.bytes() > missing)
      throw usage_error(name + " misses " + std::to_string(missing) + " bytes, not " + std::to_string(data.bytes()));
    out_.append(data.data(), data.bytes());
    written_ += data.bytes();
    skip_complete();
  }

  /// Gives the file its name; throws usage_error where elements are missing. Without it, the destructor removes what
  /// was written.
  void commit() {
    if (next_ != tensors_.size())
      throw usage_error("safetensors_writer: tensor " + detail::in_quotes(tensors_[next_].name) + " misses " +
                        std::to_string(bytes_of(tensors_[next_]) - written_) + " bytes");
    out_.commit();
  }

 private:
  static std::uint64_t bytes_of(const tensor_declaration& tensor) {
    std::uint64_t bytes = size_of(tensor.type);
    for (const std::size_t extent : tensor.shape) bytes *= extent;
    return bytes;
  }

  static std::uint64_t checked_bytes(const tensor_declaration& tensor, std::uint64_t before) {
    std::uint64_t most = std::numeric_limits<std::int64_t>::max() / size_of(tensor.type);
    for (const std::size_t extent : tensor.shape)
      if (extent != 0) most /= extent;
    const std::uint64_t bytes = most == 0 ? 0 : bytes_of(tensor);
    if (most == 0 || bytes > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) - before)
      throw usage_error("safetensors_writer: tensor " + detail::in_quotes(tensor.name) + " of shape " +
                        detail::shape_text(tensor.shape) + " makes the file larger than a file can be");
    return bytes;
  }

  static std::string json_string(const std::string& text) {
    try {
      return nlohmann::json(text).dump();
    } catch (const nlohmann::json::exception&) {
      throw usage_error("safetensors_writer: " + detail::in_quotes(text) + " is not UTF-8");
    }
  }

  template <class Entries, class Name>
  static void require_distinct(const Entries& entries, Name name) {
    std::vector<std::string> names;
    for (const auto& entry : entries) names.push_back(name(entry));
    std::sort(names.begin(), names.end());
    const auto twin = std::adjacent_find(names.begin(), names.end());
    if (twin != names.end())
      throw usage_error("safetensors_writer: the name " + detail::in_quotes(*twin) + " occurs twice");
  }

  static std::string header_of(const std::vector<tensor_declaration>& tensors,
                               const std::vector<std::pair<std::string, std::string>>& metadata) {
    require_distinct(tensors, [](const tensor_declaration& tensor) { return tensor.name; });
    require_distinct(metadata, [](const auto& entry) { return entry.first; });
    std::string header = "{";
    if (!metadata.empty()) {
      header += "\"__metadata__\":{";
      for (const auto& [key, value] : metadata) header += json_string(key) + ":" + json_string(value) + ",";
      header.back() = '}';
      header += ',';
    }
    std::uint64_t end = 0;
    for (const tensor_declaration& tensor : tensors) {
      if (tensor.name == "__metadata__") throw usage_error("safetensors_writer: no tensor may be called __metadata__");
      const std::uint64_t begin = end;
      end += checked_bytes(tensor, begin);
      header += json_string(tensor.name) + ":{\"dtype\":\"" + std::string(stored_dtype::of(tensor.type).name()) +
                "\",\"shape\":[";
      for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
        if (d != 0) header += ",";
        header += std::to_string(tensor.shape[d]);
      }
      header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]},";
    }
    if (header.size() > 1) header.pop_back();
    header += '}';
    header.resize((header.size() + 7) / 8 * 8, ' ');  // so that the data begin aligned
    if (header.size() > safetensors_header::longest)
      throw usage_error("safetensors_writer: the header takes " + std::to_string(header.size()) + " bytes, more than " +
                        std::to_string(safetensors_header::longest));
    return header;
  }

  // Moves on past tensors of which nothing is missing, empty ones included.
  void skip_complete() {
    while (next_ < tensors_.size() && written_ == bytes_of(tensors_[next_])) {
      ++next_;
      written_ = 0;
    }
  }

  std::vector<tensor_declaration> tensors_;
  std::string header_;
  detail::output_file out_;
  std::size_t next_ = 0;       // the tensor that is due
  std::uint64_t written_ = 0;  // bytes of it
};

}  // namespace shardkit
