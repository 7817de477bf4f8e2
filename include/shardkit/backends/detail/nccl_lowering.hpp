// What each call becomes on NCCL, for who wants to know before it is made.
#pragma once

#include <shardkit/backends/detail/nccl_groups.hpp>

#include <cstddef>
#include <type_traits>

namespace shardkit {

/// What a call becomes on NCCL. Unequal counts are never padded to the longest: that takes device memory for one
/// longest part of every rank and a copy of all of it, which a call may not allocate and a captured one may not share.
/// Groups move exactly the elements there are.
enum class nccl_lowering {
  nothing,             ///< there is nothing to do
  one_call,            ///< NCCL's call of that name, or its equal-count call where the counts of a layout are equal
  grouped_messages,    ///< sends and receives in groups
  grouped_broadcasts,  ///< one from each rank, in groups
  grouped_reductions,  ///< one to each rank, in groups
  gather_and_combine,  ///< gathered, then combined in rank order by nccl_options::ordered_reduce
  copy,                ///< a single rank's own elements
};

constexpr const char* name_of(nccl_lowering how) noexcept {
  constexpr const char* names[] = {
      "nothing", "one call", "grouped messages", "grouped broadcasts", "grouped reductions", "gather and combine",
      "copy"};
  return names[static_cast<std::size_t>(how)];
}

namespace detail {

template <class Call>
nccl_lowering nccl_lowering_of(const nccl_state& state, const Call& call) {
  if constexpr (nccl_combines<Call>) {
    if (call.count == 0) return nccl_lowering::nothing;
    if (nccl_combines_natively(state, call.type, call.op)) return nccl_lowering::one_call;
    return state.size == 1 ? nccl_lowering::copy : nccl_lowering::gather_and_combine;
  } else if constexpr (nccl_has<Call>::value) {
    return nccl_is_empty(call) ? nccl_lowering::nothing : nccl_lowering::one_call;
  } else if constexpr (std::is_same_v<Call, reduce_scatter_uneven_call>) {
    if (call.layout->total() == 0) return nccl_lowering::nothing;
    if (!nccl_combines_natively(state, call.type, call.op))
      return state.size == 1 ? nccl_lowering::copy : nccl_lowering::gather_and_combine;
    return call.layout->uniform() ? nccl_lowering::one_call : nccl_lowering::grouped_reductions;
  } else if constexpr (std::is_same_v<Call, all_gather_uneven_call>) {
    if (call.layout->total() == 0) return nccl_lowering::nothing;
    return call.layout->uniform() ? nccl_lowering::one_call : nccl_lowering::grouped_broadcasts;
  } else if constexpr (std::is_same_v<Call, gather_uneven_call>) {
    if (call.layout->total() == 0) return nccl_lowering::nothing;
    if (!call.layout->uniform()) return nccl_lowering::grouped_messages;
    return nccl_has_native(state, gather_call{}) ? nccl_lowering::one_call : nccl_lowering::grouped_messages;
  } else if constexpr (std::is_same_v<Call, scatter_uneven_call>) {
    if (call.layout->total() == 0) return nccl_lowering::nothing;
    if (!call.layout->uniform()) return nccl_lowering::grouped_messages;
    return nccl_has_native(state, scatter_call{}) ? nccl_lowering::one_call : nccl_lowering::grouped_messages;
  } else if constexpr (std::is_same_v<Call, gather_call> || std::is_same_v<Call, scatter_call> ||
                       std::is_same_v<Call, all_to_all_call>) {
    if (call.count == 0) return nccl_lowering::nothing;
    return nccl_has_native(state, call) ? nccl_lowering::one_call : nccl_lowering::grouped_messages;
  } else {
    return nccl_lowering::grouped_messages;
  }
}

}  // namespace detail
}  // namespace shardkit
