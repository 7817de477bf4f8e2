// How the nodes of an MPI job get connections beside MPI, for news of failures: the first rank of the launch listens
// for a moment, the first ranks of the other nodes connect to it, a star. Address and token travel over MPI.
#pragma once

#include <shardkit/backends/detail/mpi_api.hpp>
#include <shardkit/backends/detail/tcp_greeting.hpp>
#include <shardkit/backends/detail/tcp_tuning.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

namespace shardkit::detail {

/// The other end of a connection: the first rank of a node.
struct mpi_neighbour {
  int rank;         ///< in the world
  int socket = -1;  ///< closed by who holds the list
};

/// One meeting of the nodes. Collective; every rank takes part, although only the first of each node gets connections.
class mpi_meeting {
 public:
  /// `first_of[r]`: the lowest rank on the node of rank r.
  mpi_meeting(MPI_Comm world, int rank, const list<int>& first_of, double seconds)
      : world_(world), rank_(rank), size_(static_cast<std::uint32_t>(first_of.size())), seconds_(seconds) {
    const bool is_first = first_of.data()[rank] == rank;
    for (int r = 1; r < static_cast<int>(first_of.size()); ++r)
      if (first_of.data()[r] == r && (rank == 0 || r == rank)) neighbours_.push_back({rank == 0 ? r : 0});
    if (!is_first) neighbours_.clear();
  }
  mpi_meeting(const mpi_meeting&) = delete;
  mpi_meeting& operator=(const mpi_meeting&) = delete;
  ~mpi_meeting() {
    for (const mpi_neighbour& one : neighbours_) close(one.socket);
    for (const newcomer& one : newcomers_) close(one.socket);
    close(listener_);
  }

  /// Rank 0's neighbours are the first ranks of all other nodes, theirs is rank 0; other ranks have none. Throws
  /// transport_error, the same on every rank, where a node cannot be reached. `listen` counts on rank 0, see
  /// mpi_options; `met` is false where it says "none".
  list<mpi_neighbour> meet(const char* listen, bool& met) {
    const double end = now_seconds() + seconds_;
    if (rank_ == 0) invite(listen);
    mpi_check(MPI_Bcast(&invitation_, sizeof invitation_, MPI_BYTE, 0, world_), "MPI_Bcast");
    met = !invitation_.refused;
    if (!met) return {};
    std::string complaint;
    if (invitation_.complaint[0] == '\0') {
      if (rank_ == 0) admit(end);
      else if (!neighbours_.empty()) complaint = join(end);
      int failed = !complaint.empty() || invitation_.complaint[0] != '\0', any_failed = 0;
      mpi_check(MPI_Allreduce(&failed, &any_failed, 1, MPI_INT, MPI_MAX, world_), "MPI_Allreduce");
      if (any_failed == 0) return std::move(neighbours_);
      if (failed == 0) complain("a node has not heard from rank 0 that its connection counts");
      mpi_check(MPI_Bcast(invitation_.complaint, sizeof invitation_.complaint, MPI_CHAR, 0, world_), "MPI_Bcast");
    }
    if (complaint.empty()) complaint = invitation_.complaint;
    else complaint = std::string(invitation_.complaint) + "; here: " + complaint;
    throw transport_error("the nodes of this job have no connections that would tell of failures: " + complaint +
                          "; let rank 0 listen on an address of its host that the others can reach "
                          "(mpi_options::listen or SHARDKIT_LISTEN), or do without: \"none\"");
  }

 private:
  // As it travels.
  struct invitation {
    bool refused = false;
    char token[33] = {};
    char complaint[400] = {};
    char place[80] = {};  // for messages
    socklen_t length = 0;
    sockaddr_storage address = {};

    sockaddr* generic() noexcept { return reinterpret_cast<sockaddr*>(&address); }
  };
  struct newcomer {
    int socket;
    double deadline;
    std::size_t bytes = 0;
    greeting::wire hello = {};
  };

  static constexpr double hello_seconds = 1;
  static constexpr std::size_t most_newcomers = 64;

  static void close(int socket) noexcept {
    if (socket >= 0) ::close(socket);
  }
  void complain(const std::string& what) noexcept {
    std::snprintf(invitation_.complaint, sizeof invitation_.complaint, "%s", what.c_str());
  }

