// One input from a stranger: its first byte says where it goes, the others are what arrives there. Aborts where
// something that must hold does not; that nothing hangs is for the caller to see.
#pragma once

#include <shardkit/backends/detail/tcp_gate.hpp>
#include <shardkit/backends/detail/tcp_hub.hpp>
#include <shardkit/backends/detail/tcp_link.hpp>
#include "fuzz_parsers.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

namespace fuzzing {

inline const std::string token = "seed token";

/// The pure function behind every greeting.
inline void greet(const unsigned char* data, std::size_t size) {
  detail::greeting::wire wire{};
  std::copy_n(data, std::min(size, wire.size()), wire.begin());
  detail::greeting read;
  if (decode(wire, token, read) != detail::greeting_check::good) return;
  require(read.token == token, "another token was taken for ours");
  detail::greeting again;
  require(decode(encode(read), token, again) == detail::greeting_check::good,
          "a greeting is not read as it was written");
  require(again.kind == read.kind && again.rank == read.rank && again.size == read.size && again.text == read.text,
          "a greeting changed");
}

inline std::vector<detail::tcp_frame> parse(const unsigned char* data, std::size_t size, std::size_t step,
                                            bool& malformed) {
  detail::tcp_frame_parser parser(5, 4096);
  std::vector<detail::tcp_frame> frames;
  malformed = false;
  for (std::size_t at = 0; at < size && !malformed; at += step) {
    parser.append(reinterpret_cast<const char*>(data) + at, std::min(step, size - at));
    detail::tcp_frame frame;
    for (;;) {
      const auto result = parser.next(frame);
      malformed = result == detail::tcp_frame_parser::outcome::malformed;
      if (result != detail::tcp_frame_parser::outcome::frame) break;
      frames.push_back(frame);
    }
    require(malformed == (parser.complaint() != nullptr), "a complaint without reason");
  }
  return frames;
}

/// The stream of frames: the same frames however it is cut, none beyond the limits, each as it was written.
inline void frames(const unsigned char* data, std::size_t size) {
  bool malformed = false, also = false;
  const auto whole = parse(data, size, size == 0 ? 1 : size, malformed);
  const auto cut = parse(data, size, 7, also);
  require(whole.size() == cut.size() && malformed == also, "frames depend on how the stream is cut");
  std::size_t at = 0;
  for (const detail::tcp_frame& one : whole) {
    require(one.source < 5 && one.targets.size() <= 5 && one.words.size() <= 4096 && one.payload.size() <= 4096,
            "a frame beyond the limits");
    const auto bytes = encode(one);
    require(
        at + bytes.size() <= size && std::equal(bytes.begin(), bytes.end(), reinterpret_cast<const char*>(data) + at),
        "a frame is not what was sent");
    at += bytes.size();
  }
}

/// A rank whose process goes wild: whatever it sends, the hub lives, and another rank hears of it in the end.
inline void wild_rank(const unsigned char* data, std::size_t size) {
  auto wild = connected(), good = connected();
  std::vector<tcp_socket> ends;
  ends.push_back(std::move(wild.first));
  ends.push_back(std::move(good.first));
  detail::tcp_hub hub(std::move(ends));
  shardkit::deadlines limits;
  limits.operation = 10;
  detail::tcp_link link(std::move(good.second), 1, 2, limits);
  (void)wild.second.send_all(data, size, 5);
  wild.second.close();
  {
    auto held = link.acquire();
    try {
      link.wait(
          held, [] { return false; }, [] { return 0; }, [] { return std::string("fuzzing"); });
    } catch (const shardkit::peer_failed&) {
    } catch (const shardkit::mismatch_error&) {  // it has told of a call, or left without one
    } catch (const shardkit::timeout_error&) {
      require(false, "nobody was told that the rank is lost");
    }
  }
  link.leave(5);
  hub.end_within(5);
}

/// A hub whose process goes wild: a link reads what it sends and does not follow it anywhere.
inline void wild_hub(const unsigned char* data, std::size_t size) {
  auto wires = connected();
  shardkit::deadlines limits;
  limits.operation = 10;
  detail::tcp_link link(std::move(wires.second), 1, 5, limits);
  (void)wires.first.send_all(data, size, 5);
  wires.first.close();
  auto held = link.acquire();
  try {
    link.wait(
        held, [] { return false; }, [] { return 0; }, [] { return std::string("fuzzing"); });
  } catch (const shardkit::timeout_error&) {
    require(false, "a closed connection was waited for");
  } catch (const shardkit::communication_error&) {
  }
}

/// Whatever comes to the door first, an honest rank gets in, unless the stranger knows the token.
inline void door(const unsigned char* data, std::size_t size) {
  int port = 0;
  shardkit::tcp_rendezvous where;
  where.token = token;
  where.on_listening = [&](int taken) { port = taken; };
  detail::tcp_gate gate(where, 2);
  std::string complaint;
  tcp_socket stranger = detail::tcp_connect("127.0.0.1", port, 5, complaint);
  tcp_socket honest = detail::tcp_connect("127.0.0.1", port, 5, complaint);
  // Ends without the minute of silence that the system gives to connections closed politely: there are many here.
  const linger none{1, 0};
  for (const tcp_socket* one : {&stranger, &honest}) {
    require(one->open(), "nobody listens");
    (void)::setsockopt(one->descriptor(), SOL_SOCKET, SO_LINGER, &none, sizeof none);
  }
  (void)stranger.send_all(data, size, 5);
  const auto hello = detail::encode({detail::greeting::current_version, detail::greeting_kind::hello, 1, 2, token, ""});
  (void)honest.send_all(hello.data(), hello.size(), 5);
  const double begun = detail::now_seconds();
  std::vector<tcp_socket> admitted;
  try {
    admitted = gate.admit(20);
    require(admitted.size() == 2 && admitted[1].open(), "the honest rank was not let in");
  } catch (const shardkit::usage_error&) {
    detail::greeting::wire wire{};
    detail::greeting read;
    std::copy_n(data, std::min(size, wire.size()), wire.begin());
    require(size >= wire.size() && decode(wire, token, read) != detail::greeting_check::stranger,
            "a stranger without the token ended the launch");
  }
  require(detail::now_seconds() - begun < 10, "a stranger kept everybody waiting");
  stranger.close();
  honest.close();
}

/// Where an input can go.
inline constexpr struct {
  const char* name;
  void (*read)(const unsigned char* data, std::size_t size);
  bool slow;  ///< has connections and threads
} places[] = {
    {"greetings", greet, false},
    {"frames", frames, false},
    {"a wild rank", wild_rank, true},
    {"a wild hub", wild_hub, true},
    {"the door", door, true},
    {"bootstrap messages", bootstrap_messages, false},
    {"launch files", launch_file, false},
    {"environments", environment, false},
    {"fingerprints", fingerprints, false},
    {"captured lists", captured, false},
};
inline constexpr std::size_t place_count = sizeof places / sizeof *places;

inline void one_input(const unsigned char* data, std::size_t size) {
  if (size == 0 || size > 4000) return;
  places[data[0] % place_count].read(data + 1, size - 1);
}

}  // namespace fuzzing
