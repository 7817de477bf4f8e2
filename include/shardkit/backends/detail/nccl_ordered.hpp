// Reductions that NCCL does not do as the library defines them: every rank gathers the elements that it needs of all
// ranks, and nccl_options::ordered_reduce combines them in rank order.
#pragma once

#include <shardkit/backends/detail/nccl_composed.hpp>

#include <algorithm>
#include <cstddef>
#include <string>

namespace shardkit::detail {

/// Throws where such a reduction cannot be made, before anything is enqueued.
inline void nccl_require_ordered(const nccl_state& state, dtype type, reduction op, at<cuda_space> on) {
  const auto what = [&] {
    return std::string(op.by_rank ? "by_rank " : "") + name_of(op.kind) + " of " + name_of(type);
  };
  const nccl_options& options = state.launch->options;
  if (options.ordered_reduce == nullptr) {
    const bool extreme = nccl_reduced(type, op).how == nccl_reduction::kind::extremes;
    throw unsupported_error("NCCL has no " + what() + (extreme ? " that propagates NaN" : "") +
                            "; set nccl_options::ordered_reduce to a kernel that combines in rank order" +
                            (extreme      ? ", or nccl_options::native_extremes where no NaN can occur"
                             : op.by_rank ? ", or leave out by_rank where the order does not matter"
                                          : ", or use a type and operation that NCCL has"));
  }
  if (options.workspace_bytes < static_cast<std::size_t>(state.size) * size_of(type))
    throw usage_error(what() + " needs room for an element of each rank: nccl_options::workspace_bytes is " +
                      std::to_string(options.workspace_bytes));
  if (on.stream.is_captured(on.site))
    throw unsupported_error(what() +
                            " cannot be captured into a graph: it gathers to memory that all such calls of this "
                            "communicator share; make the call outside the capture, or use a reduction that NCCL has");
}

/// Elements of each rank that the workspace holds at once.
inline std::size_t nccl_piece(const nccl_state& state, dtype type) {
  return state.launch->options.workspace_bytes / (static_cast<std::size_t>(state.size) * size_of(type));
}

inline void nccl_combine(nccl_state& state, const all_reduce_call& call) {
  const std::size_t piece = nccl_piece(state, call.type);
  state.with_workspace(nccl_where(call), [&](char* gathered) {
    for (std::size_t first = 0; first < call.count; first += piece) {
      const std::size_t count = std::min(piece, call.count - first);
      const nccl_elements moved = nccl_moved(call.type, count);
      state.check(state.api.all_gather(element_at(call.in, first, call.type), gathered, moved.count, moved.type,
                                       state.alive(), nccl_stream(call)),
                  "ncclAllGather");
      state.launch->options.ordered_reduce(call.op.kind, call.type, gathered, state.size,
                                           element_at(call.out, first, call.type), count, nccl_stream(call));
    }
  });
}

inline void nccl_combine(nccl_state& state, const reduce_call& call) {
  const std::size_t piece = nccl_piece(state, call.type);
  state.with_workspace(nccl_where(call), [&](char* gathered) {
    for (std::size_t first = 0; first < call.count; first += piece) {
      const std::size_t count = std::min(piece, call.count - first);
      nccl_compose(state, gather_call{element_at(call.in, first, call.type), gathered, count, call.type, call.root,
                                      call.stream, call.site});
      if (state.rank == call.root)
        state.launch->options.ordered_reduce(call.op.kind, call.type, gathered, state.size,
                                             element_at(call.out, first, call.type), count, nccl_stream(call));
    }
  });
}

/// Rank r gets `parts(r)` of the input.
template <class Call, class Parts>
void nccl_combine_parts(nccl_state& state, const Call& call, Parts parts) {
  const std::size_t piece = nccl_piece(state, call.type);
  std::size_t longest = 0;
  for (int rank = 0; rank < state.size; ++rank) longest = std::max(longest, parts(rank).count);
  state.with_workspace(nccl_where(call), [&](char* gathered) {
    for (std::size_t first = 0; first < longest; first += piece) {
      const auto count_of = [&](int rank) {
        const std::size_t count = parts(rank).count;
        return first < count ? std::min(piece, count - first) : 0;
      };
      const std::size_t own = count_of(state.rank);
      nccl_exchange(
          state, call,
          [&](int to) {
            const char* const block = element_at(call.in, parts(to).offset + first, call.type);
            return std::pair<const void*, std::size_t>(block, count_of(to));
          },
          [&](int from) {
            char* const block = gathered + static_cast<std::size_t>(from) * own * size_of(call.type);
            return std::pair<void*, std::size_t>(block, own);
          });
      if (own != 0)
        state.launch->options.ordered_reduce(call.op.kind, call.type, gathered, state.size,
                                             element_at(call.out, first, call.type), own, nccl_stream(call));
    }
  });
}
inline void nccl_combine(nccl_state& state, const reduce_scatter_call& call) {
  nccl_combine_parts(state, call, parts_of_each(call.count));
}
inline void nccl_combine(nccl_state& state, const reduce_scatter_uneven_call& call) {
  nccl_combine_parts(state, call, parts_of(*call.layout));
}

/// The reduction of a single rank is a copy, whatever the operation.
template <class Call>
void nccl_copy_single(const Call& call, std::size_t count) {
  cuda_space::copy(call.out, call.in, count * size_of(call.type), nccl_where(call));
}

}  // namespace shardkit::detail
