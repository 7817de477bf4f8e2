// Counts beyond 2^31 elements reach MPI whole: stand-ins for MPI's functions write down what they are given and touch
// nothing, so that no memory is needed. One rank, which in some cases takes itself for one of three. Compiled twice:
// with MPI's large-count functions, whether the library has them or not, and without.
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

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include <sys/mman.h>

using namespace shardkit;

namespace {

mpi_environment* environment = nullptr;

enum class way { all, to, from };
struct given {
  way where;  // to a peer, from a peer, or in a collective
  int peer;
  const char* begin;
  std::size_t bytes;
  int tag;
};
bool recording = false;
std::vector<given> calls;
std::size_t waited_for = 0;  // of the calls
// The ranks that a communicator made now believes in.
int pretended_size = 0, pretended_rank = 0;

int note(const void* data, MPI_Count count, MPI_Datatype type, way where = way::all, int peer = -1, int tag = 0) {
  int size = 0;
  MPI_Type_size(type, &size);
  const std::size_t bytes = static_cast<std::size_t>(count) * static_cast<std::size_t>(size);
  calls.push_back({where, peer, static_cast<const char*>(data), bytes, tag});
  return MPI_SUCCESS;
}

// One side of MPI_Ialltoallw: every part that is not empty. Types are contiguous.
template <class Count, class Offset>
void note_side(const void* data, const Count* counts, const Offset* offsets, const MPI_Datatype* types, way where) {
  for (int peer = 0; peer < 3; ++peer) {
    if (counts[peer] == 0) continue;
    MPI_Count size = 0, begin = 0, extent = 0;
    MPI_Type_size_x(types[peer], &size);
    MPI_Type_get_true_extent_x(types[peer], &begin, &extent);
    const auto bytes = static_cast<std::size_t>(size) * static_cast<std::size_t>(counts[peer]);
    calls.push_back(
        {where, peer, static_cast<const char*>(data) + offsets[peer] + begin, extent == size ? bytes : 0, 0});
  }
}

}  // namespace

int main(int argc, char** argv) {
  mpi_environment mpi(argc, argv);
  environment = &mpi;
  return doctest::Context(argc, argv).run();
}

extern "C" {
int MPI_Comm_size(MPI_Comm comm, int* size) {
  if (pretended_size == 0) return PMPI_Comm_size(comm, size);
  *size = pretended_size;
  return MPI_SUCCESS;
}
int MPI_Comm_rank(MPI_Comm comm, int* rank) {
  if (pretended_size == 0) return PMPI_Comm_rank(comm, rank);
  *rank = pretended_rank;
  return MPI_SUCCESS;
}
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
  return recording ? note(data, count, type, way::to, peer, tag)
                   : PMPI_Isend(data, count, type, peer, tag, comm, request);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request* request) {
  return recording ? note(data, count, type, way::from, peer, tag)
                   : PMPI_Irecv(data, count, type, peer, tag, comm, request);
}
int MPI_Ialltoallw(const void* in, const int* send_counts, const int* send_offsets, const MPI_Datatype* send_types,
                   void* out, const int* receive_counts, const int* receive_offsets, const MPI_Datatype* receive_types,
                   MPI_Comm, MPI_Request*) {
  note_side(in, send_counts, send_offsets, send_types, way::to);
  note_side(out, receive_counts, receive_offsets, receive_types, way::from);
  return MPI_SUCCESS;
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
int MPI_Isend_c(const void* data, MPI_Count count, MPI_Datatype type, int peer, int tag, MPI_Comm, MPI_Request*) {
  return note(data, count, type, way::to, peer, tag);
}
int MPI_Irecv_c(void* data, MPI_Count count, MPI_Datatype type, int peer, int tag, MPI_Comm, MPI_Request*) {
  return note(data, count, type, way::from, peer, tag);
}
int MPI_Get_count_c(const MPI_Status* status, MPI_Datatype type, MPI_Count* count) {
  int size = 0;
  MPI_Type_size(type, &size);
  const int code = MPI_Get_elements_x(status, MPI_BYTE, count);
  *count /= size;
  return code;
}
int MPI_Ialltoallw_c(const void* in, const MPI_Count* send_counts, const MPI_Aint* send_offsets,
                     const MPI_Datatype* send_types, void* out, const MPI_Count* receive_counts,
                     const MPI_Aint* receive_offsets, const MPI_Datatype* receive_types, MPI_Comm, MPI_Request*) {
  note_side(in, send_counts, send_offsets, send_types, way::to);
  note_side(out, receive_counts, receive_offsets, receive_types, way::from);
  return MPI_SUCCESS;
}
#endif
// All has arrived: as many bytes as were asked for, each message tagged with the number of its pieces.
int MPI_Waitall(int count, MPI_Request* requests, MPI_Status* statuses) {
  if (!recording) return PMPI_Waitall(count, requests, statuses);
  const auto first = calls.begin() + static_cast<std::ptrdiff_t>(waited_for);
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    const given& one = calls[waited_for + i];
    MPI_Status_set_elements_x(&statuses[i], MPI_BYTE, static_cast<MPI_Count>(one.bytes));
    statuses[i].MPI_TAG = static_cast<int>(std::count_if(
        first, calls.end(), [&](const given& piece) { return piece.where == one.where && piece.peer == one.peer; }));
  }
  waited_for = calls.size();
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
  /// Puts memory behind one element.
  void fill(std::size_t at) const {
    char* const page = static_cast<char*>(data_) + at * sizeof(T) / 4096 * 4096;
    REQUIRE(::mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
  }

 private:
  std::size_t size_;
  void* data_;
};

template <class Run>
void record(Run run) {
  calls.clear();
  waited_for = 0;
  recording = true;
  run();
  recording = false;
}

// What run() hands to MPI covers `data` from its beginning to its end, no piece above `limit` bytes.
template <class T, class Run>
void check_covers(view<T> data, std::size_t limit, Run run) {
  record(run);
  const char* at = reinterpret_cast<const char*>(data.data());
  for (const given& call : calls) {
    REQUIRE(call.begin == at);
    REQUIRE(call.bytes <= limit);
    at += call.bytes;
  }
  CHECK(at == reinterpret_cast<const char*>(data.end()));
}

constexpr std::size_t beyond = (std::size_t{1} << 31) + 1;
const std::size_t piece = mpi_options{}.piece_bytes;
// Of the calls that MPI 4 has for large counts.
const std::size_t most = SHARDKIT_MPI_LARGE_COUNTS ? SIZE_MAX : piece;

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
  record([&] { world.send(memory.get(), 0); });
  const std::size_t pieces = SHARDKIT_MPI_LARGE_COUNTS ? 1 : 9;
  CHECK(calls.size() == pieces);
  for (const given& call : calls) CHECK(call.tag == static_cast<int>(pieces));
}