  // ---- Rank 0

  void invite(const char* listen) {
    if (listen[0] == '\0')
      if (const char* set = std::getenv("SHARDKIT_LISTEN")) listen = set;
    if (std::strcmp(listen, "none") == 0) {
      invitation_.refused = true;
      return;
    }
    unsigned char random[16];
    if (::getentropy(random, sizeof random) != 0) return complain("the system gives no random numbers");
    for (std::size_t i = 0; i < sizeof random; ++i) std::snprintf(&invitation_.token[2 * i], 3, "%02x", random[i]);
    if (listen[0] == '\0' ? !find_own_address() : !resolve(listen, true))
      return complain("rank 0 finds no address for '" + std::string(listen) + "'");
    listener_ = ::socket(invitation_.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener_ < 0 || ::bind(listener_, invitation_.generic(), invitation_.length) != 0 ||
        ::listen(listener_, 1024) != 0 || ::getsockname(listener_, invitation_.generic(), &invitation_.length) != 0)
      complain("rank 0 cannot listen on " + name_place() + ": " + std::strerror(errno));
    std::snprintf(invitation_.place, sizeof invitation_.place, "%s", name_place().c_str());
  }

  std::string name_place() noexcept {
    char host[64] = "?", port[16] = "?";
    ::getnameinfo(invitation_.generic(), invitation_.length, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV);
    return std::string(host) + " port " + port;
  }
  void take(const sockaddr* address, socklen_t length) noexcept {
    invitation_.length = length;
    std::memcpy(&invitation_.address, address, length);
  }
  static bool is_loopback(const sockaddr& address) noexcept {
    if (address.sa_family == AF_INET)
      return ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
  }

  bool resolve(const char* name, bool loopback_too) noexcept {
    addrinfo wanted{}, *found = nullptr;
    wanted.ai_family = AF_UNSPEC;
    wanted.ai_socktype = SOCK_STREAM;
    if (::getaddrinfo(name, nullptr, &wanted, &found) != 0) return false;
    const addrinfo* one = found;
    while (one != nullptr && !loopback_too && is_loopback(*one->ai_addr)) one = one->ai_next;
    if (one != nullptr) take(one->ai_addr, one->ai_addrlen);
    ::freeaddrinfo(found);
    return one != nullptr;
  }
  // What the host name stands for; where that is the loopback, as Debian sets it up, the first interface that is
  // another; where there is none, the loopback: all nodes are on this machine then.
  bool find_own_address() noexcept {
    char host[256] = "";
    ::gethostname(host, sizeof host - 1);
    if (resolve(host, false)) return true;
    ifaddrs* interfaces = nullptr;
    bool found = false;
    if (::getifaddrs(&interfaces) == 0) {
      for (const ifaddrs* one = interfaces; one != nullptr && !found; one = one->ifa_next) {
        found = one->ifa_addr != nullptr && one->ifa_addr->sa_family == AF_INET && (one->ifa_flags & IFF_UP) != 0 &&
                !is_loopback(*one->ifa_addr);
        if (found) take(one->ifa_addr, sizeof(sockaddr_in));
      }
      ::freeifaddrs(interfaces);
    }
    return found || resolve("127.0.0.1", true);
  }

  // What comes is not trusted: a connection that is slow, malformed or without the token is dropped.
  void admit(double end) {
    while (missing() != 0 && now_seconds() < end) {
      list<pollfd> entries;
      entries.push_back({newcomers_.size() < most_newcomers ? listener_ : -1, POLLIN, 0});
      for (const newcomer& one : newcomers_) entries.push_back({one.socket, POLLIN, 0});
      (void)::poll(entries.data(), entries.size(), 100);
      const double now = now_seconds();
      for (newcomer* one = newcomers_.begin(); one != newcomers_.end();) {
        if (one->deadline > now && read(*one)) {
          ++one;
          continue;
        }
        close(one->socket);
        newcomers_.erase(one);
      }
      if ((entries.front().revents & POLLIN) == 0) continue;
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (socket >= 0) newcomers_.push_back({socket, now + hello_seconds});
    }
    if (missing() == 0) return;
    char text[160];
    std::snprintf(text, sizeof text, "within %g s no connection came to %s from the nodes of these ranks:", seconds_,
                  invitation_.place);
    std::string ranks;
    int named = 0;
    for (const mpi_neighbour& one : neighbours_)
      if (one.socket < 0 && ++named <= 16) ranks += " " + std::to_string(one.rank);
    complain(text + ranks + (named > 16 ? " ..." : ""));
  }
  std::size_t missing() const noexcept {
    std::size_t count = 0;
    for (const mpi_neighbour& one : neighbours_) count += one.socket < 0;
    return count;
  }

