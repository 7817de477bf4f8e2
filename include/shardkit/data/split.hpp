// This rank's contiguous share of one or several lists: views into them, no communication and no copy.
#pragma once

#include <shardkit/data/detail/items.hpp>

#include <cstddef>
#include <tuple>

namespace shardkit {

/// The share of this rank, which may be empty; together the ranks' shares are the whole list, in rank order.
///
///     auto mine = split(comm, prompts);                                 // n / size each, one more for the first ranks
///     auto mine = split(comm, prompts, layout::block);                  // or any partition of prompts.size()
///     auto [ids, labels] = split(comm, all_ids, all_labels);            // several lists of one length
///     auto mine = split(participant(rank, size), prompts);              // without a communicator
///
/// Takes vectors, arrays, spans, views and whatever view_of knows; of a matrix_view it splits the rows. Returns a
/// view (a matrix_view of a matrix), or a tuple of them for several lists. Lists of unequal length, or a partition
/// over other counts, fail the communicator and throw usage_error, at size 1 too.
template <class... Arguments>
constexpr auto split(participant who, Arguments&&... arguments) {
  (detail::require_lasting_list<Arguments>(), ...);
  return detail::with_cut(
      [&who](const cut& how, auto&... lists) {
        const partition part = how.over(detail::common_length(who, "split", detail::items_of(lists)...), who, "split");
        const std::size_t offset = part.offset(who.rank()), count = part.count(who.rank());
        if constexpr (sizeof...(lists) == 1) return (detail::slice(detail::items_of(lists), offset, count), ...);
        else return std::make_tuple(detail::slice(detail::items_of(lists), offset, count)...);
      },
      arguments...);
}

}  // namespace shardkit
