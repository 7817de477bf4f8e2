#include "vocabulary.hpp"

#include <shardkit/core/error.hpp>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace llama {
namespace {

using nlohmann::json;

// GPT-2's byte-level alphabet: printable Latin-1 characters stand for themselves, all other bytes for the characters
// from U+0100 on, in order.
std::map<char32_t, char> byte_of_character() {
  std::map<char32_t, char> bytes;
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    bytes[itself ? byte : next++] = static_cast<char>(byte);
  }
  return bytes;
}

// The table holds characters up to U+0143: one or two bytes of UTF-8 each.
std::string decode(const std::string& piece, const std::map<char32_t, char>& bytes, const std::string& path) {
  std::string text;
  for (std::size_t i = 0; i < piece.size(); ++i) {
    const auto lead = static_cast<unsigned char>(piece[i]);
    char32_t character = lead;
    if (lead >= 0xc0 && i + 1 < piece.size())
      character = static_cast<char32_t>((lead & 0x1f) << 6 | (static_cast<unsigned char>(piece[++i]) & 0x3f));
    const auto found = bytes.find(character);
    if (found == bytes.end()) throw shardkit::checkpoint_error(path + ": '" + piece + "' is no byte-level token");
    text += found->second;
  }
  return text;
}

}  // namespace

vocabulary::vocabulary(const std::string& directory) {
  const std::string path = directory + "/tokenizer.json";
  std::ifstream file(path);
  if (!file) return;
  try {
    const json tokenizer = json::parse(file);
    const auto bytes = byte_of_character();
    std::map<int, bool> special;
    for (const auto& token : tokenizer.value("added_tokens", json::array()))
      special[token.at("id")] = token.value("special", false);
    for (const auto& [piece, id] : tokenizer.at("model").at("vocab").items()) {
      const auto index = id.get<std::size_t>();
      if (index >= pieces_.size()) pieces_.resize(index + 1);
      const auto added = special.find(id.get<int>());
      if (added == special.end()) pieces_[index] = decode(piece, bytes, path);
      else if (!added->second) pieces_[index] = piece;
    }
  } catch (const json::exception& broken) {
    throw shardkit::checkpoint_error(path + ": " + broken.what());
  }
}

const std::string& vocabulary::text(int id) const {
  static const std::string unknown;
  const auto index = static_cast<std::size_t>(id);
  return index < pieces_.size() ? pieces_[index] : unknown;
}

}  // namespace llama
