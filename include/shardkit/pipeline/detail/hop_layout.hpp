// Where each port lies within the one message that a hop is. Ports with fixed rows come first, so that they stay at
// their place whatever the rows of the hop.
#pragma once

#include <shardkit/core/error.hpp>
#include <shardkit/pipeline/port.hpp>

#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardkit::detail {

class hop_layout {
 public:
  explicit hop_layout(std::vector<port> ports) : ports_(std::move(ports)) {}

  const std::vector<port>& ports() const noexcept { return ports_; }

  /// The most rows a hop may have: what the smallest port holds.
  std::size_t max_rows() const noexcept {
    std::size_t most = std::numeric_limits<std::size_t>::max();
    for (const port& one : ports_)
      if (one.rows == port_rows::of_hop && one.max_rows < most) most = one.max_rows;
    return most;
  }
  std::size_t rows_of(const port& one, std::size_t rows) const noexcept {
    return one.rows == port_rows::fixed ? one.max_rows : rows;
  }

  /// Writes the offset of every port in a hop of `rows` and returns the bytes of the message.
  std::size_t arrange(std::size_t rows, std::vector<std::size_t>& offsets) const {
    std::size_t end = 0;
    offsets.resize(ports_.size());
    for (const port_rows kind : {port_rows::fixed, port_rows::of_hop})
      for (std::size_t i = 0; i < ports_.size(); ++i) {
        if (ports_[i].rows != kind) continue;
        offsets[i] = (end + alignment - 1) / alignment * alignment;
        end = offsets[i] + rows_of(ports_[i], rows) * ports_[i].row_elements * size_of(ports_[i].type);
      }
    return end;
  }
  /// Bytes of the largest hop.
  std::size_t capacity() const {
    std::vector<std::size_t> offsets;
    const std::size_t most = max_rows();
    return arrange(most == std::numeric_limits<std::size_t>::max() ? 0 : most, offsets);
  }

  /// What is wrong with the declaration; empty where nothing is.
  std::string fault() const {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < ports_.size(); ++i) {
      const port& one = ports_[i];
      if (one.name.empty()) return "port " + std::to_string(i) + " has no name";
      for (std::size_t j = 0; j < i; ++j)
        if (ports_[j].name == one.name) return "two ports have the name '" + one.name + "'";
      if (one.row_elements == 0) return "port '" + one.name + "' has rows of 0 elements; leave it out";
      const std::size_t most = std::numeric_limits<std::size_t>::max() / 2 - bytes;
      const std::size_t row_bytes = one.row_elements * size_of(one.type);
      if (one.row_elements > most / size_of(one.type) || one.max_rows > most / row_bytes)
        return "port '" + one.name + "' has more bytes than there are: " + std::to_string(one.max_rows) + " rows of " +
               std::to_string(one.row_elements) + " elements";
      bytes += one.max_rows * row_bytes + alignment;
    }
    return {};
  }

  /// All of the declaration in words; equal texts, equal messages.
  std::string describe() const {
    std::string text;
    for (const port& one : ports_)
      text += (text.empty() ? "'" : ", '") + one.name + "' " + name_of(one.type) + " [" +
              (one.rows == port_rows::fixed ? "" : "up to ") + std::to_string(one.max_rows) + ", " +
              std::to_string(one.row_elements) + "]";
    return text.empty() ? "no ports" : text;
  }

 private:
  // Enough for vector loads in every space.
  static constexpr std::size_t alignment = 64;

  std::vector<port> ports_;
};

}  // namespace shardkit::detail
