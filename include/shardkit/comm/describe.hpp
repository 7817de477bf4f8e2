// Calls as text, for error messages: "all_reduce(12 x f32, sum)". Used on error paths only.
#pragma once

#include <shardkit/comm/group.hpp>

#include <string>

namespace shardkit {
namespace detail {

inline std::string elements(std::size_t count, dtype type) {
  return std::to_string(count) + " x " + name_of(type);
}
inline std::string elements(const partition& layout, dtype type) {
  std::string text = elements(layout.total(), type) + " as ";
  for (int rank = 0; rank < layout.parts(); ++rank) {
    if (rank == 16) return text + "+...";
    if (rank != 0) text += "+";
    text += std::to_string(layout.count(rank));
  }
  return text;
}

// One clause for each kind of parameter that a call may have.
template <class Call>
auto append_count(std::string& text, const Call& call, int) -> decltype(void(call.count), void(call.type)) {
  text += elements(call.count, call.type);
}
template <class Call>
auto append_count(std::string& text, const Call& call, int) -> decltype(void(call.layout)) {
  text += elements(*call.layout, call.type);
}
template <class Call>
auto append_count(std::string& text, const Call& call, int) -> decltype(void(call.send_layout)) {
  text += "send " + elements(*call.send_layout, call.type) + ", receive " + elements(*call.receive_layout, call.type);
}
template <class Call>
auto append_count(std::string& text, const Call& call, int) -> decltype(void(call.send_count)) {
  text += elements(call.send_count, call.type) + " to " + std::to_string(call.to) + ", " +
          elements(call.recv_count, call.type) + " from " + std::to_string(call.from);
}
template <class Call>
auto append_count(std::string& text, const Call& call, int) -> decltype(void(call.calls)) {
  text += std::to_string(call.count) + " calls";
}
template <class Call>
void append_count(std::string&, const Call&, long) {}

template <class Call>
auto append_operation(std::string& text, const Call& call, int) -> decltype(void(call.op)) {
  text += std::string(", ") + (call.op.by_rank ? "by_rank " : "") + name_of(call.op.kind);
}
template <class Call>
void append_operation(std::string&, const Call&, long) {}

template <class Call>
auto append_partner(std::string& text, const Call& call, int) -> decltype(void(call.root)) {
  text += ", root " + std::to_string(call.root);
}
template <class Call>
auto append_partner(std::string& text, const Call& call, int) -> decltype(void(call.peer)) {
  text += ", peer " + std::to_string(call.peer);
}
template <class Call>
void append_partner(std::string&, const Call&, long) {}

}  // namespace detail

/// Name, counts, type, operation and partner of a call.
template <class Call>
std::string describe(const Call& call) {
  std::string text = Call::name;
  text += "(";
  detail::append_count(text, call, 0);
  detail::append_operation(text, call, 0);
  detail::append_partner(text, call, 0);
  return text + ")";
}

}  // namespace shardkit