  /// False where the connection is of no further use: dropped, or let in and its socket taken.
  bool read(newcomer& one) {
    switch (receive(one.socket, one.hello, one.bytes)) {
      case progress::none: return true;
      case progress::lost: return false;
      case progress::whole: break;
    }
    greeting hello;
    if (decode(one.hello, invitation_.token, hello) != greeting_check::good || hello.kind != greeting_kind::hello)
      return false;
    for (mpi_neighbour& expected : neighbours_) {
      if (static_cast<std::uint32_t>(expected.rank) != hello.rank || !send(one.socket, greeting_kind::welcome))
        continue;
      close(expected.socket);  // which it has given up, or it would not come again
      expected.socket = std::exchange(one.socket, -1);
      tune_connection(expected.socket);
    }
    return false;
  }

  // ---- The first ranks of the other nodes

  /// What has gone wrong; empty for nothing.
  std::string join(double end) {
    std::string complaint;
    int& socket = neighbours_.front().socket;
    for (;;) {
      socket = ::socket(invitation_.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (socket >= 0 && greet(socket, end, complaint)) return "";
      close(std::exchange(socket, -1));
      if (now_seconds() + 0.05 >= end) return complaint;
      sleep_seconds(0.05);
    }
  }
  bool greet(int socket, double end, std::string& complaint) {
    const auto wait = [&](short events) {
      pollfd entry{socket, events, 0};
      const double left = end - now_seconds();
      return ::poll(&entry, 1, left > 0 ? static_cast<int>(left * 1e3) : 0) > 0;
    };
    int wrong = ::connect(socket, invitation_.generic(), invitation_.length) == 0 ? 0 : errno;
    if (wrong == EINPROGRESS) {
      socklen_t length = sizeof wrong;
      if (!wait(POLLOUT)) wrong = ETIMEDOUT;
      else if (::getsockopt(socket, SOL_SOCKET, SO_ERROR, &wrong, &length) != 0) wrong = errno;
    }
    complaint = std::strerror(wrong);
    if (wrong != 0) return false;
    complaint = "what listens there did not answer as this job's rank 0";
    tune_connection(socket);
    greeting::wire reply;
    greeting answer;
    std::size_t bytes = 0;
    if (!send(socket, greeting_kind::hello)) return false;
    for (progress got = progress::none; got != progress::whole; got = receive(socket, reply, bytes))
      if (got == progress::lost || !wait(POLLIN)) return false;
    return decode(reply, invitation_.token, answer) == greeting_check::good && answer.kind == greeting_kind::welcome;
  }

  // ---- Both

  enum class progress { none, whole, lost };

  static progress receive(int socket, greeting::wire& into, std::size_t& bytes) noexcept {
    const ssize_t got = ::recv(socket, &into[bytes], into.size() - bytes, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? progress::none : progress::lost;
    bytes += static_cast<std::size_t>(got);
    return got == 0 ? progress::lost : bytes == into.size() ? progress::whole : progress::none;
  }
  // A fresh connection has room for one greeting.
  bool send(int socket, greeting_kind kind) const {
    const auto wire =
        encode({greeting::current_version, kind, static_cast<std::uint32_t>(rank_), size_, invitation_.token, ""});
    return ::send(socket, wire.data(), wire.size(), MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(wire.size());
  }

  const MPI_Comm world_;
  const int rank_;
  const std::uint32_t size_;
  const double seconds_;
  invitation invitation_;
  int listener_ = -1;
  list<mpi_neighbour> neighbours_;
  list<newcomer> newcomers_;
};

}  // namespace shardkit::detail
