// What the tests of this folder have in common: a machine that is clean before and after each case, buffers as bytes,
// and a communicator of one rank that is all streams.
#pragma once

#include <double/control.hpp>

#include <shardkit/comm/communicator.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/device.hpp>
#include <shardkit/cuda/fork.hpp>
#include <shardkit/cuda/pinned_space.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>

#include <doctest/doctest.h>
#include <support/expect_clean.hpp>

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace cuda_tests {

inline constexpr double deadline = 20;
/// What a loop goes over.
using extents = std::initializer_list<std::size_t>;

/// First in every case: at its end, nothing may be wrong and nothing left over.
struct clean_machine {
  clean_machine() { shardkit::cuda_check(cudaSetDevice(0), "cudaSetDevice"); }
  ~clean_machine() { shardkit_test::expect_clean(); }
};

/// Bytes of which no two neighbours are alike.
inline std::vector<unsigned char> pattern(std::size_t bytes, unsigned seed = 1) {
  std::vector<unsigned char> result(bytes);
  for (std::size_t i = 0; i < bytes; ++i) result[i] = static_cast<unsigned char>(seed * 37 + i * 11 + i / 251);
  return result;
}

/// Device memory of the given content, there when the function returns.
template <class T>
shardkit::buffer<T, shardkit::cuda_space> on_device(const std::vector<T>& content) {
  shardkit::buffer<T, shardkit::cuda_space> device(content.size());
  shardkit::buffer<T, shardkit::pinned_space> staging(content.size());
  for (std::size_t i = 0; i < content.size(); ++i) staging[i] = content[i];
  const shardkit::cuda_stream stream;
  copy(device, staging, stream);
  synchronize(stream, deadline);
  return device;
}

/// What device memory holds after everything that `stream` holds.
template <class Device>
auto on_host(const Device& device, shardkit::cuda_space::stream stream) {
  using element = typename Device::value_type;
  shardkit::buffer<element, shardkit::pinned_space> staging(device.size());
  copy(staging, device, stream);
  synchronize(stream, deadline);
  return std::vector<element>(staging.begin(), staging.end());
}

/// One rank whose calls copy `in` to `out` on their stream, as NCCL's do at size 1, so that the double sees what each
/// call reads and writes, and when. Only all_reduce, all_gather and groups of them do something.
class one_rank {
 public:
  using space = shardkit::cuda_space;

  int rank() const noexcept { return 0; }
  int size() const noexcept { return 1; }
  template <class Call>
  void perform(const Call& call) {
    if constexpr (std::is_same_v<Call, shardkit::all_reduce_call> || std::is_same_v<Call, shardkit::all_gather_call>)
      copy(call, call.count);
    else if constexpr (std::is_same_v<Call, shardkit::all_gather_uneven_call>) copy(call, call.layout->total());
  }
  void perform(const shardkit::group_call& group) {
    for (std::size_t i = 0; i < group.count; ++i) visit([&](const auto& call) { perform(call); }, group.calls[i]);
  }
  template <class Call>
  shardkit::request start(const Call& call) {
    perform(call);
    return {};
  }
  one_rank split(int, int, const shardkit::call_site&) { return {}; }
  void exchange(const void*, void*, std::size_t, const shardkit::call_site&) {}
  void fail(const std::string& reason) noexcept { *failure = reason; }
  void throw_if_failed(const shardkit::call_site&) {
    if (*looks > 0 && --*looks == 0) throw shardkit::peer_failed(1, "it was switched off");
  }

  /// Why this rank gave up; empty: it did not.
  std::shared_ptr<std::string> failure = std::make_shared<std::string>();
  /// After so many looks a peer has failed; 0: none does.
  std::shared_ptr<int> looks = std::make_shared<int>(0);

 private:
  template <class Call>
  void copy(const Call& call, std::size_t count) {
    space::copy(call.out, call.in, count * size_of(call.type), {space::from_native(call.stream), call.site});
  }
};

using one_rank_communicator = shardkit::communicator<one_rank>;

}  // namespace cuda_tests
