// The one last argument of every verb and layer: on which stream, and from which line of the user's code.
#pragma once

#include <shardkit/core/call_site.hpp>
#include <shardkit/core/space.hpp>

#include <type_traits>

namespace shardkit {

/// Stream and call site together. Built implicitly from a stream; on the host it is left out:
///
///     comm.all_reduce(in_place(x), sum);            // host
///     comm.all_reduce(in_place(x), sum, stream);    // device
template <class Space>
struct at {
  typename Space::stream stream;  ///< on which the call runs
  call_site site;                 ///< of the user's line, for errors

  constexpr at(typename Space::stream on = {}, call_site from = call_site::current()) noexcept
      : stream(on), site(from) {}

  /// From what converts to a stream of the space: a native handle, an owning stream.
  template <class Stream, std::enable_if_t<std::is_convertible<const Stream&, typename Space::stream>::value &&
                                               !std::is_base_of<at, Stream>::value,
                                           int> = 0>
  constexpr at(const Stream& on, call_site from = call_site::current()) noexcept : stream(on), site(from) {}

  /// For a space whose copies take the stream alone.
  constexpr operator typename Space::stream() const noexcept { return stream; }
};

}  // namespace shardkit
