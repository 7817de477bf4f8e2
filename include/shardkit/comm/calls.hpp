// Every verb as one plain call descriptor: the only place where its parameters are listed and documented. The
// typed face (communicator.hpp) fills them; backends and decorators take them.
//
// `in` and `out` begin the buffers, `data` one that is both; each call says how much they hold. Counts are in elements
// of `type`. `op` is the reduction and `combine` what the host does with elements of this type, null where the space
// reduces by itself. `root` and `peer` are ranks of the communicator. `stream` is the native handle of the space's
// stream, null on the host, and `site` the user's line. `name` is the verb's.
//
// Buffers of a call may not overlap partly; in place means exactly the relation that each call names. A layout
// belongs to the caller and lives until the call has completed.
#pragma once

#include <shardkit/core/call_site.hpp>
#include <shardkit/core/dtype.hpp>
#include <shardkit/core/ordered_reduce.hpp>
#include <shardkit/core/partition.hpp>
#include <shardkit/core/reduction.hpp>

#include <cstddef>

namespace shardkit {

/// Returns on each rank after all ranks have called it.
struct barrier_call {
  static constexpr const char* name = "barrier";
  void* stream;
  call_site site;
};

/// Every rank's `data` (count) becomes that of `root`.
struct broadcast_call {
  static constexpr const char* name = "broadcast";
  void* data;
  std::size_t count;
  dtype type;
  int root;
  void* stream;
  call_site site;
};

/// `out` (count) on `root` = the ranks' `in` (count) combined; `out` is ignored elsewhere. In place: in == out.
struct reduce_call {
  static constexpr const char* name = "reduce";
  const void* in;
  void* out;
  std::size_t count;
  dtype type;
  reduction op;
  reduce_function combine;
  int root;
  void* stream;
  call_site site;
};

/// `out` (count) on every rank = the ranks' `in` (count) combined, the same bits everywhere. In place: in == out.
struct all_reduce_call {
  static constexpr const char* name = "all_reduce";
  const void* in;
  void* out;
  std::size_t count;
  dtype type;
  reduction op;
  reduce_function combine;
  void* stream;
  call_site site;
};

/// `out` (size * count) = the ranks' `in` (count) one after the other. In place: in == out + rank * count.
struct all_gather_call {
  static constexpr const char* name = "all_gather";
  const void* in;
  void* out;
  std::size_t count;
  dtype type;
  void* stream;
  call_site site;
};

/// Unequal counts: rank r's `in` (layout->count(r)) goes to out + layout->offset(r). The same layout on every rank,
/// without replicas. In place: in == out + layout->offset(rank).
struct all_gather_uneven_call {
  static constexpr const char* name = "all_gather";
  const void* in;
  void* out;
  const partition* layout;
  dtype type;
  void* stream;
  call_site site;
};

/// `out` (count) on rank r = elements [r * count, (r + 1) * count) of the ranks' `in` (size * count) combined.
/// In place: out == in + rank * count.
struct reduce_scatter_call {
  static constexpr const char* name = "reduce_scatter";
  const void* in;
  void* out;
  std::size_t count;
  dtype type;
  reduction op;
  reduce_function combine;
  void* stream;
  call_site site;
};

/// Unequal counts: rank r gets layout's range r. In place: out == in + layout->offset(rank).
struct reduce_scatter_uneven_call {
  static constexpr const char* name = "reduce_scatter";
  const void* in;
  void* out;
  const partition* layout;
  dtype type;
  reduction op;
  reduce_function combine;
  void* stream;
  call_site site;
};

/// `out` (size * count) on `root` = the ranks' `in` (count) in rank order; `out` is ignored elsewhere.
/// In place: in == out + root * count on the root.
struct gather_call {
  static constexpr const char* name = "gather";
  const void* in;
  void* out;
  std::size_t count;
  dtype type;
  int root;
  void* stream;
  call_site site;
};

/// Unequal counts: rank r's `in` (layout->count(r)) goes to out + layout->offset(r) on the root.
struct gather_uneven_call {
  static constexpr const char* name = "gather";
  const void* in;
  void* out;
  const partition* layout;
  dtype type;
  int root;
  void* stream;
  call_site site;
};

/// `out` (count) on rank r = elements [r * count, (r + 1) * count) of the root's `in`; `in` is ignored elsewhere.
/// In place: out == in + root * count on the root.
struct scatter_call {
  static constexpr const char* name = "scatter";
  const void* in;
  void* out;
  std::size_t count;
  dtype type;
  int root;
  void* stream;
  call_site site;
};

/// Unequal counts: rank r gets range r of the root's `in`.
struct scatter_uneven_call {
  static constexpr const char* name = "scatter";
  const void* in;
  void* out;
  const partition* layout;
  dtype type;
  int root;
  void* stream;
  call_site site;
};

/// Block r of rank s's `in` (size * count) becomes block s of rank r's `out` (size * count). Never in place.
struct all_to_all_call {
  static constexpr const char* name = "all_to_all";
  const void* in;
  void* out;
  std::size_t count;  ///< elements for each rank
  dtype type;
  void* stream;
  call_site site;
};

/// Unequal counts: range r of `in` goes to rank r; what comes from rank r goes to range r of `out`. Rank s's
/// send_layout->count(r) equals rank r's receive_layout->count(s). Never in place.
struct all_to_all_uneven_call {
  static constexpr const char* name = "all_to_all";
  const void* in;
  const partition* send_layout;
  void* out;
  const partition* receive_layout;
  dtype type;
  void* stream;
  call_site site;
};

/// Sends `in` (count) to `peer`. Messages from one rank to another arrive in the order sent. May return before the
/// receive is posted, and may wait for it: do not rely on either.
struct send_call {
  static constexpr const char* name = "send";
  const void* in;
  std::size_t count;
  dtype type;
  int peer;
  void* stream;
  call_site site;
};

/// Receives exactly `count` elements from `peer`.
struct recv_call {
  static constexpr const char* name = "recv";
  void* out;
  std::size_t count;
  dtype type;
  int peer;
  void* stream;
  call_site site;
};

/// A send and a receive that cannot wait for each other. Counts and peers may differ; the buffers may not overlap.
struct send_recv_call {
  static constexpr const char* name = "send_recv";
  const void* in;
  std::size_t send_count;
  int to;
  void* out;
  std::size_t recv_count;
  int from;
  dtype type;
  void* stream;
  call_site site;
};

/// A list of types, to go through all verbs without naming them again.
template <class... Calls>
struct call_list {};

/// Every verb. Decorators, erasure and tests go over this list, so that none can slip past them.
using all_calls =
    call_list<barrier_call, broadcast_call, reduce_call, all_reduce_call, all_gather_call, all_gather_uneven_call,
              reduce_scatter_call, reduce_scatter_uneven_call, gather_call, gather_uneven_call, scatter_call,
              scatter_uneven_call, all_to_all_call, all_to_all_uneven_call, send_call, recv_call, send_recv_call>;

}  // namespace shardkit
