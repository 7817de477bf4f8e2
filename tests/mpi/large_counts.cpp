// Counts beyond 2^31 elements reach MPI whole: stand-ins for MPI's functions write down what they are given and touch
// nothing, so that no memory is needed. One rank. Compiled twice: with MPI's large-count functions, whether the library
// has them or not, and without.
#include <mpi.h>

#if SHARDKIT_MPI_LARGE_COUNTS && MPI_VERSION < 4
extern "C" {
int MPI_Bcast_c(void*, MPI_Count, MPI_Datatype, int, MPI_Comm);
int MPI_Allreduce_c(const void*, void*, MPI_Count, MPI_Datatype, MPI_Op, MPI_Comm);
int MPI_Iallreduce_c(const void*, void*, MPI_Count, MPI_Datatype, MPI_Op, MPI_Comm, MPI_Request*);
int MPI_Isend_c(const void*, MPI_Count, MPI_Datatype, int, int, MPI_Comm, MPI_Request*);
int MPI_Irecv_c(void*, MPI_Count, MPI_Datatype, int, int, MPI_Comm, MPI_Request*);
int MPI_Get_count_c(const MPI_Status*, MPI_Datatype, MPI_Count*);
int MPI_Ialltoallw_c(const void*, const MPI_Count*, const MPI_Aint*, const MPI_Datatype*, void*, const MPI_Count*,
                     const MPI_Aint*, const MPI_Datatype*, MPI_Comm, MPI_Request*);
}
#endif

// Its own main: all of the program has to agree on the functions it uses.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>

#include <cstdint>
#include <vector>

#include <sys/mman.h>

using namespace shardkit;

namespace {

mpi_environment* environment = nullptr;

struct given {
  const char* begin;
  std::size_t bytes;
  int tag;
};
bool recording = false;
std::vector<given> calls;

int note(const void* data, MPI_Count count, MPI_Datatype type, int tag = 0) {
  int size = 0;
  MPI_Type_size(type, &size);
  const std::size_t bytes = static_cast<std::size_t>(count) * static_cast<std::size_t>(size);
  calls.push_back({static_cast<const char*>(data), bytes, tag});
  return MPI_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  mpi_environment mpi(argc, argv);
  environment = &mpi;
  return doctest::Context(argc, argv).run();
}

extern "C" {
int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
  return recording ? note(data, count, type) : PMPI_Bcast(data, count, type, root, comm);
}
int MPI_Ibcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request* request) {
  return recording ? note(data, count, type) : PMPI_Ibcast(data, count, type, root, comm, request);
}
int MPI_Allreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  return recording ? note(out, count, type) : PMPI_Allreduce(in, out, count, type, op, comm);
}
int MPI_Iallreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
                   MPI_Request* request) {
  return recording ? note(out, count, type) : PMPI_Iallreduce(in, out, count, type, op, comm, request);
}
int MPI_Reduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm) {
  return recording ? note(in, count, type) : PMPI_Reduce(in, out, count, type, op, root, comm);
}
int MPI_Ireduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm,
                MPI_Request* request) {
  return recording ? note(in, count, type) : PMPI_Ireduce(in, out, count, type, op, root, comm, request);
}
int MPI_Isend(const void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request* request) {
  return recording ? note(data, count, type, tag) : PMPI_Isend(data, count, type, peer, tag, comm, request);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request* request) {
  return recording ? note(data, count, type, tag) : PMPI_Irecv(data, count, type, peer, tag, comm, request);
}
#if SHARDKIT_MPI_LARGE_COUNTS
// Only used while recording: nothing else here is large.
int MPI_Bcast_c(void* data, MPI_Count count, MPI_Datatype type, int, MPI_Comm) { return note(data, count, type); }
int MPI_Allreduce_c(const void*, void* out, MPI_Count count, MPI_Datatype type, MPI_Op, MPI_Comm) {
  return note(out, count, type);
}
int MPI_Iallreduce_c(const void*, void* out, MPI_Count count, MPI_Datatype type, MPI_Op, MPI_Comm, MPI_Request*) {
  return note(out, count, type);
}
int MPI_Isend_c(const void* data, MPI_Count count, MPI_Datatype type, int, int tag, MPI_Comm, MPI_Request*) {
  return note(data, count, type, tag);
}
int MPI_Irecv_c(void* data, MPI_Count count, MPI_Datatype type, int, int tag, MPI_Comm, MPI_Request*) {
  return note(data, count, type, tag);
}
int MPI_Get_count_c(const MPI_Status* status, MPI_Datatype type, MPI_Count* count) {
  int size = 0;
  MPI_Type_size(type, &size);
  const int code = MPI_Get_elements_x(status, MPI_BYTE, count);
  *count /= size;
  return code;
}
int MPI_Ialltoallw_c(const void*, const MPI_Count*, const MPI_Aint*, const MPI_Datatype*, void*, const MPI_Count*,
                     const MPI_Aint*, const MPI_Datatype*, MPI_Comm, MPI_Request*) {
  return MPI_ERR_OTHER;
}
#endif
// All has arrived: as many bytes as were asked for, tagged with their number of pieces.
int MPI_Waitall(int count, MPI_Request* requests, MPI_Status* statuses) {
  if (!recording) return PMPI_Waitall(count, requests, statuses);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    MPI_Status_set_elements_x(&statuses[i], MPI_BYTE, static_cast<MPI_Count>(calls[i].bytes));
    statuses[i].MPI_TAG = count;
  }
  return MPI_SUCCESS;
}
}

