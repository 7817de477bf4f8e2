// Unequal counts made equal, for what needs the same extent everywhere: captured graphs, fixed kernels.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include <shardkit/core/buffer.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

/// A rank's elements, followed by zero bytes up to the largest count of any rank.
template <class T, class Space>
struct padded {
  buffer<T, Space> values;          ///< largest() elements
  std::vector<std::size_t> counts;  ///< of every rank, before padding

  /// The largest count of any rank.
  std::size_t largest() const noexcept { return values.size(); }
};

/// Collective: copies `mine` and pads it; counts may differ and be 0. On a device the copy runs on the stream.
template <class Communicator, class Data>
auto pad_to_max(Communicator& comm, const Data& mine, typename Communicator::where w = {}) {
  using space = typename Communicator::space;
  const auto x = detail::input_of<space>(mine);
  using element = std::remove_const_t<typename decltype(x)::element_type>;
  std::vector<std::size_t> counts = comm.exchange(x.size(), w);
  buffer<element, space> values(*std::max_element(counts.begin(), counts.end()));
  space::copy(values.data(), x.data(), x.bytes(), w);
  space::fill_bytes(values.data() + x.size(), 0, (values.size() - x.size()) * sizeof(element), w);
  return padded<element, space>{std::move(values), std::move(counts)};
}

}  // namespace shardkit