namespace {

// A communicator that takes itself for rank 1 of 3. What it does is only recorded.
mpi_communicator middle_of_three() {
  pretended_size = 3, pretended_rank = 1;
  mpi_communicator result = environment->borrow(MPI_COMM_SELF, "three");
  pretended_size = 0;
  return result;
}

// Elements [first, first + count) of a buffer, to or from a peer.
template <class T>
struct moved {
  way where;
  int peer;
  view<T> buffer;
  std::size_t first, count;
};

// What the call hands to MPI: exactly these elements, each peer's from the first to the last, no piece above the limit.
template <class T, class Run>
void check_moved(std::size_t limit, std::initializer_list<moved<T>> expected, Run run) {
  record(run);
  std::size_t seen = 0;
  for (const moved<T>& part : expected) {
    CAPTURE(static_cast<int>(part.where));
    CAPTURE(part.peer);
    const char* at = reinterpret_cast<const char*>(part.buffer.data() + part.first);
    for (const given& call : calls) {
      if (call.where != part.where || call.peer != part.peer) continue;
      ++seen;
      REQUIRE(call.begin == at);
      REQUIRE(call.bytes <= limit);
      at += call.bytes;
    }
    CHECK(at == reinterpret_cast<const char*>(part.buffer.data() + part.first + part.count));
  }
  CHECK(seen == calls.size());
}

// The same waited for, in pieces, and started, as one collective.
template <class T, class Call>
void check_both(mpi_communicator& comm, const Call& call, std::initializer_list<moved<T>> expected) {
  CAPTURE(Call::name);
  check_moved(most, expected, [&] { comm.backend().perform(call); });
  check_moved(SIZE_MAX, expected, [&] { comm.backend().start(call).wait(); });
}

// What a rank combines, instead of combining it.
struct combined {
  const void* own;
  void* out;
  std::size_t count;
};
std::vector<combined> combinations;
void note_combination(reduction_kind, const void* const* in, int inputs, void* const* out, int outputs,
                      std::size_t count) {
  CHECK(inputs == 3);
  CHECK(outputs == 1);
  combinations.push_back({in[1], out[0], count});
}

}  // namespace

