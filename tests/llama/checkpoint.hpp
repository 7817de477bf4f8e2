// Checkpoints of the tests: the tiny one that the program makes, changed copies of it, and a reader of its own, so that
// the reference shares no code with what it checks.
#pragma once

#include "program.hpp"

#include <shardkit/checkpoint/safetensors_writer.hpp>

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace llama_test {

using nlohmann::json;

struct stored_tensor {
  std::string type;
  std::vector<std::size_t> shape;
  std::string bytes;
};

/// All tensors of a .safetensors file.
inline std::map<std::string, stored_tensor> read_tensors(const std::string& path) {
  const std::string file = read_file(path);
  REQUIRE(file.size() > 8);
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  const json header = json::parse(file.substr(8, length));
  std::map<std::string, stored_tensor> tensors;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const std::size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
    tensors[name] = {entry.at("dtype"), entry.at("shape"), file.substr(8 + length + begin, end - begin)};
  }
  return tensors;
}

/// Its elements; F32, BF16 and F16.
inline std::vector<double> values_of(const stored_tensor& tensor) {
  std::vector<double> values;
  const auto each = [&](auto bits, auto to_value) {
    for (std::size_t at = 0; at < tensor.bytes.size(); at += sizeof bits) {
      std::memcpy(&bits, tensor.bytes.data() + at, sizeof bits);
      values.push_back(to_value(bits));
    }
  };
  const auto single = [](std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<double>(value);
  };
  if (tensor.type == "F32") {
    each(std::uint32_t{}, single);
  } else if (tensor.type == "BF16") {
    each(std::uint16_t{}, [&](std::uint16_t bits) { return single(static_cast<std::uint32_t>(bits) << 16); });
  } else {
    REQUIRE(tensor.type == "F16");
    each(std::uint16_t{}, [](std::uint16_t bits) {
      const int exponent = bits >> 10 & 31, fraction = bits & 1023;  // no infinities among weights
      const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
      return bits >> 15 != 0 ? -size : size;
    });
  }
  return values;
}

/// Writes the tensors again, as they are.
inline void write_tensors(const std::string& path, const std::map<std::string, stored_tensor>& tensors) {
  const std::map<std::string, shardkit::dtype> types = {
      {"F32", shardkit::dtype::f32}, {"BF16", shardkit::dtype::bf16}, {"F16", shardkit::dtype::f16}};
  std::vector<shardkit::tensor_declaration> declared;
  for (const auto& [name, tensor] : tensors) declared.push_back({name, types.at(tensor.type), tensor.shape});
  shardkit::safetensors_writer file(path, declared);
  for (const auto& [name, tensor] : tensors)
    file.write(shardkit::view(reinterpret_cast<const std::byte*>(tensor.bytes.data()), tensor.bytes.size()));
  file.commit();
}

/// A checkpoint directory as --make-tiny writes it, for a test to change.
class tiny_checkpoint {
 public:
  tiny_checkpoint() { std::filesystem::copy(original(), folder_.path(), std::filesystem::copy_options::recursive); }

  const std::string& path() const { return folder_.path(); }
  std::string weights() const { return folder_ / "model.safetensors"; }

  json config() const { return json::parse(read_file(folder_ / "config.json")); }
  void set_config(const json& config) const { write_file(folder_ / "config.json", config.dump()); }
  /// One field of config.json.
  void set(const std::string& field, const json& value) const {
    json changed = config();
    changed[field] = value;
    set_config(changed);
  }
  void remove(const std::string& field) const {
    json changed = config();
    REQUIRE(changed.erase(field) == 1);
    set_config(changed);
  }
  void set_generation_config(const json& config) const {
    write_file(folder_ / "generation_config.json", config.dump());
  }

  void remove_tensor(const std::string& name) const {
    auto tensors = read_tensors(weights());
    REQUIRE(tensors.erase(name) == 1);
    write_tensors(weights(), tensors);
  }

 private:
  // Made once for all tests of a program.
  static const std::string& original() {
    static const directory folder;
    static const std::string made = folder / "tiny";
    if (!std::filesystem::exists(made)) CHECK(output_of(llama({"--make-tiny", made})).empty());
    return made;
  }

  directory folder_;
};

/// Ids that look like a text: deterministic, all over the vocabulary.
inline token_list prompt_of(std::size_t length, std::uint32_t seed = 1) {
  token_list ids;
  std::uint32_t state = seed * 2654435761u + 12345u;
  for (std::size_t i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    ids.push_back(static_cast<int>((state >> 8) % 257));
  }
  return ids;
}

/// One of each length, all different.
inline std::vector<token_list> prompts_of(const std::vector<std::size_t>& lengths) {
  std::vector<token_list> prompts;
  for (std::size_t length : lengths) prompts.push_back(prompt_of(length, static_cast<std::uint32_t>(length)));
  return prompts;
}

}  // namespace llama_test
