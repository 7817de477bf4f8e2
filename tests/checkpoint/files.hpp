// Files of the checkpoint tests: a directory that goes away, and safetensors files put together by hand, so that they
// can break any rule.
#pragma once

#include <shardkit/core/error.hpp>

#include <doctest/doctest.h>
#include <support/temporary_folder.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace files {

class directory : public shardkit_test::temporary_folder {
 public:
  /// Puts a file with these contents there and returns its path.
  std::string write(const std::string& name, const std::string& contents) const {
    std::filesystem::remove(*this / name);  // some file systems flush a file that is written over
    std::ofstream out(*this / name, std::ios::binary);
    out.write(contents.data(), static_cast<std::streamsize>(contents.size()));
    out.close();
    REQUIRE(out.good());
    return *this / name;
  }
};

inline std::string little_endian(std::uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

/// Length, header, data.
inline std::string safetensors(const std::string& header, const std::string& data) {
  return little_endian(header.size()) + header + data;
}

/// Bytes 0, 1, 2, ... of the given number.
inline std::string counting(std::size_t bytes) {
  std::string data(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>(i);
  return data;
}

/// The message of the checkpoint_error that `body` throws; a failed check where it throws none, or something else.
template <class Error = shardkit::checkpoint_error, class Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& failure) {
    return failure.what();
  } catch (const std::exception& other) {
    FAIL_CHECK("another exception: " << other.what());
    return {};
  }
  FAIL_CHECK("no exception");
  return {};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace files