namespace {

// Addresses without memory behind them.
template <class T>
class hollow {
 public:
  explicit hollow(std::size_t size)
      : size_(size),
        data_(::mmap(nullptr, size * sizeof(T), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    REQUIRE(data_ != MAP_FAILED);
  }
  ~hollow() { ::munmap(data_, size_ * sizeof(T)); }
  view<T> get() const { return {static_cast<T*>(data_), size_}; }

 private:
  std::size_t size_;
  void* data_;
};

// What run() hands to MPI covers `data` from its beginning to its end, no piece above `limit` bytes.
template <class T, class Run>
void check_covers(view<T> data, std::size_t limit, Run run) {
  calls.clear();
  recording = true;
  run();
  recording = false;
  const char* at = reinterpret_cast<const char*>(data.data());
  for (const given& call : calls) {
    REQUIRE(call.begin == at);
    REQUIRE(call.bytes <= limit);
    at += call.bytes;
  }
  CHECK(at == reinterpret_cast<const char*>(data.end()));
}

constexpr std::size_t beyond = (std::size_t{1} << 31) + 1;
constexpr std::size_t piece = mpi_options{}.piece_bytes;
// Of the calls that MPI 4 has for large counts.
constexpr std::size_t most = SHARDKIT_MPI_LARGE_COUNTS ? SIZE_MAX : piece;

}  // namespace

TEST_CASE_TEMPLATE("counts beyond 2^31 are handed to MPI exactly, whole or in pieces", T, std::uint8_t, float) {
  auto world = environment->world();
  REQUIRE(world.size() == 1);
  const hollow<T> memory(beyond), other(beyond);
  const view<T> data = memory.get();
  const reduction op = std::is_same_v<T, float> ? sum : bit_or;
  check_covers(data, most, [&] { world.broadcast(data, 0); });
  check_covers(data, most, [&] { world.all_reduce(in_place(data), op); });
  check_covers(data, most, [&] { world.all_reduce(other.get(), data, op); });
  check_covers(data, piece, [&] { world.reduce(data, other.get(), op, 0); });
  check_covers(data, most, [&] { world.send(data, 0); });
  check_covers(data, most, [&] { world.recv(data, 0); });

  check_covers(data, piece, [&] { world.broadcast_async(data, 0).wait(); });
  check_covers(data, most, [&] { world.all_reduce_async(other.get(), data, op).wait(); });
  check_covers(data, piece, [&] { world.reduce_async(data, other.get(), op, 0).wait(); });
  check_covers(data, most, [&] { world.send_async(data, 0).wait(); });
  check_covers(data, most, [&] { world.recv_async(data, 0).wait(); });
}

TEST_CASE("the pieces of a message carry their number as tag") {
  auto world = environment->world();
  const hollow<float> memory(beyond);
  calls.clear();
  recording = true;
  world.send(memory.get(), 0);
  recording = false;
  const std::size_t pieces = SHARDKIT_MPI_LARGE_COUNTS ? 1 : 9;
  CHECK(calls.size() == pieces);
  for (const given& call : calls) CHECK(call.tag == static_cast<int>(pieces));
}

TEST_CASE("parts beyond 2^31 are described to MPI exactly where they are exchanged") {
  detail::mpi_state state(detail::shared<detail::mpi_launch>::make(deadlines{}), MPI_COMM_SELF, mpi_ownership::borrowed,
                          piece);
  state.size = 4;  // as if: nothing is sent
  detail::mpi_pending& pending = state.pool.take({}, "exchange", {});
  const detail::rank_part parts[] = {{0, 77}, {beyond, 5}, {beyond + 5, beyond}, {3 * beyond, 0}};
  const detail::mpi_side side =
      detail::mpi_describe_side(state, pending, dtype::f32, [&](int rank) { return parts[rank]; });
  CHECK(side.first == beyond);  // the rank's own part, the first here, goes nowhere
  CHECK(side.counts[0] == 0);
  CHECK(side.counts[3] == 0);
  const auto described = [&](int rank) {
    MPI_Count size = 0, begin = 0, extent = 0;
    MPI_Type_size_x(side.types[rank], &size);
    MPI_Type_get_extent_x(side.types[rank], &begin, &extent);
    return std::pair(begin + side.offsets[rank], size * side.counts[rank]);
  };
  CHECK(described(1) == std::pair<MPI_Count, MPI_Count>(0, 5 * 4));
  CHECK(described(2) == std::pair<MPI_Count, MPI_Count>(5 * 4, beyond * 4));
  state.size = 1;
  pending.release();
}
