// Counts beyond 2^31 elements reach MPI whole: stand-ins for MPI's functions write down what they are given and touch
// nothing, so that no memory is needed. One rank.
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>
#include "support/mpi_world.hpp"

#include <cstdint>
#include <vector>

#include <sys/mman.h>

using namespace shardkit;

namespace {

struct given {
  const char* begin;
  std::size_t bytes;
  int tag;
};
bool recording = false;
std::vector<given> calls;

int note(const void* data, int count, MPI_Datatype type, int tag = 0) {
  int size = 0;
  MPI_Type_size(type, &size);
  const std::size_t bytes = static_cast<std::size_t>(count) * static_cast<std::size_t>(size);
  calls.push_back({static_cast<const char*>(data), bytes, tag});
  return MPI_SUCCESS;
}

}  // namespace

extern "C" {
int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
  return recording ? note(data, count, type) : PMPI_Bcast(data, count, type, root, comm);
}
int MPI_Allreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  return recording ? note(out, count, type) : PMPI_Allreduce(in, out, count, type, op, comm);
}
int MPI_Reduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm) {
  return recording ? note(in, count, type) : PMPI_Reduce(in, out, count, type, op, root, comm);
}
int MPI_Isend(const void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request* request) {
  return recording ? note(data, count, type, tag) : PMPI_Isend(data, count, type, peer, tag, comm, request);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request* request) {
  return recording ? note(data, count, type, tag) : PMPI_Irecv(data, count, type, peer, tag, comm, request);
}
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

}  // namespace

TEST_CASE_TEMPLATE("counts beyond 2^31 are handed to MPI in pieces that cover them exactly", T, std::uint8_t, float) {
  auto world = shardkit_test::mpi().world();
  REQUIRE(world.size() == 1);
  const hollow<T> memory(beyond), other(beyond);
  const view<T> data = memory.get();
  const reduction op = std::is_same_v<T, float> ? sum : bit_or;
  check_covers(data, piece, [&] { world.broadcast(data, 0); });
  check_covers(data, piece, [&] { world.all_reduce(in_place(data), op); });
  check_covers(data, piece, [&] { world.all_reduce(other.get(), data, op); });
  check_covers(data, piece, [&] { world.reduce(data, other.get(), op, 0); });
  check_covers(data, piece, [&] { world.send(data, 0); });
  check_covers(data, piece, [&] { world.recv(data, 0); });
}

TEST_CASE("the pieces of a message carry their number as tag") {
  auto world = shardkit_test::mpi().world();
  const hollow<float> memory(beyond);
  calls.clear();
  recording = true;
  world.send(memory.get(), 0);
  recording = false;
  CHECK(calls.size() == 9);
  for (const given& call : calls) CHECK(call.tag == 9);
}
