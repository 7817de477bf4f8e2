// Who gets what the last stage of a pipeline has computed.
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <utility>

namespace shardkit {

/// Where a result is to be.
enum class delivery {
  last,  ///< on the last stage, where it is
  root,  ///< on the first stage as well
  all    ///< on every stage
};

/// Collective: copies the last stage's `result` to the ranks named by `to`. Wherever it arrives it has the size that
/// it has on the last stage; the other ranks' is left alone and may be empty. One call for each result.
template <class Communicator, class Result>
void deliver(Communicator& comm, Result&& result, delivery to, typename Communicator::where w = {}) {
  const auto data = detail::output_of<typename Communicator::space>(std::forward<Result>(result));
  const int last = comm.size() - 1;
  if (to == delivery::all) return comm.broadcast(data, last, w);
  if (to == delivery::last || last == 0) return;
  if (comm.rank() == last) comm.send(data, 0, w);
  if (comm.rank() == 0) comm.recv(data, last, w);
}

}  // namespace shardkit
