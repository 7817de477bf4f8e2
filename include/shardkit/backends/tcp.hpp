// Ranks as processes over TCP, without MPI: a program started by torchrun, by srun or by hand. A host backend for small
// messages: metadata, control, tests; everything passes through rank 0's process. Results are the same bits as those of
// thread ranks. launch/tcp_launch.hpp makes the options from what a launcher set.
//
//   int main() {
//     shardkit::tcp_environment tcp(shardkit::tcp_options_for(shardkit::launch_environment::detect()));
//     auto world = tcp.world();
//     double loss = world.all_reduce(local_loss, shardkit::sum);
//   }
#pragma once

#include <shardkit/backends/detail/tcp_calls.hpp>
#include <shardkit/backends/detail/tcp_control.hpp>
#include <shardkit/backends/detail/tcp_gate.hpp>
#include <shardkit/backends/detail/tcp_hub.hpp>
#include <shardkit/backends/detail/tcp_join.hpp>
#include <shardkit/comm/communicator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// A communicator over the connections of a tcp_environment. Messages are at most 256 MiB, and are copied: sends, and
/// the ranks that only give something to a collective, do not wait.
///
/// Ranks compare verb, counts, dtype, reduction and root, and throw mismatch_error naming both ranks where they differ.
/// A message has the count and the type that it was sent with: 4 x f32 are not 2 x f64, nor 16 bytes; std::byte and
/// unsigned char are both u8. What a rank was sent for a collective and has not taken when it lets go of the
/// communicator is a mismatch as well; see tcp_environment.
/// A rank that throws, leaves, or whose process is lost makes all others throw peer_failed naming it and the cause.
/// Several threads may use one environment, each its own communicators.
class tcp_backend {
 public:
  using space = host_space;

  explicit tcp_backend(std::shared_ptr<detail::tcp_room> room)
      : room_(std::move(room)), calls_(room_), control_(std::make_unique<detail::tcp_control>(room_)) {}

  int rank() const noexcept { return room_->rank; }
  int size() const noexcept { return room_->size; }

  /// Any verb but send_recv, which `complete` composes; see comm/calls.hpp.
  template <class Call>
  auto perform(const Call& call) -> decltype(void(std::declval<detail::tcp_calls&>().start(call))) {
    calls_.start(call).wait();
  }
  void perform(const group_call& group) { calls_.perform(group); }
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<detail::tcp_calls&>().start(call)) {
    return calls_.start(call);
  }

  tcp_backend split(int colour, int key, const call_site& site) {
    struct choice {
      std::uint64_t number;
      int colour, key, rank, launch_rank;
    };
    const choice mine{room_->link->fresh_number(), colour, key, rank(), room_->link->rank()};
    std::vector<choice> all(room_->members.size());
    exchange(&mine, all.data(), sizeof mine, site);
    const auto other_colour = [&](const choice& one) { return one.colour != colour; };
    all.erase(std::remove_if(all.begin(), all.end(), other_colour), all.end());
    const std::uint64_t number = all.front().number;  // of the lowest rank here: the same for all of the colour
    std::sort(all.begin(), all.end(),
              [](const choice& a, const choice& b) { return a.key != b.key ? a.key < b.key : a.rank < b.rank; });
    std::vector<int> members;
    int place = 0;
    for (const choice& one : all) {
      if (one.rank == rank()) place = static_cast<int>(members.size());
      members.push_back(one.launch_rank);
    }
    return tcp_backend(std::make_shared<detail::tcp_room>(room_->link, number, std::move(members), place));
  }

  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    perform(all_gather_call{in, out, bytes, dtype::u8, nullptr, site});
  }
  control_lane& control() noexcept { return *control_; }
  void fail(const std::string& reason) noexcept { room_->link->fail(room_->link->rank(), reason); }

 private:
  std::shared_ptr<detail::tcp_room> room_;
  detail::tcp_calls calls_;
  std::unique_ptr<detail::tcp_control> control_;
};

