// What reads bytes, text or files of other processes without a connection of its own. Part of fuzz_target.hpp.
#pragma once

#include <shardkit/comm/detail/captured_calls.hpp>
#include <shardkit/launch/detail/bootstrap_message.hpp>
#include <shardkit/launch/detail/launch_file.hpp>
#include <shardkit/launch/launch_environment.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace fuzzing {

namespace detail = shardkit::detail;
using detail::tcp_socket;

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzzing: %s\n", what);
  std::abort();
}

inline std::pair<tcp_socket, tcp_socket> connected() {
  int pair[2];
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "no socketpair");
  return {tcp_socket(pair[0]), tcp_socket(pair[1])};
}

/// Pieces of the input, each behind a byte that says how long it is.
inline std::vector<std::string> pieces(const unsigned char* data, std::size_t size) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at < size;) {
    const std::size_t length = std::min<std::size_t>(data[at], size - at - 1);
    all.emplace_back(reinterpret_cast<const char*>(data) + at + 1, length);
    at += 1 + length;
  }
  return all;
}

/// The messages of a bootstrap: each as it was written, and none that was not sent whole.
inline void bootstrap_messages(const unsigned char* data, std::size_t size) {
  auto wire = connected();
  require(wire.first.send_all(data, size, 5) == tcp_socket::outcome::done, "a socket takes nothing");
  wire.first.close();
  std::size_t at = 0;
  detail::bootstrap_message one;
  for (tcp_socket::outcome result;; at += one.encoded().size()) {
    result = one.receive(wire.second, 5);
    require(result != tcp_socket::outcome::expired, "a message of a closed connection was waited for");
    if (result == tcp_socket::outcome::closed) return;
    const auto bytes = one.encoded();
    require(at + bytes.size() <= size && std::equal(bytes.begin(), bytes.end(), data + at,
                                                    [](char a, unsigned char b) { return a == static_cast<char>(b); }),
            "a message is not what was sent");
    require(one.rank() >= -1 && one.rank() < 65536, "a rank that no message can name");
  }
}

/// A file with the name of this launch.
inline void launch_file(const unsigned char* data, std::size_t size) {
  if (size == 0) return;
  std::vector<unsigned char> bytes(data, data + size);
  std::FILE* const in = ::fmemopen(bytes.data(), bytes.size(), "rb");
  require(in != nullptr, "no file over memory");
  shardkit::bootstrap::blob payload;
  const std::string header = detail::launch_file_header(3, "seed token");
  const bool good = detail::read_launch_file(in, header, payload);
  std::fclose(in);
  const std::string text(data, data + size), read(payload.begin(), payload.end());
  require(good == (text.compare(0, header.size(), header) == 0),
          "a file of another launch was taken, or one of ours not");
  require(text == (good ? header + read : read), "a file was not read as it is");
}

