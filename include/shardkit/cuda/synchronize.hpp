// The one place where the host waits for a device, and only because the caller asks for it: to a deadline, with an eye
// on the communicators whose calls are on the stream, so that a failed peer ends the wait and not the deadline.
#pragma once

#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/cuda/detail/outside_captures.hpp>
#include <shardkit/cuda/space.hpp>

#include <cuda_runtime_api.h>

#include <string>

namespace shardkit {
namespace detail {

inline bool stream_is_done(const at<cuda_space>& where) {
  const outside_captures asking;
  const cudaError_t code = cudaStreamQuery(where.stream.handle);
  if (code == cudaErrorNotReady) {
    (void)cudaGetLastError();  // not an error, but CUDA notes it as one
    return false;
  }
  cuda_check(code, "cudaStreamQuery", where.stream.handle, where.site);
  return true;
}

// What went wrong, said by the first communicator where there is one.
inline void attach_synchronize(error&, const call_site&) noexcept {}
template <class First, class... Others>
void attach_synchronize(error& failure, const call_site& site, First& comm, Others&...) {
  comm.explain(failure, "synchronize", site);
}

}  // namespace detail

/// Returns when everything is done that the stream holds now. Asks the stream and each communicator in turn, and
/// throws the first thing that goes wrong: cuda_error for a kernel or copy, what a communicator reports by itself (an
/// asynchronous error of its transport, peer_failed from its control lane), or timeout_error after `deadline` seconds
/// (infinity: none). Before it throws, every communicator given has failed, so that no peer waits for this rank.
///
/// Of a communicator it uses throw_if_failed(), fail(reason) and explain(). Refused during capture.
template <class... Communicators>
void synchronize(at<cuda_space> where, double deadline, Communicators&... comms) {
  try {
    if (!(deadline > 0))
      throw usage_error("synchronize with a deadline of " + std::to_string(deadline) +
                        " seconds; it has to be positive, or infinite to wait for ever");
    if (where.stream.is_captured(where.site))
      throw usage_error("synchronize on a stream that is being captured into a graph: end the capture first");
    const auto look_at_communicators = [&] {
      (comms.throw_if_failed(where.site, "synchronize"), ...);
      return false;
    };
    constexpr int spins = 1000;
    const auto result = detail::wait_for(
        spins, deadline, [&] { return detail::stream_is_done(where); }, look_at_communicators);
    if (result == detail::wait_result::expired)
      throw timeout_error("the stream had not done its work after " + std::to_string(deadline) +
                          " seconds: a kernel is slow or stuck, or a peer does not take part in a collective on it");
    look_at_communicators();  // a collective that was given up lets its stream go on
  } catch (error& failure) {
    (comms.fail("synchronize: " + failure.message()), ...);
    detail::attach_synchronize(failure, where.site, comms...);
    throw;
  }
}

}  // namespace shardkit
