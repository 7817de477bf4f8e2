#include "npy.hpp"

#include <shardkit/core/error.hpp>

#include <fstream>

namespace llama {

void write_npy(const std::string& path, const std::vector<float>& values) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(values.size()) + ",), }";
  constexpr std::size_t prefix = 10, alignment = 64;  // magic, version and length; the data begin aligned
  header.append(alignment - (prefix + header.size() + 1) % alignment, ' ');
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8);
  file.put(static_cast<char>(header.size() & 0xff)).put(static_cast<char>(header.size() >> 8));
  file << header;
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!file.flush()) throw shardkit::checkpoint_error(path + ": cannot be written");
}

}  // namespace llama