TEST_CASE_TEMPLATE("parts beyond 2^31 go to their ranks exactly, whole or in pieces", T, std::uint8_t, float) {
  mpi_communicator three = middle_of_three();
  REQUIRE(three.size() == 3);
  constexpr std::size_t n = beyond;
  constexpr dtype type = dtype_of<T>;
  // Of equal parts; those of this rank lie where they go, so that nothing is copied.
  const hollow<T> all(3 * n), one(n);
  const view<T> whole = all.get(), part = one.get();
  T* const own = whole.data() + n;
  const moved<T> to_first{way::to, 0, whole, n, n}, to_last{way::to, 2, whole, n, n};
  const moved<T> from_first{way::from, 0, whole, 0, n}, from_last{way::from, 2, whole, 2 * n, n};
  const moved<T> first_away{way::to, 0, whole, 0, n}, last_away{way::to, 2, whole, 2 * n, n};
  check_both<T>(three, all_gather_call{own, whole.data(), n, type, nullptr, {}},
                {to_first, to_last, from_first, from_last});
  check_both<T>(three, gather_call{own, whole.data(), n, type, 1, nullptr, {}}, {from_first, from_last});
  check_both<T>(three, gather_call{part.data(), nullptr, n, type, 2, nullptr, {}}, {{way::to, 2, part, 0, n}});
  check_both<T>(three, scatter_call{whole.data(), own, n, type, 1, nullptr, {}}, {first_away, last_away});
  check_both<T>(three, scatter_call{nullptr, part.data(), n, type, 0, nullptr, {}}, {{way::from, 0, part, 0, n}});
  check_both<T>(three, all_to_all_call{whole.data(), whole.data(), n, type, nullptr, {}},
                {first_away, last_away, from_first, from_last});

  const partition layout = partition::from_counts({n - 5, n + 2, 3});
  T* const mine = whole.data() + layout.offset(1);
  const auto of = [&](way where, int rank) {
    return moved<T>{where, rank, whole, layout.offset(rank), layout.count(rank)};
  };
  const auto own_to = [&](int rank) { return moved<T>{way::to, rank, whole, n - 5, n + 2}; };
  check_both<T>(three, all_gather_uneven_call{mine, whole.data(), &layout, type, nullptr, {}},
                {own_to(0), own_to(2), of(way::from, 0), of(way::from, 2)});
  check_both<T>(three, gather_uneven_call{mine, whole.data(), &layout, type, 1, nullptr, {}},
                {of(way::from, 0), of(way::from, 2)});
  check_both<T>(three, gather_uneven_call{mine, nullptr, &layout, type, 0, nullptr, {}}, {own_to(0)});
  check_both<T>(three, scatter_uneven_call{whole.data(), mine, &layout, type, 1, nullptr, {}},
                {of(way::to, 0), of(way::to, 2)});
  check_both<T>(three, scatter_uneven_call{nullptr, mine, &layout, type, 2, nullptr, {}},
                {{way::from, 2, whole, n - 5, n + 2}});
  const partition sent = partition::from_counts({n, 0, 5}), received = partition::from_counts({3, 0, n + 1});
  check_both<T>(three, all_to_all_uneven_call{whole.data(), &sent, whole.data(), &received, type, nullptr, {}},
                {{way::to, 0, whole, 0, n},
                 {way::to, 2, whole, n, 5},
                 {way::from, 0, whole, 0, 3},
                 {way::from, 2, whole, 3, n + 1}});
}

TEST_CASE("a reduce_scatter of parts beyond 2^31 combines every element once") {
  mpi_communicator three = middle_of_three();
  constexpr std::size_t n = beyond;
  const hollow<std::uint8_t> all(3 * n), result(n);
  const std::uint8_t *in = all.get().data(), *out = result.get().data();
  combinations.clear();
  record([&] {
    three.backend().perform(
        reduce_scatter_call{in, result.get().data(), n, dtype::u8, sum, note_combination, nullptr, {}});
  });
  std::size_t to_first = 0, to_last = 0, arrived = 0, done = 0;
  for (const given& call : calls) {
    if (call.where == way::from) {
      arrived += call.bytes;
    } else {
      std::size_t& gone = call.peer == 0 ? to_first : to_last;
      REQUIRE(call.begin == reinterpret_cast<const char*>(in + (call.peer == 0 ? 0 : 2 * n) + gone));
      gone += call.bytes;
    }
  }
  for (const combined& round : combinations) {
    REQUIRE(round.own == in + n + done);
    REQUIRE(round.out == out + done);
    done += round.count;
  }
  CHECK(to_first == n);
  CHECK(to_last == n);
  CHECK(arrived == 2 * n);
  CHECK(done == n);
}

TEST_CASE("a started reduce_scatter sends parts beyond 2^31 at once") {
  mpi_communicator three = middle_of_three();
  constexpr std::size_t n = beyond;
  const partition layout = partition::from_counts({n, 1, n});
  const hollow<std::uint8_t> all(layout.total());
  all.fill(n);  // its own element is kept for the combination
  combinations.clear();
  std::uint8_t result = 0;
  record([&] {
    three.backend()
        .start(reduce_scatter_uneven_call{
            all.get().data(), &result, &layout, dtype::u8, sum, note_combination, nullptr, {}})
        .wait();
  });
  REQUIRE(calls.size() == 4);
  for (const given& call : calls) CHECK(call.bytes == (call.where == way::to ? n : 1));
  CHECK(calls[0].begin == reinterpret_cast<const char*>(all.get().data()));
  CHECK(calls[1].begin == reinterpret_cast<const char*>(all.get().data() + n + 1));
  REQUIRE(combinations.size() == 1);
  CHECK(combinations[0].out == &result);
  CHECK(combinations[0].count == 1);
}
