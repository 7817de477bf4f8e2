// Reads the .npy files that the program and NumPy write: one vector of float32.
#pragma once

#include "program.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace llama_test {

inline std::vector<float> read_npy(const std::string& path) {
  const std::string file = read_file(path);
  INFO(path);
  REQUIRE(file.size() >= 10);
  REQUIRE(file.substr(0, 8) == std::string("\x93NUMPY\x01\x00", 8));
  const std::size_t length = static_cast<unsigned char>(file[8]) + 256u * static_cast<unsigned char>(file[9]);
  CHECK((10 + length) % 64 == 0);  // the data lie aligned
  REQUIRE(file.size() >= 10 + length);
  std::vector<float> values((file.size() - 10 - length) / sizeof(float));
  std::memcpy(values.data(), file.data() + 10 + length, values.size() * sizeof(float));
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(values.size()) + ",), }";
  header.resize(length - 1, ' ');
  CHECK(file.substr(10, length) == header + "\n");
  return values;
}

/// max |actual - expected| / max |expected|
template <class Expected>
double relative_error(const std::vector<float>& actual, const std::vector<Expected>& expected) {
  REQUIRE(actual.size() == expected.size());
  double error = 0, largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    error = std::isnan(difference) ? difference : std::max(error, difference);
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
  }
  return error / largest;
}

}  // namespace llama_test
