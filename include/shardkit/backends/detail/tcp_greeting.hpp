// The first bytes of a connection, both ways: who is there, of which launch. Pure functions over bytes. All greetings
// have the same length and the same places for magic, version and token, in every version.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace shardkit::detail {

enum class greeting_kind : std::uint32_t {
  hello = 1,       ///< to rank 0: rank and size
  welcome = 2,     ///< from rank 0: the hello was accepted
  begin = 3,       ///< from rank 0: all ranks have come
  refused = 4,     ///< from rank 0: the launch cannot be; text says why
  incomplete = 5,  ///< from rank 0: not all have come in time; text says who
};

struct greeting {
  static constexpr std::uint32_t current_version = 3;
  static constexpr std::size_t bytes = 640, longest_token = 128, text_at = 156, longest_text = bytes - text_at;
  using wire = std::array<unsigned char, bytes>;

  std::uint32_t version = current_version;
  greeting_kind kind = greeting_kind::hello;
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::string token;
  std::string text;
};

inline void put_u32(unsigned char* to, std::uint32_t value) noexcept {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<unsigned char>(value >> (8 * i));
}
inline std::uint32_t get_u32(const unsigned char* from) noexcept {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value |= static_cast<std::uint32_t>(from[i]) << (8 * i);
  return value;
}
inline void put_u64(unsigned char* to, std::uint64_t value) noexcept {
  for (int i = 0; i < 8; ++i) to[i] = static_cast<unsigned char>(value >> (8 * i));
}
inline std::uint64_t get_u64(const unsigned char* from) noexcept {
  return get_u32(from) | static_cast<std::uint64_t>(get_u32(from + 4)) << 32;
}

// 0 magic, 8 version, 12 token length, 16 token, 144 kind, 148 rank, 152 size, 156 text (ends at its first zero),
// padded.
inline greeting::wire encode(const greeting& from) {
  greeting::wire to{};
  std::memcpy(to.data(), "shardkit", 8);
  put_u32(&to[8], from.version);
  const std::size_t token = from.token.size() < greeting::longest_token ? from.token.size() : greeting::longest_token;
  put_u32(&to[12], static_cast<std::uint32_t>(token));
  std::memcpy(&to[16], from.token.data(), token);
  put_u32(&to[144], static_cast<std::uint32_t>(from.kind));
  put_u32(&to[148], from.rank);
  put_u32(&to[152], from.size);
  const std::size_t text =
      from.text.size() < greeting::longest_text - 1 ? from.text.size() : greeting::longest_text - 1;
  std::memcpy(&to[greeting::text_at], from.text.data(), text);
  return to;
}

enum class greeting_check {
  good,
  stranger,       ///< not of this protocol, or with another token: not to be answered
  other_version,  ///< of this launch, but built with another version of the library
  nonsense,       ///< of this launch and version, but not well formed
};

/// Reads a greeting. The whole token is compared, whatever differs, so that the time taken tells nothing about it; only
/// `version` is set where the version is another one, and nothing where the token is.
inline greeting_check decode(const greeting::wire& from, const std::string& token, greeting& to) {
  unsigned char expected[greeting::longest_token] = {};
  const std::size_t length = token.size() < sizeof expected ? token.size() : sizeof expected;
  std::memcpy(expected, token.data(), length);
  unsigned different = get_u32(&from[12]) ^ static_cast<std::uint32_t>(length);
  for (std::size_t i = 0; i < sizeof expected; ++i) different |= static_cast<unsigned>(from[16 + i] ^ expected[i]);
  for (std::size_t i = 0; i < 8; ++i)
    different |= static_cast<unsigned>(from[i] ^ static_cast<unsigned char>("shardkit"[i]));
  if (different != 0) return greeting_check::stranger;
  to.version = get_u32(&from[8]);
  if (to.version != greeting::current_version) return greeting_check::other_version;
  const std::uint32_t kind = get_u32(&from[144]);
  if (kind < 1 || kind > 5 || from[greeting::bytes - 1] != 0) return greeting_check::nonsense;
  to.kind = static_cast<greeting_kind>(kind);
  to.rank = get_u32(&from[148]);
  to.size = get_u32(&from[152]);
  to.token = token;
  to.text = reinterpret_cast<const char*>(&from[greeting::text_at]);
  return greeting_check::good;
}

}  // namespace shardkit::detail
