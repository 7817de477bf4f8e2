// What travels over a connection once it is trusted: frames, each a message of one rank to one or more others, or news
// about the launch. Encoding and parsing are pure functions over bytes.
#pragma once

#include <shardkit/backends/detail/tcp_greeting.hpp>
#include <shardkit/comm/control.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

enum class tcp_frame_kind : unsigned char {
  message = 1,     ///< send and recv
  collective = 2,  ///< a contribution to call `sequence`
  posted = 3,      ///< control lane: post and take
  exchanged = 4,   ///< control lane: exchange
  failure = 5,     ///< `source` failed; the payload says why. Where `sequence` is not 0, it may say more soon
  leaving = 6,     ///< `source` takes part in nothing any more; its calls took `sequence` collective frames
  stop = 7,        ///< a rank asks all to stop
  closing = 8,     ///< `source` has let go of its end of a communicator
  announced = 9,   ///< `source` makes call `sequence`; for the hub, which compares. The targets are all members, the
                   ///< payload says what call and where
};

struct tcp_frame {
  tcp_frame_kind kind = tcp_frame_kind::message;
  unsigned char topic = 0;   ///< of the control lane
  std::uint32_t source = 0;  ///< rank of the launch
  std::uint64_t communicator = 0;
  std::uint64_t sequence = 0;          ///< of a collective
  std::uint64_t fingerprint = 0;       ///< of a collective; of a message, as its sender's
  std::vector<std::uint32_t> targets;  ///< ranks of the launch
  std::string words;                   ///< what the sender calls and where, for the receiver's error; may be empty
  std::vector<char> payload;
};

inline constexpr std::size_t tcp_frame_header = 48;
/// Larger messages are refused where they are made.
inline constexpr std::uint64_t tcp_largest_payload = std::uint64_t{1} << 28;
/// Longer words are cut: a path has no more.
inline constexpr std::size_t tcp_longest_words = 4096;
inline constexpr unsigned char tcp_topics = control_topics;

// 0 kind, 1 topic, 2 zero, 4 source, 8 communicator, 16 sequence, 24 fingerprint, 32 number of targets,
// 36 bytes of the words, 40 bytes of the payload; then the targets, four bytes each, then the words, then the payload.
inline std::vector<char> encode(const tcp_frame& from, const void* payload, std::size_t bytes) {
  const std::size_t words = from.words.size() < tcp_longest_words ? from.words.size() : tcp_longest_words;
  std::vector<char> to(tcp_frame_header + 4 * from.targets.size() + words + bytes);
  auto* at = reinterpret_cast<unsigned char*>(to.data());
  at[0] = static_cast<unsigned char>(from.kind);
  at[1] = from.topic;
  put_u32(at + 4, from.source);
  put_u64(at + 8, from.communicator);
  put_u64(at + 16, from.sequence);
  put_u64(at + 24, from.fingerprint);
  put_u32(at + 32, static_cast<std::uint32_t>(from.targets.size()));
  put_u32(at + 36, static_cast<std::uint32_t>(words));
  put_u64(at + 40, bytes);
  at += tcp_frame_header;
  for (const std::uint32_t target : from.targets) {
    put_u32(at, target);
    at += 4;
  }
  if (words != 0) std::memcpy(at, from.words.data(), words);
  if (bytes != 0) std::memcpy(at + words, payload, bytes);
  return to;
}
inline std::vector<char> encode(const tcp_frame& from) {
  return encode(from, from.payload.data(), from.payload.size());
}

/// Takes a stream of bytes apart. Never reads beyond what it was given, and allocates in proportion to that alone.
class tcp_frame_parser {
 public:
  explicit tcp_frame_parser(std::uint32_t ranks, std::uint64_t largest_payload = tcp_largest_payload) noexcept
      : ranks_(ranks), largest_payload_(largest_payload) {}

  void append(const char* bytes, std::size_t count) {
    if (begin_ == buffer_.size()) {
      buffer_.clear();
      begin_ = 0;
    }
    buffer_.insert(buffer_.end(), bytes, bytes + count);
  }

  enum class outcome { frame, incomplete, malformed };

  /// The next frame of the stream. After `malformed`, with the reason in `complaint`, there is no further one.
  outcome next(tcp_frame& into) {
    if (complaint_ != nullptr) return outcome::malformed;
    if (buffer_.size() - begin_ < tcp_frame_header) return wait_for_more();
    const auto* at = reinterpret_cast<const unsigned char*>(buffer_.data()) + begin_;
    const std::uint32_t targets = get_u32(at + 32), words = get_u32(at + 36);
    const std::uint64_t payload = get_u64(at + 40);
    if (at[0] < 1 || at[0] > 9) return refuse("an unknown kind");
    if (at[1] >= tcp_topics) return refuse("an unknown topic");
    if (at[2] != 0 || at[3] != 0) return refuse("something where nothing may be");
    if (get_u32(at + 4) >= ranks_) return refuse("a source that is no rank");
    if (targets > ranks_) return refuse("more targets than ranks");
    if (words > tcp_longest_words) return refuse("words beyond the limit");
    if (payload > largest_payload_) return refuse("a payload beyond the limit");
    const std::size_t before_words = tcp_frame_header + 4 * std::size_t{targets};
    const std::size_t whole = before_words + words + static_cast<std::size_t>(payload);
    if (buffer_.size() - begin_ < before_words) return wait_for_more();
    for (std::uint32_t i = 0; i < targets; ++i)
      if (get_u32(at + tcp_frame_header + 4 * std::size_t{i}) >= ranks_) return refuse("a target that is no rank");
    if (buffer_.size() - begin_ < whole) return wait_for_more();

    into.kind = static_cast<tcp_frame_kind>(at[0]);
    into.topic = at[1];
    into.source = get_u32(at + 4);
    into.communicator = get_u64(at + 8);
    into.sequence = get_u64(at + 16);
    into.fingerprint = get_u64(at + 24);
    into.targets.resize(targets);
    for (std::uint32_t i = 0; i < targets; ++i) into.targets[i] = get_u32(at + tcp_frame_header + 4 * std::size_t{i});
    const char* const first = buffer_.data() + begin_ + before_words;
    into.words.assign(first, words);
    into.payload.assign(first + words, first + words + payload);
    begin_ += whole;
    return outcome::frame;
  }

  /// Why the stream is malformed; null where it is not.
  const char* complaint() const noexcept { return complaint_; }

 private:
  outcome refuse(const char* why) noexcept {
    complaint_ = why;
    return outcome::malformed;
  }
  outcome wait_for_more() {
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(begin_));
    begin_ = 0;
    return outcome::incomplete;
  }

  std::uint32_t ranks_;
  std::uint64_t largest_payload_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  const char* complaint_ = nullptr;
};

}  // namespace shardkit::detail
