// Sends, receives and collectives under way together. A message larger than MPI gets in one call travels in pieces,
// whose number is its tag, so that a receive of another size is recognised at its first piece. From MPI 4 on no message
// is too large.
#pragma once

#include <shardkit/backends/detail/mpi_launch.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace shardkit::detail {

/// Elements of a type that go in one MPI call, and how a message is cut accordingly.
struct mpi_cut {
  mpi_cut(std::size_t count, dtype type, std::size_t piece_bytes) noexcept
      : each(SHARDKIT_MPI_LARGE_COUNTS && count != 0 ? count : piece_bytes / size_of(type)),
        pieces(count == 0 ? 1 : count / each + (count % each != 0)),
        tag(tag_of(pieces)) {}

  /// A message that the caller cuts: this is one of its `pieces`, and MPI takes it whole.
  static mpi_cut one_of(std::size_t pieces, std::size_t count) noexcept {
    mpi_cut cut(0, dtype::u8, 1);
    cut.each = count;
    cut.tag = tag_of(pieces);
    return cut;
  }

  std::size_t each;
  std::size_t pieces;
  int tag;

 private:
  static int tag_of(std::size_t pieces) noexcept {
    return static_cast<int>(mpi_smaller<std::size_t>(pieces, 32767));  // the least upper bound MPI grants
  }
};

/// A piece of a message under way, or a collective.
struct mpi_piece {
  bool received;          ///< else sent
  std::size_t count = 0;  ///< elements
  dtype type = dtype::u8;
  int peer = -1;
  int tag = 0;
  const char* collective = nullptr;  ///< the function of MPI's that has started it; null for a message
};

[[noreturn, gnu::cold, gnu::noinline]] inline void mpi_throw_mismatch(const mpi_piece& expected,
                                                                      const std::string& met) {
  throw mismatch_error("a receive of " + std::to_string(expected.count) + " x " + name_of(expected.type) +
                       " from rank " + std::to_string(expected.peer) + " met " + met);
}

/// Throws where a receive has failed or got another message than expected.
inline void mpi_require_expected(int code, const MPI_Status& status, const mpi_piece& expected, const char* function) {
  if (code != MPI_SUCCESS) [[unlikely]] {
    int kind = code;
    MPI_Error_class(code, &kind);
    if (kind == MPI_ERR_TRUNCATE) mpi_throw_mismatch(expected, "a longer message");
    mpi_throw(code, function);
  }
  mpi_count count = 0;
#if SHARDKIT_MPI_LARGE_COUNTS
  mpi_check(MPI_Get_count_c(&status, mpi_moving_type(expected.type), &count), "MPI_Get_count_c");
#else
  mpi_check(MPI_Get_count(&status, mpi_moving_type(expected.type), &count), "MPI_Get_count");
#endif
  if (count == MPI_UNDEFINED) mpi_throw_mismatch(expected, "a message of elements of another size");
  if (static_cast<std::size_t>(count) != expected.count) [[unlikely]]
    mpi_throw_mismatch(expected, "a message of " + std::to_string(count) + " elements");
  if (status.MPI_TAG != expected.tag) [[unlikely]]
    mpi_throw_mismatch(expected, "the first of " + std::to_string(status.MPI_TAG) + " pieces where " +
                                     std::to_string(expected.tag) + " were due");
}

class mpi_transfer {
 public:
  mpi_transfer(mpi_launch& launch, std::size_t piece_bytes) noexcept : launch_(launch), piece_bytes_(piece_bytes) {}
  mpi_transfer(const mpi_transfer&) = delete;
  mpi_transfer& operator=(const mpi_transfer&) = delete;

  bool empty() const noexcept { return requests_.empty(); }

  /// start() calls receive and send. Neither returns nor throws before MPI has let go of all buffers.
  template <class Start>
  void run(Start start) {
    try {
      start();
      wait();
    } catch (...) {
      launch_.fail_as_caught();
      abandon();
      throw;
    }
  }

