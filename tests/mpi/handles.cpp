// Who owns which MPI communicator, and what split makes of ranks, keys and colours.
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>
#include "support/mpi_world.hpp"

#include <string>
#include <utility>
#include <vector>

using namespace shardkit;

namespace {
bool only_funneled = false;  // what MPI says about itself
}
extern "C" int MPI_Query_thread(int* provided) {
  const int code = PMPI_Query_thread(provided);
  if (only_funneled) *provided = MPI_THREAD_FUNNELED;
  return code;
}

namespace {

// An attribute whose callback runs when MPI frees the communicator that carries it.
int freed = 0;
int note_freed(MPI_Comm, int, void*, void*) {
  ++freed;
  return MPI_SUCCESS;
}

MPI_Comm marked_duplicate() {
  static int key = MPI_KEYVAL_INVALID;
  if (key == MPI_KEYVAL_INVALID) MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, note_freed, &key, nullptr);
  MPI_Comm copy = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &copy);
  MPI_Comm_set_attr(copy, key, nullptr);
  freed = 0;
  return copy;
}

}  // namespace

TEST_CASE("an adopted MPI communicator is freed with the communicator") {
  {
    auto adopted = shardkit_test::mpi().adopt(marked_duplicate(), "mine");
    auto moved = std::move(adopted);
    CHECK(moved.all_reduce(1, sum) == moved.size());
    CHECK(freed == 0);
  }
  CHECK(freed == 1);
}

TEST_CASE("a borrowed MPI communicator is not freed, and gets its error handler back") {
  MPI_Comm handle = marked_duplicate();
  MPI_Comm_set_errhandler(handle, MPI_ERRORS_ARE_FATAL);
  {
    auto borrowed = shardkit_test::mpi().borrow(handle, "mine");
    CHECK(borrowed.all_reduce(1, sum) == borrowed.size());
    CHECK(borrowed.backend().native_handle() == handle);
  }
  CHECK(freed == 0);
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(handle, &handler);
  CHECK(handler == MPI_ERRORS_ARE_FATAL);
  MPI_Errhandler_free(&handler);
  CHECK(MPI_Barrier(handle) == MPI_SUCCESS);
  MPI_Comm_free(&handle);
  CHECK(freed == 1);
}

TEST_CASE("a borrowed MPI communicator has its error handler back only when the last request is complete") {
  MPI_Comm handle = marked_duplicate();
  MPI_Comm_set_errhandler(handle, MPI_ERRORS_ARE_FATAL);
  const auto is_fatal = [&] {
    MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
    MPI_Comm_get_errhandler(handle, &handler);
    const bool fatal = handler == MPI_ERRORS_ARE_FATAL;
    MPI_Errhandler_free(&handler);
    return fatal;
  };
  int value = 1;
  request pending;
  {
    auto borrowed = shardkit_test::mpi().borrow(handle, "mine");
    auto child = borrowed.split(0);  // its own, and freed
    CHECK(child.all_reduce(1, sum) == child.size());
    pending = borrowed.all_reduce_async(in_place(view(&value, 1)), sum);
  }
  CHECK_FALSE(is_fatal());
  pending.wait();
  CHECK(is_fatal());
  CHECK(value == shardkit_test::mpi().size());
  CHECK(freed == 0);
  MPI_Comm_free(&handle);
}

TEST_CASE("MPI_COMM_NULL is refused") {
  CHECK_THROWS_AS(shardkit_test::mpi().adopt(MPI_COMM_NULL, "nothing"), usage_error);
}

TEST_CASE("an inter-communicator is refused, and stays the caller's") {
  auto world = shardkit_test::mpi().world();
  if (world.size() == 1) return;  // it needs two groups
  auto half = world.split(world.rank() % 2);
  MPI_Comm across = MPI_COMM_NULL;
  MPI_Intercomm_create(half.backend().native_handle(), 0, world.backend().native_handle(), 1 - world.rank() % 2, 0,
                       &across);
  CHECK_THROWS_WITH_AS(
      shardkit_test::mpi().adopt(across, "both"),
      doctest::Contains("'both': the MPI communicator is an inter-communicator, and the verbs need all ranks in one "
                        "group; pass what MPI_Intercomm_merge makes of it"),
      usage_error);
  CHECK_THROWS_AS(shardkit_test::mpi().borrow(across, "both"), usage_error);
  CHECK(MPI_Comm_free(&across) == MPI_SUCCESS);
}

TEST_CASE("a communicator that an exception ends is not freed: the peers may be elsewhere") {
  MPI_Comm handle = marked_duplicate();
  const auto leave = [&](bool by_exception) {
    auto adopted = shardkit_test::mpi().adopt(handle, "mine");
    if (by_exception) throw 1;
  };
  CHECK_THROWS_AS(leave(true), int);
  CHECK(freed == 0);
  // Nobody has failed for that.
  leave(false);
  CHECK(freed == 1);
  handle = marked_duplicate();
  const auto leave_borrowed = [&] {
    auto borrowed = shardkit_test::mpi().borrow(handle, "mine");
    throw 1;
  };
  MPI_Comm_set_errhandler(handle, MPI_ERRORS_ARE_FATAL);
  CHECK_THROWS_AS(leave_borrowed(), int);
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(handle, &handler);
  CHECK(handler == MPI_ERRORS_ARE_FATAL);
  MPI_Errhandler_free(&handler);
  MPI_Comm_free(&handle);
}

