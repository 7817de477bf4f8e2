// Takes the JSON events of a safetensors header and checks each tensor as it ends: the types of all values, keys
// present once, shape x dtype free of overflow, in whole bytes and equal to the span of the offsets.
#pragma once

#include <shardkit/checkpoint/detail/header_table.hpp>
#include <shardkit/checkpoint/detail/json_stream.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {
namespace detail {

using text_pairs = std::vector<std::pair<std::string, std::string>>;

class header_events : public json_events {
 public:
  header_events(const std::string& path, header_table& tensors, text_pairs& metadata)
      : json_events(in_quotes(path) + " is not a valid safetensors file"), tensors_(tensors), metadata_(metadata) {}

  bool start_object(std::size_t) {
    switch (state_) {
      case state::start: return enter(state::entries);
      case state::metadata: return enter(state::metadata_entries);
      case state::tensor: return enter(state::fields);
      default: refuse(place() + " may not hold an object");
    }
  }

  bool key(std::string& text) {
    switch (state_) {
      case state::entries:
        if (text == "__metadata__") {
          if (has_metadata_) refuse("__metadata__ occurs twice");
          has_metadata_ = true;
          return enter(state::metadata);
        }
        tensors_.begin_tensor(text);
        has_dtype_ = has_shape_ = has_offsets_ = false;
        return enter(state::tensor);
      case state::metadata_entries:
        if (metadata_.size() == most_metadata)
          refuse("__metadata__ has more than " + std::to_string(most_metadata) + " entries");
        metadata_.emplace_back(std::move(text), std::string());
        return enter(state::metadata_value);
      case state::fields:
        if (text == "dtype") return field(has_dtype_, "dtype", state::dtype_name);
        if (text == "shape") return field(has_shape_, "shape", state::shape);
        if (text == "data_offsets") return field(has_offsets_, "data_offsets", state::offsets);
        refuse(place() + " has an unknown field " + in_quotes(text));
      default: return json_events::key(text);
    }
  }

  bool string(std::string& text) {
    if (state_ == state::metadata_value) {
      metadata_.back().second = std::move(text);
      return enter(state::metadata_entries);
    }
    if (state_ != state::dtype_name) refuse(place() + " may not hold the string " + in_quotes(text));
    const auto type = stored_dtype::from_name(text);
    if (!type) refuse(place() + " has the unknown dtype " + in_quotes(text));
    tensors_.last().type = *type;
    return enter(state::fields);
  }

  bool start_array(std::size_t) {
    if (state_ == state::shape) {
      elements_ = 1;
      has_zero_ = false;
      return enter(state::extents);
    }
    if (state_ == state::offsets) {
      offsets_seen_ = 0;
      return enter(state::offset_values);
    }
    refuse(place() + " may not hold an array");
  }

  bool number_unsigned(nlohmann::json::number_unsigned_t value) {
    if (state_ == state::extents) {
      tensors_.add_extent(value);
      // Zeros are left out of the product, so that the extents to either side of one multiply safely too.
      if (value == 0) has_zero_ = true;
      else if (elements_ > std::numeric_limits<std::uint64_t>::max() / value)
        refuse(place() + " has a shape whose product exceeds 64 bits");
      else elements_ *= value;
      return true;
    }
    if (state_ != state::offset_values) refuse(place() + " may not hold a number");
    if (offsets_seen_ == 2) refuse(place() + " has more than two data_offsets");
    (offsets_seen_++ == 0 ? tensors_.last().begin : tensors_.last().end) = value;
    return true;
  }

  bool end_array() {
    if (state_ == state::offset_values && offsets_seen_ != 2) refuse(place() + " has fewer than two data_offsets");
    return enter(state::fields);
  }

  bool end_object() {
    if (state_ == state::fields) {
      check_tensor();
      return enter(state::entries);
    }
    return enter(state_ == state::metadata_entries ? state::entries : state::finished);
  }

 private:
  enum class state {
    start,             // before the outer object
    entries,           // within it
    finished,          // after it
    metadata,          // awaiting the object of __metadata__
    metadata_entries,  // within it
    metadata_value,    // awaiting a value of it
    tensor,            // awaiting a tensor's object
    fields,            // within it
    dtype_name,        // awaiting the values of its fields
    shape,
    extents,
    offsets,
    offset_values
  };

  // Files have tens. Without a limit, entries of six characters each would take many times the header's length.
  static constexpr std::size_t most_metadata = 65'536;

  bool enter(state next) noexcept {
    state_ = next;
    return true;
  }
  bool field(bool& seen, const char* name, state next) {
    if (seen) refuse(place() + " has " + name + " twice");
    seen = true;
    return enter(next);
  }

  std::string place() const {
    switch (state_) {
      case state::start:
      case state::entries:
      case state::finished: return "the header";
      case state::metadata:
      case state::metadata_entries: return "__metadata__";
      case state::metadata_value: return "__metadata__ " + in_quotes(metadata_.back().first) + ", a string,";
      default: return "tensor " + in_quotes(tensors_.name(tensors_.size() - 1));
    }
  }

  void check_tensor() const {
    if (!has_dtype_ || !has_shape_ || !has_offsets_)
      refuse(place() + " lacks " + (!has_dtype_ ? "dtype" : !has_shape_ ? "shape" : "data_offsets"));
    const header_table::entry& tensor = tensors_.last();
    if (tensor.begin > tensor.end)
      refuse(place() + " ends at " + std::to_string(tensor.end) + " before it begins at " +
             std::to_string(tensor.begin));
    const std::uint64_t elements = has_zero_ ? 0 : elements_;
    if (elements > std::numeric_limits<std::uint64_t>::max() / tensor.type.bits())
      refuse(place() + " has a shape whose size exceeds 64 bits");
    const std::uint64_t bits = elements * tensor.type.bits();
    if (bits % 8 == 0 && bits / 8 == tensor.end - tensor.begin) return;
    const std::string what = place() + ", " + shape_text(tensors_.shape(tensors_.size() - 1)) + " of " +
                             std::string(tensor.type.name()) + ", ";
    if (bits % 8 != 0) refuse(what + "does not fill whole bytes");
    refuse(what + "needs " + std::to_string(bits / 8) + " bytes, its data_offsets span " +
           std::to_string(tensor.end - tensor.begin));
  }

  header_table& tensors_;
  text_pairs& metadata_;
  state state_ = state::start;
  bool has_metadata_ = false, has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  bool has_zero_ = false;
  std::uint64_t elements_ = 1;  // product of the extents that are not 0
  int offsets_seen_ = 0;
};

}  // namespace detail
}  // namespace shardkit
