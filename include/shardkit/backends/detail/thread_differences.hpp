// Where the calls of two thread ranks part, in words. Looked for only once it is known that they do, and at the end of
// a communicator, where a call that needed no peer may not have been compared yet.
#pragma once

#include <shardkit/backends/detail/thread_room.hpp>
#include <shardkit/comm/describe.hpp>
#include <shardkit/comm/fingerprint.hpp>

#include <cstdint>
#include <string>
#include <utility>

namespace shardkit::detail {

[[gnu::cold, gnu::noinline]] inline void append_call(sentence& text, thread_room& room, int rank, std::uint64_t call) {
  const thread_record& record = room.record(rank, call);
  text << "rank " << room.launch_rank(rank) << " " << describe_fingerprint(record.fingerprint)
       << describe_site(record.site);
}

/// The first difference between the calls of two ranks from `call` to `latest`, which are not all the same.
[[gnu::cold, gnu::noinline]] inline std::string different_calls(thread_room& room, int rank, int peer,
                                                                std::uint64_t call, std::uint64_t latest) {
  while (call < latest && room.record(rank, call).fingerprint == room.record(peer, call).fingerprint) ++call;
  if (peer < rank) std::swap(rank, peer);
  sentence text;
  text << mismatch_words;
  append_call(text, room, rank, call);
  text << ", ";
  append_call(text, room, peer, call);
  return text;
}

/// For a rank that has said that it makes no further call: a peer that has said so, too, and has made other calls; -1
/// where there is none. Of two ranks the later one sees the other's end.
[[gnu::cold, gnu::noinline]] inline int different_at_end(thread_room& room, int rank) noexcept {
  const std::uint64_t end = room.slot(rank).end.load();
  for (int peer = 0; peer < room.size; ++peer) {
    const std::uint64_t theirs = room.slot(peer).end.load();
    if (theirs == thread_slot::no_end) continue;
    if (end != theirs || room.record(rank, end).history != room.record(peer, end).history) return peer;
  }
  return -1;
}
/// How they differ, at most a few calls before the end, in words.
[[gnu::cold, gnu::noinline]] inline std::string difference_at_end(thread_room& room, int rank, int peer) {
  if (room.slot(rank).end.load() > room.slot(peer).end.load()) std::swap(rank, peer);
  const std::uint64_t both = room.slot(rank).end.load();
  if (room.record(rank, both).history != room.record(peer, both).history)
    return different_calls(room, rank, peer, both < thread_slot::depth ? 1 : both - thread_slot::depth + 1, both);
  sentence text;
  text << mismatch_words;
  append_call(text, room, peer, both + 1);
  return text << ", rank " << room.launch_rank(rank) << " no call after the one before it";
}

}  // namespace shardkit::detail