  void receive(MPI_Comm comm, void* out, std::size_t count, dtype type, int peer) {
    receive(comm, out, mpi_cut(count, type, piece_bytes_), count, type, peer);
  }
  void receive(MPI_Comm comm, void* out, const mpi_cut& cut, std::size_t count, dtype type, int peer) {
    post(cut, count, type, peer, true, [&](std::size_t offset, mpi_count n, int, MPI_Request* request) {
      void* to = static_cast<char*>(out) + offset;
#if SHARDKIT_MPI_LARGE_COUNTS
      return MPI_Irecv_c(to, n, mpi_moving_type(type), peer, MPI_ANY_TAG, comm, request);
#else
      return MPI_Irecv(to, n, mpi_moving_type(type), peer, MPI_ANY_TAG, comm, request);
#endif
    });
  }
  void send(MPI_Comm comm, const void* in, std::size_t count, dtype type, int peer) {
    send(comm, in, mpi_cut(count, type, piece_bytes_), count, type, peer);
  }
  void send(MPI_Comm comm, const void* in, const mpi_cut& cut, std::size_t count, dtype type, int peer) {
    post(cut, count, type, peer, false, [&](std::size_t offset, mpi_count n, int tag, MPI_Request* request) {
      const void* from = static_cast<const char*>(in) + offset;
#if SHARDKIT_MPI_LARGE_COUNTS
      return MPI_Isend_c(from, n, mpi_moving_type(type), peer, tag, comm, request);
#else
      return MPI_Isend(from, n, mpi_moving_type(type), peer, tag, comm, request);
#endif
    });
  }

  /// start(request) calls MPI's `function`.
  template <class Start>
  void collective(const char* function, Start start) {
    mpi_check(start(&add({false, 0, dtype::u8, -1, 0, function})), function);
  }

  /// Makes progress; true once everything has arrived. A receive that met the wrong message throws.
  bool test() {
    if (empty()) return true;
    int done = 0;
    const int code = MPI_Testall(number(), requests_.data(), &done, statuses_.data());
    if (code == MPI_SUCCESS && done == 0) return false;
    conclude(code, "MPI_Testall");
    return true;
  }
  void wait() {
    if (!empty()) conclude(MPI_Waitall(number(), requests_.data(), statuses_.data()), "MPI_Waitall");
  }

  /// Gives up what has not arrived: on return MPI touches no buffer any more. Receives are cancelled; a send that its
  /// peer does not take, or a collective that a peer does not come to, waits until the watchdog ends the job.
  void abandon() noexcept {
    const bool running = mpi_is_running();  // a request may be dropped after the end of MPI
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] == MPI_REQUEST_NULL || !running) continue;
      if (pieces_[i].received) MPI_Cancel(&requests_[i]);
      MPI_Wait(&requests_[i], MPI_STATUS_IGNORE);
    }
    clear();
  }

 private:
  template <class Start>
  void post(const mpi_cut& cut, std::size_t count, dtype type, int peer, bool received, Start start) {
    for (std::size_t piece = 0; piece < cut.pieces; ++piece) {
      const std::size_t offset = piece * cut.each, n = mpi_smaller(cut.each, count - offset);
      mpi_check(
          start(offset * size_of(type), static_cast<mpi_count>(n), cut.tag, &add({received, n, type, peer, cut.tag})),
          received ? "MPI_Irecv" : "MPI_Isend");
    }
  }
  MPI_Request& add(const mpi_piece& piece) {
    pieces_.push_back(piece);
    statuses_.emplace_back();
    return requests_.emplace_back(MPI_REQUEST_NULL);
  }

  void conclude(int code, const char* function) {
    int kind = code;
    if (code != MPI_SUCCESS) MPI_Error_class(code, &kind);
    const bool in_status = kind == MPI_ERR_IN_STATUS;  // only then does MPI fill in the errors of the statuses
    if (!in_status) mpi_check(code, function);
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      const int error = in_status ? statuses_[i].MPI_ERROR : MPI_SUCCESS;
      if (error == MPI_ERR_PENDING) continue;  // another piece has failed
      if (pieces_[i].collective != nullptr) mpi_check(error, pieces_[i].collective);
      else if (pieces_[i].received) mpi_require_expected(error, statuses_[i], pieces_[i], function);
      else mpi_check(error, function);
    }
    mpi_check(code, function);
    clear();
  }
  void clear() noexcept {
    requests_.clear();
    statuses_.clear();
    pieces_.clear();
  }
  int number() const noexcept { return static_cast<int>(requests_.size()); }

  mpi_launch& launch_;
  const std::size_t piece_bytes_;
  // One entry for each piece; the vectors keep their capacity, so that a steady state allocates nothing.
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
  std::vector<mpi_piece> pieces_;
};

}  // namespace shardkit::detail