/// Made by tcp_environment.
using tcp_communicator = communicator<tcp_backend>;

/// The same on every rank, but for the rank.
struct tcp_options {
  int rank = 0;          ///< of this process, from 0
  int size = 1;          ///< ranks of the launch
  tcp_rendezvous where;  ///< how they find each other
  deadlines limits;      ///< of every wait in the launch
};

/// The connections of a launch, from here to the end of the scope. Nothing listens any more once all ranks have come.
///
/// The destructor of rank 0, through whose process everything passes, waits until all have left: at most the operation
/// deadline, after a failure the abort deadline. A process that ends without it is a failed rank to the others.
///
/// The destructor throws, unless an exception is under way: mismatch_error where it comes out only now that ranks made
/// different calls, because none waited for another in the last of them.
class tcp_environment {
 public:
  /// Returns when all ranks have come. Throws timeout_error naming those that have not within the init deadline,
  /// usage_error where ranks disagree about the size or their numbers, transport_error where rank 0 cannot listen.
  explicit tcp_environment(const tcp_options& options) : exceptions_(std::uncaught_exceptions()) {
    require_valid(options.limits);
    options.where.require_valid(options.rank, options.size);
    detail::tcp_socket own;
    if (options.rank == 0) {
      std::vector<detail::tcp_socket> connections(1);
      if (options.size > 1) connections = detail::tcp_gate(options.where, options.size).admit(options.limits.init);
      int pair[2];
      if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        throw transport_error(detail::system_complaint("socketpair"));
      connections[0] = detail::tcp_socket(pair[0]);
      own = detail::tcp_socket(pair[1]);
      hub_ = std::make_unique<detail::tcp_hub>(std::move(connections));
    } else {
      own = detail::tcp_join(options.where, options.rank, options.size, options.limits.init);
    }
    link_ = std::make_shared<detail::tcp_link>(std::move(own), options.rank, options.size, options.limits);
  }
  tcp_environment(const tcp_environment&) = delete;
  tcp_environment& operator=(const tcp_environment&) = delete;
  ~tcp_environment() noexcept(false) {
    const bool unwinding = std::uncaught_exceptions() > exceptions_;
    if (unwinding) link_->fail(link_->rank(), "it left by an exception");
    const double seconds = link_->failed() ? link_->limits().abort : link_->limits().operation;
    link_->leave(std::min(seconds, link_->limits().abort));
    if (hub_) {
      hub_->end_within(seconds);
      hub_.reset();
    }
    if (!unwinding) link_->require_agreement();
  }

  int rank() const noexcept { return link_->rank(); }
  int size() const noexcept { return link_->size(); }

  /// Calls body(world). What it throws is told to the peers with its text before it passes on; of an exception that
  /// reaches the destructor otherwise they only learn that there was one.
  template <class Body>
  void run(Body&& body) {
    tcp_communicator all = world();
    try {
      std::forward<Body>(body)(all);
    } catch (const error& failure) {
      link_->fail(rank(), failure.message());
      throw;
    } catch (const std::exception& failure) {
      link_->fail(rank(), failure.what());
      throw;
    } catch (...) {
      link_->fail(rank(), "unknown exception");
      throw;
    }
  }

  /// All ranks. Every rank makes the same number of worlds, in the same order.
  tcp_communicator world(std::string name = "world") {
    std::vector<int> members(static_cast<std::size_t>(size()));
    std::iota(members.begin(), members.end(), 0);
    // Numbers of splits have a count in their lower half that begins at 1 and stays below 2^31.
    const std::uint64_t number = std::uint64_t{1} << 31 | worlds_++;
    return tcp_communicator(tcp_backend(std::make_shared<detail::tcp_room>(link_, number, std::move(members), rank())),
                            std::move(name));
  }

 private:
  const int exceptions_;
  std::uint32_t worlds_ = 0;
  std::unique_ptr<detail::tcp_hub> hub_;
  std::shared_ptr<detail::tcp_link> link_;
};

}  // namespace shardkit
