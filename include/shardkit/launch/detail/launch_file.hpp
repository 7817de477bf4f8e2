// One file of a file_bootstrap: a line that says of which launch it is, then the blob.
#pragma once

#include <shardkit/comm/bootstrap.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>

namespace shardkit::detail {

inline constexpr int launch_file_version = 1;

inline std::string launch_file_header(int size, const std::string& token) {
  return "shardkit " + std::to_string(launch_file_version) + " size " + std::to_string(size) + " token " +
         std::to_string(token.size()) + " " + token + "\n";
}

/// Reads a blob. False where the file does not begin with `header` or is longer than a blob may be; `payload` is then
/// how it begins. Takes memory for what is there.
inline bool read_launch_file(std::FILE* in, const std::string& header, bootstrap::blob& payload) {
  payload.clear();
  char piece[4096];
  const std::size_t most = header.size() + bootstrap::largest_blob;
  for (std::size_t got = 1; got != 0 && payload.size() <= most;) {
    got = std::fread(piece, 1, sizeof piece, in);
    payload.insert(payload.end(), piece, piece + got);
  }
  if (payload.size() > most || payload.size() < header.size() ||
      !std::equal(header.begin(), header.end(), payload.begin()))
    return false;
  payload.erase(payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(header.size()));
  return true;
}

}  // namespace shardkit::detail