TEST_CASE("a request keeps its communicator until it is complete") {
  auto kept = shardkit_test::mpi().adopt(marked_duplicate(), "mine");
  const int next = (kept.rank() + 1) % kept.size(), previous = (kept.rank() + kept.size() - 1) % kept.size();
  int outgoing = kept.rank(), incoming = -1;
  request receive, send;
  {
    auto comm = std::move(kept);
    receive = comm.recv_async(view(&incoming, 1), previous);
    send = comm.send_async(view(&outgoing, 1), next);
  }
  CHECK(freed == 0);
  send.wait();
  CHECK(freed == 0);
  receive.wait();
  CHECK(freed == 1);
  CHECK(incoming == previous);
}

TEST_CASE("split orders by key, then rank, with negative keys and sparse colours") {
  auto world = shardkit_test::mpi().world();
  const int rank = world.rank(), size = world.size();
  auto reversed = world.split(0, -rank);
  CHECK(reversed.rank() == size - 1 - rank);
  auto tied = world.split(7, rank == 0 ? 5 : -5);
  CHECK(tied.rank() == (rank == 0 ? size - 1 : rank - 1));
  auto sparse = world.split(rank % 2 == 0 ? 2'000'000'000 : 17, 100 - 3 * rank);
  const int same = rank % 2 == 0 ? (size + 1) / 2 : size / 2;
  CHECK(sparse.size() == same);
  CHECK(sparse.rank() == same - 1 - rank / 2);
}

TEST_CASE("communicators of split are freed: thousands of them, one after the other") {
  auto world = shardkit_test::mpi().world();
  if (world.size() > 2) return;  // too slow where ranks outnumber cores
  int wrong = 0;
  for (int i = 0; i < 2500; ++i) wrong += world.split(world.rank() % 2, i % 3).size() > 1;
  CHECK(wrong == 0);
}

TEST_CASE("options that make no sense are refused before MPI is touched") {
  mpi_options options;
  options.piece_bytes = 7;
  CHECK_THROWS_AS(mpi_environment{options}, usage_error);
  options.piece_bytes = std::size_t{1} << 31;
  CHECK_THROWS_AS(mpi_environment{options}, usage_error);
  options = {};
  options.limits.operation = 0;
  CHECK_THROWS_AS(mpi_environment{options}, usage_error);
}

TEST_CASE("a thread level that MPI does not provide is refused with the remedy") {
  const auto refusal = [](int level) {
    mpi_options options;
    options.thread_level = level;
    options.limits.abort = 0.2;
    try {
      mpi_environment none(options);
    } catch (const usage_error& refused) {
      return refused.message();
    }
    return std::string("none");
  };
  only_funneled = true;
  const std::string serialized = refusal(MPI_THREAD_SERIALIZED), multiple = refusal(MPI_THREAD_MULTIPLE);
  const std::string funneled = refusal(MPI_THREAD_FUNNELED);
  only_funneled = false;
  CHECK(serialized ==
        "the program has initialised MPI with MPI_THREAD_FUNNELED, and mpi_options::thread_level asks for "
        "MPI_THREAD_SERIALIZED; ask for less, call MPI_Init_thread with MPI_THREAD_SERIALIZED, or leave that to "
        "mpi_environment");
  CHECK(multiple.find("call MPI_Init_thread with MPI_THREAD_MULTIPLE") != std::string::npos);
  CHECK(funneled == "none");
  // The refusals have left MPI as it was, and end nothing.
  shardkit::detail::sleep_seconds(0.5);
  CHECK(shardkit_test::mpi().world().all_reduce(1, sum) == shardkit_test::mpi().size());
}

TEST_CASE("options that differ between ranks are refused on every rank, which says where") {
  const int rank = shardkit_test::mpi().rank(), size = shardkit_test::mpi().size();
  mpi_options options;
  options.limits.abort = 0.2;
  options.limits.operation = rank == 0 || rank == 2 ? no_deadline : 100 + rank;
  std::string refusal = "none";
  try {
    mpi_environment none(options);
  } catch (const usage_error& refused) {
    refusal = refused.message();
  }
  const std::string start = "mpi_options: limits.operation is inf on rank 0, but 101 on rank 1";
  const std::string end = "; it has to be the same on every rank";
  if (size == 1) CHECK(refusal == "none");
  else if (size < 4) CHECK(refusal == start + end);
  else CHECK(refusal == start + ", 103 on rank 3" + end);
  detail::sleep_seconds(0.5);
  CHECK(shardkit_test::mpi().world().all_reduce(1, sum) == size);
}

TEST_CASE("an environment inside another neither initialises nor finalises MPI") {
  {
    mpi_options options;
    options.limits = {no_deadline, no_deadline, no_deadline};  // as for a debugger: no watchdog at all
    mpi_environment inner(options);
    auto world = inner.world();
    CHECK(world.all_reduce(1, sum) == world.size());
  }
  int finalized = 1;
  MPI_Finalized(&finalized);
  CHECK(finalized == 0);
  CHECK(shardkit_test::mpi().world().all_reduce(1, sum) == shardkit_test::mpi().size());
}
