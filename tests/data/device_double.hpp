// A memory space that is not the host and can be looked at: host memory, a stream with a number, and a record of the
// copies. Shows what the splits ask of a device.
#pragma once

#include <shardkit/core/view.hpp>

#include <cstddef>
#include <vector>

struct device_double {
  struct stream {
    int number = 0;
  };
  struct copy_record {
    int stream;
    std::size_t rows;
  };

  static constexpr const char* name = "device double";
  static constexpr std::size_t alignment = 64;

  static void copy_2d(void* to, std::size_t to_stride, const void* from, std::size_t from_stride, std::size_t row_bytes,
                      std::size_t rows, stream on) {
    copies.push_back({on.number, rows});
    shardkit::host_space::copy_2d(to, to_stride, from, from_stride, row_bytes, rows);
  }

  static inline std::vector<copy_record> copies;
};
