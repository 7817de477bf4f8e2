// Calls as text, for error messages: "all_reduce(12 x f32, sum)". Used on error paths only.
#pragma once

#include <shardkit/comm/group.hpp>
#include <shardkit/core/detail/sentence.hpp>

#include <string>

namespace shardkit {
namespace detail {

[[gnu::cold, gnu::noinline]] inline std::string describe_site(const call_site& site) {
  sentence text;
  if (site.known()) text << " at " << site.file << ":" << site.line;
  return text;
}

[[gnu::cold, gnu::noinline]] inline std::string elements(std::size_t count, dtype type) {
  return sentence() << count << " x " << name_of(type);
}
[[gnu::cold, gnu::noinline]] inline std::string elements(const partition& layout, dtype type) {
  sentence text;
  text << elements(layout.total(), type) << " as ";
  for (int rank = 0; rank < layout.parts(); ++rank) {
    if (rank == 16) return text << "+...";
    if (rank != 0) text << "+";
    text << layout.count(rank);
  }
  return text;
}

// One clause for each kind of parameter that a call may have.
template <class Call>
auto append_count(sentence& text, const Call& call, int) -> decltype(void(call.count), void(call.type)) {
  text << elements(call.count, call.type);
}
template <class Call>
auto append_count(sentence& text, const Call& call, int) -> decltype(void(call.layout)) {
  text << elements(*call.layout, call.type);
}
template <class Call>
auto append_count(sentence& text, const Call& call, int) -> decltype(void(call.send_layout)) {
  text << "send " << elements(*call.send_layout, call.type) << ", receive "
       << elements(*call.receive_layout, call.type);
}
template <class Call>
auto append_count(sentence& text, const Call& call, int) -> decltype(void(call.send_count)) {
  text << elements(call.send_count, call.type) << " to " << call.to << ", " << elements(call.recv_count, call.type)
       << " from " << call.from;
}
template <class Call>
auto append_count(sentence& text, const Call& call, int) -> decltype(void(call.calls)) {
  text << call.count << " calls";
}
template <class Call>
void append_count(sentence&, const Call&, long) {}

template <class Call>
auto append_operation(sentence& text, const Call& call, int) -> decltype(void(call.op)) {
  text << ", " << (call.op.by_rank ? "by_rank " : "") << name_of(call.op.kind);
}
template <class Call>
void append_operation(sentence&, const Call&, long) {}

template <class Call>
auto append_partner(sentence& text, const Call& call, int) -> decltype(void(call.root)) {
  text << ", root " << call.root;
}
template <class Call>
auto append_partner(sentence& text, const Call& call, int) -> decltype(void(call.peer)) {
  text << ", peer " << call.peer;
}
template <class Call>
void append_partner(sentence&, const Call&, long) {}

}  // namespace detail

/// Name, counts, type, operation and partner of a call.
template <class Call>
[[gnu::cold, gnu::noinline]] std::string describe(const Call& call) {
  detail::sentence text;
  text << Call::name << "(";
  detail::append_count(text, call, 0);
  detail::append_operation(text, call, 0);
  detail::append_partner(text, call, 0);
  return text << ")";
}

namespace detail {

/// A call of any kind, as far as a wait for it or an error needs it. Refers to the call. What takes one is compiled
/// once instead of once for each verb.
class described_call {
 public:
  template <class Call>
  described_call(const Call& call) noexcept
      : call_(&call),
        site_(&call.site),
        text_([](const void* of) { return describe(*static_cast<const Call*>(of)); }) {}
  std::string text() const { return text_(call_); }
  const call_site& site() const noexcept { return *site_; }

 private:
  const void* call_;
  const call_site* site_;
  std::string (*text_)(const void*);
};

}  // namespace detail
}  // namespace shardkit
