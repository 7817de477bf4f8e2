// The check of checked<B> for graphs: while calls are captured nobody is asked, and before the graph is launched the
// ranks compare what they have captured, as often as the program likes:
//
//   auto world = with_checks(nccl_world(host));
//   cudaStreamBeginCapture(stream, ...);
//   world.all_reduce(in_place(x), sum, stream);
//   cudaStreamEndCapture(stream, &graph);
//   const captured_calls calls = take_captured(world);
//   verify_replay(world, calls);               // mismatch_error on every rank where the ranks' graphs do not meet
//   cudaGraphLaunch(...);
#pragma once

#include <shardkit/comm/checked.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace shardkit {

/// The calls on one communicator that one rank has captured, in their order: what its graph does there at every launch.
class captured_calls {
 public:
  captured_calls() = default;
  explicit captured_calls(detail::captured_list list) noexcept : list_(std::move(list)) {}

  /// Verbs and, of messages, ends.
  std::size_t size() const noexcept { return list_.calls.size(); }
  bool empty() const noexcept { return list_.calls.empty(); }
  /// What verify_replay compares.
  const detail::captured_list& list() const noexcept { return list_; }

 private:
  detail::captured_list list_;
};

namespace detail {

template <class Backend>
struct is_checked : std::false_type {};
template <class Backend>
struct is_checked<checked<Backend>> : std::true_type {};

/// The checks of a communicator, below other decorators.
template <class Backend>
auto& checks_of(Backend& backend) {
  static_assert(
      is_checked<Backend>::value || decorates<Backend>::value,
      "shardkit: this communicator notes no captured calls; put checks around it: with_checks(std::move(comm))");
  if constexpr (is_checked<Backend>::value) return backend;
  else return checks_of(backend.decorated());
}

}  // namespace detail

/// What this rank has captured on `comm`, which has checks (with_checks), since it was last asked: after the end of a
/// capture, the calls of that graph. Not collective.
template <class Backend>
captured_calls take_captured(communicator<Backend>& comm, call_site site = call_site::current()) {
  return captured_calls(detail::checks_of(comm.backend(site)).take_captured());
}

/// Compares what the ranks of `comm` have captured, over the host: verb, counts, dtype, reduction, root, peers and
/// order. Collective, outside of the capture. Where two calls differ that would meet, or where the graphs would wait
/// for each other for ever, every rank throws mismatch_error with both calls and their call sites. Nothing has been
/// launched then, and as all ranks know, the communicator has not failed: it can be used on, and the graph destroyed
/// before it. The order among several communicators, or of graphs that are launched at once, is not looked at.
template <class Backend>
void verify_replay(communicator<Backend>& comm, const captured_calls& calls, call_site site = call_site::current()) {
  try {
    const control_lane::blob mine = calls.list().packed();
    const std::vector<std::uint64_t> sizes = comm.exchange(std::uint64_t{mine.size()}, {{}, site});
    const std::size_t longest = *std::max_element(sizes.begin(), sizes.end());
    if (longest == 0) return;
    control_lane::blob padded(mine), all(longest * sizes.size());
    padded.resize(longest);
    comm.backend(site).exchange(padded.data(), all.data(), longest, site);
    std::vector<detail::captured_list> lists;
    for (std::size_t rank = 0; rank < sizes.size(); ++rank)
      lists.push_back(detail::captured_list::unpacked(all.data() + rank * longest, sizes[rank]));
    detail::replayed_lists(std::move(lists)).run();
  } catch (error& failure) {
    comm.explain(failure, "verify_replay", site);
    throw;
  }
}

}  // namespace shardkit
