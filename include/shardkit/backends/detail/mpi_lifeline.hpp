// Notices that a process of this node has ended without leaving MPI, whatever ended it: the kernel closes its end of a
// socket. Plain MPI does not tell, and MPICH's launcher takes a bare _exit(0) for success.
#pragma once

#include <shardkit/backends/detail/mpi_api.hpp>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace shardkit::detail {

/// The ranks of a node in a ring: each holds a socket whose other end the rank before it keeps open as long as it
/// lives.
///
/// With it travels that rank's connection to MPICH's process manager (PMI_FD). Where that connection closes, Hydra
/// kills all other ranks at once, before they can say why, and may return 0; held by a neighbour it stays open, so
/// that the watchdogs end the job, with the culprit's name and a non-zero status.
class mpi_lifeline {
 public:
  mpi_lifeline() = default;
  mpi_lifeline(const mpi_lifeline&) = delete;
  mpi_lifeline& operator=(const mpi_lifeline&) = delete;
  ~mpi_lifeline() { close(); }

  /// Collective over the ranks of a node. Where the system does not let the ranks connect, nothing is noticed.
  void connect(MPI_Comm node) {
#ifdef __linux__
    int rank = 0, size = 1;
    mpi_check(MPI_Comm_rank(node, &rank), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(node, &size), "MPI_Comm_size");
    if (size == 1) return;
    before_ = (rank + size - 1) % size;
    const int next = (rank + 1) % size;
    // An address that the kernel chooses, outside of the file system.
    const int inbox = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    address mine, theirs;
    if (inbox >= 0) mine.bind_new(inbox);
    mpi_check(MPI_Sendrecv(&mine, sizeof mine, MPI_BYTE, before_, 0, &theirs, sizeof theirs, MPI_BYTE, next, 0, node,
                           MPI_STATUS_IGNORE),
              "MPI_Sendrecv");
    int pair[2] = {-1, -1};
    if (inbox >= 0 && theirs.length != 0 && ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
      own_ = pair[0];
      const char* launcher = std::getenv("PMI_FD");
      // A number that names no descriptor of ours would keep the whole message back.
      if (launcher == nullptr || !send(inbox, theirs, pair[1], std::atoi(launcher))) send(inbox, theirs, pair[1], -1);
      ::close(pair[1]);
    }
    mpi_check(MPI_Barrier(node), "MPI_Barrier");
    if (inbox >= 0) {
      receive(inbox);
      ::close(inbox);
    }
#else
    (void)node;
#endif
  }

  /// The rank, within the node, whose process has ended or called close; -1 where none has.
  int ended() const noexcept {
    if (theirs_ < 0) return -1;
    pollfd line{theirs_, POLLIN, 0};
    return ::poll(&line, 1, 0) == 1 && (line.revents & (POLLHUP | POLLERR)) != 0 ? before_ : -1;
  }

  void close() noexcept {
    for (int* descriptor : {&own_, &theirs_, &launcher_})
      if (*descriptor >= 0) ::close(std::exchange(*descriptor, -1));
  }

 private:
#ifdef __linux__
  struct address {
    sockaddr_un name;
    socklen_t length = 0;

    address() noexcept { std::memset(&name, 0, sizeof name); }
    void bind_new(int socket) noexcept {
      name.sun_family = AF_UNIX;
      socklen_t size = sizeof name;
      if (::bind(socket, reinterpret_cast<sockaddr*>(&name), sizeof name.sun_family) == 0 &&
          ::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &size) == 0)
        length = size;
    }
  };

  // A message with room for two descriptors.
  struct envelope {
    char byte = 0;
    iovec content{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
    msghdr header{};

    envelope() noexcept {
      header.msg_iov = &content;
      header.msg_iovlen = 1;
      header.msg_control = control;
      header.msg_controllen = sizeof control;
    }
  };

  static bool send(int socket, address& to, int line, int launcher) noexcept {
    envelope message;
    message.header.msg_name = &to.name;
    message.header.msg_namelen = to.length;
    const int descriptors[2] = {line, launcher};
    const std::size_t bytes = (launcher >= 0 ? 2 : 1) * sizeof(int);
    message.header.msg_controllen = CMSG_SPACE(bytes);
    cmsghdr* const list = CMSG_FIRSTHDR(&message.header);
    list->cmsg_level = SOL_SOCKET;
    list->cmsg_type = SCM_RIGHTS;
    list->cmsg_len = CMSG_LEN(bytes);
    std::memcpy(CMSG_DATA(list), descriptors, bytes);
    return ::sendmsg(socket, &message.header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
  }

  void receive(int socket) noexcept {
    envelope message;
    if (::recvmsg(socket, &message.header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0) return;
    const cmsghdr* const list = CMSG_FIRSTHDR(&message.header);
    if (list == nullptr || list->cmsg_type != SCM_RIGHTS) return;
    std::memcpy(&theirs_, CMSG_DATA(list), sizeof theirs_);
    if (list->cmsg_len == CMSG_LEN(2 * sizeof(int)))
      std::memcpy(&launcher_, CMSG_DATA(list) + sizeof theirs_, sizeof launcher_);
  }
#endif

  int before_ = -1;
  int own_ = -1, theirs_ = -1, launcher_ = -1;
};

}  // namespace shardkit::detail
