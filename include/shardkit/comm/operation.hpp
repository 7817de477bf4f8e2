// One call as plain data, for those who watch: what traced<B> keeps of it and tells its hook.
#pragma once

#include <shardkit/comm/group.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace shardkit {

/// How far an operation has come.
enum class operation_state : std::uint8_t {
  begun,    ///< its call has not returned
  started,  ///< without waiting; its request is not complete
  done,
  failed,  ///< by an exception, or dropped before it was complete
};

/// "begun", "started", "done" or "failed".
constexpr const char* name_of(operation_state state) noexcept {
  constexpr const char* names[] = {"begun", "started", "done", "failed"};
  return names[static_cast<std::size_t>(state)];
}

/// One call on one rank.
struct operation {
  int communicator = 0;        ///< 0: the one that is traced; then its descendants in the order made on this rank
  std::uint64_t sequence = 0;  ///< the how-many-th operation on it, from 1
  const char* verb = "";       ///< all_reduce, ..., group, split, exchange; a literal
  std::size_t count = 0;       ///< elements, in all where counts differ by rank; calls of a group; sent by send_recv
  std::size_t received = 0;    ///< elements that send_recv receives
  bool typed = false;          ///< whether `type` means anything
  bool reduces = false;        ///< whether `op` means anything
  dtype type = dtype::u8;      ///< of the elements
  reduction op;                ///< by which they are combined
  int partner = -1;            ///< root or peer; whom send_recv sends to
  int source = -1;             ///< whom send_recv receives from
  operation_state state = operation_state::begun;  ///< so far
  void* stream = nullptr;                          ///< native handle; null on the host
  call_site site;                                  ///< of the user's line

  /// Of what this rank passes and receives; 0 where nothing is typed.
  std::size_t bytes() const noexcept { return typed ? (count + received) * size_of(type) : 0; }
};

namespace detail {

// One clause for each kind of parameter that a call may have.
template <class Call>
auto note_count(operation& to, const Call& call, int) -> decltype(void(call.count)) {
  to.count = call.count;
}
template <class Call>
auto note_count(operation& to, const Call& call, int) -> decltype(void(call.layout)) {
  to.count = call.layout->total();
}
template <class Call>
auto note_count(operation& to, const Call& call, int) -> decltype(void(call.send_layout)) {
  to.count = call.send_layout->total();
  to.received = call.receive_layout->total();
}
template <class Call>
auto note_count(operation& to, const Call& call, int) -> decltype(void(call.send_count)) {
  to.count = call.send_count;
  to.received = call.recv_count;
  to.partner = call.to;
  to.source = call.from;
}
template <class Call>
void note_count(operation&, const Call&, long) {}

template <class Call>
auto note_type(operation& to, const Call& call, int) -> decltype(void(call.type)) {
  to.typed = true;
  to.type = call.type;
}
template <class Call>
void note_type(operation&, const Call&, long) {}

template <class Call>
auto note_reduction(operation& to, const Call& call, int) -> decltype(void(call.op)) {
  to.reduces = true;
  to.op = call.op;
}
template <class Call>
void note_reduction(operation&, const Call&, long) {}

template <class Call>
auto note_partner(operation& to, const Call& call, int) -> decltype(void(call.root)) {
  to.partner = call.root;
}
template <class Call>
auto note_partner(operation& to, const Call& call, int) -> decltype(void(call.peer)) {
  to.partner = call.peer;
}
template <class Call>
void note_partner(operation&, const Call&, long) {}

template <class Call>
auto note_stream(operation& to, const Call& call, int) -> decltype(void(call.stream)) {
  to.stream = call.stream;
}
template <class Call>
void note_stream(operation&, const Call&, long) {}

}  // namespace detail

/// What there is to say about a call before it begins.
template <class Call>
operation operation_of(const Call& call) {
  operation result;
  result.verb = Call::name;
  result.site = call.site;
  detail::note_count(result, call, 0);
  detail::note_type(result, call, 0);
  detail::note_reduction(result, call, 0);
  detail::note_partner(result, call, 0);
  detail::note_stream(result, call, 0);
  return result;
}

/// "17 all_reduce(12 x f32, sum), done, at train.cpp:41".
inline std::string describe(const operation& what) {
  std::string text = std::to_string(what.sequence) + " " + what.verb + "(";
  const char* between = "";
  const auto add = [&](const std::string& words) {
    text += between + words;
    between = ", ";
  };
  if (what.typed) add(std::to_string(what.count) + " x " + name_of(what.type));
  else if (what.count != 0) add(std::to_string(what.count) + " calls");
  if (what.received != 0) add("receives " + std::to_string(what.received));
  if (what.reduces) add(std::string(what.op.by_rank ? "by_rank " : "") + name_of(what.op.kind));
  if (what.partner >= 0) add((what.source >= 0 ? "to " : "rank ") + std::to_string(what.partner));
  if (what.source >= 0) add("from " + std::to_string(what.source));
  text += std::string("), ") + name_of(what.state);
  if (what.site.known()) text += std::string(", at ") + what.site.file + ":" + std::to_string(what.site.line);
  return text;
}

}  // namespace shardkit