/// Slurm's lists, and the whole environment of a process.
inline void environment(const unsigned char* data, std::size_t size) {
  const std::string list(data, data + size);
  try {
    const std::string host = detail::first_host(list);
    require(!host.empty() && host.find_first_of("[] \t") == std::string::npos, "a host that is none");
  } catch (const shardkit::usage_error&) {
  }
  for (const int node : {0, 1, 70000}) {
    const int tasks = detail::tasks_of_node(list, node);
    require(tasks == -1 || tasks >= 1, "a node with a number of tasks that is none");
  }
  static const char* const names[] = {"OMPI_COMM_WORLD_RANK",
                                      "OMPI_COMM_WORLD_SIZE",
                                      "OMPI_COMM_WORLD_LOCAL_RANK",
                                      "OMPI_COMM_WORLD_LOCAL_SIZE",
                                      "PMI_RANK",
                                      "PMI_SIZE",
                                      "MPI_LOCALRANKID",
                                      "MPI_LOCALNRANKS",
                                      "RANK",
                                      "WORLD_SIZE",
                                      "LOCAL_RANK",
                                      "LOCAL_WORLD_SIZE",
                                      "MASTER_ADDR",
                                      "MASTER_PORT",
                                      "TORCHELASTIC_RUN_ID",
                                      "SLURM_PROCID",
                                      "SLURM_STEP_NUM_TASKS",
                                      "SLURM_LOCALID",
                                      "SLURM_NODEID",
                                      "SLURM_STEP_TASKS_PER_NODE",
                                      "SLURM_STEP_NODELIST",
                                      "SLURM_JOB_ID",
                                      "SHARDKIT_RANK",
                                      "SHARDKIT_SIZE",
                                      "SHARDKIT_LOCAL_RANK",
                                      "SHARDKIT_LOCAL_SIZE",
                                      "SHARDKIT_HOST",
                                      "SHARDKIT_PORT",
                                      "SHARDKIT_JOB_TOKEN",
                                      "PMIX_RANK"};
  constexpr std::size_t count = sizeof names / sizeof *names;
  std::map<std::string, std::string> set;
  for (const std::string& one : pieces(data, size))
    if (!one.empty()) set[names[static_cast<unsigned char>(one[0]) % count]] = one.substr(1);
  try {
    const auto found = shardkit::launch_environment::detect([&](const char* name) -> const char* {
      const auto value = set.find(name);
      return value == set.end() ? nullptr : value->second.c_str();
    });
    require(found.size >= 1 && found.rank >= 0 && found.rank < found.size, "a rank that is none");
    require(found.local_rank >= -1 && found.local_rank < found.size && found.local_size <= found.size,
            "a local rank that is none");
    require(found.port >= 0 && found.ports >= 1 && found.port + found.ports <= 65536, "a port that is none");
    require(!found.launcher.empty() || found.size == 1, "a launch without a launcher");
    (void)found.describe();
  } catch (const shardkit::usage_error&) {
  }
}

/// A control lane into which everything disappears.
class deaf_lane final : public shardkit::control_lane {
 public:
  int rank() const noexcept override { return 1; }
  int size() const noexcept override { return 3; }
  void post(int, shardkit::control_topic, const blob&, const shardkit::call_site&) override {}
  bool poll(int, shardkit::control_topic, blob&, const shardkit::call_site&) override { return false; }
  blob take(int, shardkit::control_topic, const shardkit::call_site&) override { return {}; }
  std::vector<blob> exchange(shardkit::control_topic, const blob&, const shardkit::call_site&) override { return {}; }
  void request_stop() noexcept override {}
  bool stop_requested(const shardkit::call_site&) override { return false; }
};

/// The records by which checked ranks compare their calls: from two peers, to a rank in the middle of its program.
inline void fingerprints(const unsigned char* data, std::size_t size) {
  deaf_lane lane;
  detail::call_records records(1, 3);
  const auto none = [](int) { return std::uint64_t{0}; };
  for (const std::uint64_t bits : {7u, 9u}) records.announce_collective(lane, bits, "a call", {}, none, none);
  records.expect_message(0, 5, "a receive");
  records.expect_message(2, 6, "a receive");
  records.announce_send(lane, 1, 3, "to itself", false, {});
  int peer = 0;
  for (const std::string& one : pieces(data, size)) {
    const shardkit::control_lane::blob bytes(one.begin(), one.end());
    try {
      require(detail::call_record::unpacked(bytes).packed() == bytes, "a record is not what was sent");
      records.take(peer, bytes);
      records.require_no_message_first(2, "a call");
    } catch (const shardkit::error&) {  // the launch ends with it
      return;
    }
    (void)records.absent_from(2);
    peer = 2 - peer;
  }
}

/// What ranks say that they have captured; the input is that of three ranks.
inline void captured(const unsigned char* data, std::size_t size) {
  std::vector<detail::captured_list> lists;
  const char* const bytes = reinterpret_cast<const char*>(data);
  const std::size_t part = size < 2 ? 0 : (data[0] + 256u * data[1]) % size;
  const std::size_t begin = std::min<std::size_t>(2, size);
  try {
    for (const auto& [from, to] :
         {std::pair{begin, std::max(begin, part)}, {std::max(begin, part), size}, {size, size}}) {
      lists.push_back(detail::captured_list::unpacked(bytes + from, to - from));
      const auto again = lists.back().packed();
      require(again.size() == to - from && std::equal(again.begin(), again.end(), bytes + from),
              "a list is not what was sent");
    }
    detail::replayed_lists(std::move(lists)).run();
  } catch (const shardkit::communication_error&) {
  }
}

}  // namespace fuzzing
