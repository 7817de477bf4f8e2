// Ranks as threads of one process over CUDA memory, each on a GPU of its own or several sharing one: no NCCL, no
// launcher. They stand on thread ranks:
//
//   run_ranks(4, [&](thread_communicator& threads) {
//     cudaSetDevice(threads.rank() % cuda_device_count());
//     auto world = cuda_thread_world(threads, {&cuda_ordered_reduce});   // the kernel: cuda/ordered_reduce.cuh
//     world.all_reduce(in_place(gradients), sum, stream);                // enqueued; the stream is never waited for
//     synchronize(stream, 60, world);                                    // waits, with an eye on the peers
//   });
#pragma once

#include <shardkit/backends/cuda_thread_options.hpp>
#include <shardkit/backends/detail/cuda_thread_collectives.hpp>
#include <shardkit/backends/detail/cuda_thread_transport.hpp>
#include <shardkit/backends/threads.hpp>
#include <shardkit/cuda/fork.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {
namespace detail {

using cuda_thread_rank = thread_rank_of<cuda_thread_collectives, cuda_thread_transport>;

}  // namespace detail

/// A rank's end of a communicator of threads over CUDA memory. Made by cuda_thread_world and by split.
///
/// Calls meet on the host, as those of thread ranks do, with the same comparisons, deadlines and errors, and then only
/// enqueue: copies and one kernel, and events between the ranks' streams, on both sides. A call is complete on a stream
/// when nobody uses this rank's buffers any more. The streams belong to the device that was current when the
/// communicator was made; it need not be current in a call. One communicator on several streams: its calls take effect
/// in program order.
///
/// Reductions are one kernel that reads every rank's elements where they lie, once, combines them in rank order, and
/// writes them to every rank, in place or not: the bits of the host's thread ranks. They need
/// cuda_thread_options::ordered_reduce. 8-bit floats are moved, not reduced. Between GPUs, what they reduce is memory
/// of cudaMalloc, pinned or managed: peers do not reach memory of a pool (cudaMallocAsync) unless its owner allows it.
///
/// Captured into a graph, calls need all of their ranks' streams in one capture; else they throw unsupported_error,
/// with nothing recorded. A captured call allocates nothing, asks only for the capture, and waits for the peers'
/// threads.
///
/// A rank that fails has made sure that nothing more is enqueued on its buffers; what was, its stream comes after.
class cuda_thread_backend {
 public:
  using space = cuda_space;

  /// Collective over the ranks of `room`, where nothing has been called yet.
  static cuda_thread_backend join(detail::shared<detail::thread_room> room, int rank,
                                  const cuda_thread_options& options, const call_site& site) {
    try {
      auto own = detail::shared<detail::cuda_thread_device>::make(room->size);
      detail::cuda_thread_device* const mine = own.get();
      cuda_thread_backend joined(room, rank, std::make_shared<detail::cuda_thread_streams>(*mine, options));
      std::vector<detail::cuda_thread_device*> all(static_cast<std::size_t>(room->size));
      room->slot(rank).device_end = std::move(own);  // before anybody is shown it
      joined.exchange(&mine, all.data(), sizeof mine, site);
      joined.streams_->meet(all);
      return joined;
    } catch (const error& failure) {
      room->launch->publish_own(room->launch_rank(rank), failure.message().c_str());
      throw;
    }
  }

  int rank() const noexcept { return meeting().rank(); }
  int size() const noexcept { return meeting().room().size; }

  /// Any verb; see comm/calls.hpp.
  template <class Call>
  auto perform(const Call& call) -> decltype(std::declval<detail::cuda_thread_rank&>().perform(call)) {
    state_->perform(call);
  }
  /// Without waiting for the peers. The call may be enqueued as late as in the wait of its request.
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<detail::cuda_thread_rank&>().start(call)) {
    return state_->start(call);
  }

  cuda_thread_backend split(int colour, int key, const call_site& site) {
    detail::thread_seat seat = state_->apart([&, this] { return detail::split_threads(meeting(), colour, key, site); });
    const cuda_device_guard device(streams_->own().number, site);
    return join(std::move(seat.room), seat.rank, streams_->options(), site);
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    state_->apart([&, this] {
      detail::run_collective(meeting(), *host_, all_gather_call{in, out, bytes, dtype::u8, nullptr, site});
    });
  }
  control_lane& control() noexcept { return state_->control(); }
  void fail(const std::string& reason) noexcept { meeting().raise(rank(), reason); }
  /// Throws where a rank of the launch has failed. Does not wait; `synchronize` asks this while it waits for a stream.
  void throw_if_failed(const call_site& = {}) {
    if (meeting().room().launch->told()) meeting().require_alive();
  }

 private:
  cuda_thread_backend(detail::shared<detail::thread_room> room, int rank,
                      std::shared_ptr<detail::cuda_thread_streams> streams)
      : state_(detail::shared<detail::cuda_thread_rank>::make(std::move(room), rank, streams)),
        host_(std::make_unique<detail::thread_collectives>(state_->meeting())),
        streams_(std::move(streams)) {}

  detail::thread_meeting& meeting() const noexcept { return state_->meeting(); }

  detail::shared<detail::cuda_thread_rank> state_;
  std::unique_ptr<detail::thread_collectives> host_;  // for what travels over host memory
  std::shared_ptr<detail::cuda_thread_streams> streams_;
};

/// Made by cuda_thread_world.
using cuda_thread_communicator = communicator<cuda_thread_backend>;

/// The ranks of `threads`, each with the device that is current on its thread; ranks may share one. Collective.
/// `threads` is used only here. Where GPUs can reach each other, their peer access is enabled, for the whole process.
inline cuda_thread_communicator cuda_thread_world(thread_communicator& threads, const cuda_thread_options& options = {},
                                                  std::string name = "world", call_site site = call_site::current()) {
  thread_communicator ranks = threads.split(0, threads.rank(), name, {{}, site});
  return cuda_thread_communicator(cuda_thread_backend::join(ranks.backend().hand_over(), ranks.rank(), options, site),
                                  std::move(name));
}

}  // namespace shardkit
