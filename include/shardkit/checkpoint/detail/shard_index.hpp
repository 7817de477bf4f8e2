// model.safetensors.index.json: which file of a directory holds which tensor.
//   {"metadata": anything, "weight_map": {"tensor": "model-00001-of-00002.safetensors", ...}}
#pragma once

#include <shardkit/checkpoint/detail/json_stream.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace shardkit {
namespace detail {

/// The weight_map, packed as in header_table.
struct shard_index {
  struct entry {
    std::uint32_t text, name_bytes, shard;
  };

  explicit shard_index(const file& from);

  std::string_view name(const entry& of) const noexcept { return {text.data() + of.text, of.name_bytes}; }

  std::vector<entry> entries;       // ordered by name
  std::vector<char> text;           // names
  std::vector<std::string> shards;  // file names, each once
};

/// Takes the JSON events of an index; keys beside weight_map are passed over.
class index_events : public json_events {
 public:
  index_events(const file& from, shard_index& index)
      : json_events(in_quotes(from.path()) + " is not a valid checkpoint index"), index_(index) {}

  bool has_map() const noexcept { return has_map_; }

  bool null() { return passes() || json_events::null(); }
  bool boolean(bool value) { return passes() || json_events::boolean(value); }
  bool number_integer(nlohmann::json::number_integer_t value) { return passes() || json_events::number_integer(value); }
  bool number_unsigned(nlohmann::json::number_unsigned_t value) {
    return passes() || json_events::number_unsigned(value);
  }
  bool number_float(nlohmann::json::number_float_t value, const std::string& text) {
    return passes() || json_events::number_float(value, text);
  }
  bool start_object(std::size_t size) { return open(false) || json_events::start_object(size); }
  bool start_array(std::size_t size) { return open(true) || json_events::start_array(size); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& text) {
    if (depth_ == 1) {
      in_map_ = text == "weight_map";
      if (in_map_ && has_map_) refuse("weight_map occurs twice");
      has_map_ = has_map_ || in_map_;
    } else if (in_map_) {
      index_.entries.push_back(
          {static_cast<std::uint32_t>(index_.text.size()), static_cast<std::uint32_t>(text.size()), 0});
      index_.text.insert(index_.text.end(), text.begin(), text.end());
    }
    return true;
  }

  bool string(std::string& text) {
    if (passes()) return true;
    if (!in_map_ || depth_ != 2) return json_events::string(text);
    index_.entries.back().shard = shard(text);
    return true;
  }

 private:
  // Within a value that is passed over.
  bool passes() const noexcept { return depth_ > 0 && !in_map_; }
  bool open(bool array) {
    const bool fits = depth_ == 0 ? !array : !in_map_ || (depth_ == 1 && !array);
    if (fits) ++depth_;
    return fits;
  }
  bool close() noexcept {
    if (--depth_ == 1) in_map_ = false;
    return true;
  }

  std::uint32_t shard(const std::string& name) {
    constexpr std::string_view ending = ".safetensors";
    constexpr std::size_t most = 65'536;
    const auto known = numbers_.find(name);
    if (known != numbers_.end()) return known->second;
    const std::string what = "tensor " + in_quotes(index_.name(index_.entries.back())) + " lies in " + in_quotes(name);
    // Plain names only: a path could lead out of the checkpoint's directory.
    if (name.find_first_of("/\\") != std::string::npos || name.find('\0') != std::string::npos)
      refuse(what + ", which is not a file name within the directory");
    if (name.size() <= ending.size() || std::string_view(name).substr(name.size() - ending.size()) != ending)
      refuse(what + ", which is not a .safetensors file");
    if (index_.shards.size() == most) refuse("it names more than " + std::to_string(most) + " files");
    const auto number = static_cast<std::uint32_t>(index_.shards.size());
    numbers_.emplace(name, number);
    index_.shards.push_back(name);
    return number;
  }

  shard_index& index_;
  std::unordered_map<std::string, std::uint32_t> numbers_;
  std::size_t depth_ = 0;
  bool in_map_ = false, has_map_ = false;
};

inline shard_index::shard_index(const file& from) {
  constexpr std::uint64_t longest = 100'000'000;  // as for a header
  index_events events(from, *this);
  if (from.size() > longest)
    events.refuse("it has " + std::to_string(from.size()) + " bytes, more than " + std::to_string(longest));
  entries.reserve(static_cast<std::size_t>(from.size() / 20 + 1));  // "":".safetensors", and some of a name
  text.reserve(static_cast<std::size_t>(from.size()));
  read_json(from, 0, from.size(), events);
  if (!events.has_map()) events.refuse("it lacks weight_map");
  std::sort(entries.begin(), entries.end(), [&, this](const entry& a, const entry& b) { return name(a) < name(b); });
  const auto twin = std::adjacent_find(entries.begin(), entries.end(),
                                       [&, this](const entry& a, const entry& b) { return name(a) == name(b); });
  if (twin != entries.end()) events.refuse("tensor " + in_quotes(name(*twin)) + " occurs twice in weight_map");
}

}  // namespace detail
}  // namespace shardkit
