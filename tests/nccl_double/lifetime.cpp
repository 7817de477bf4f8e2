// Communicators from their making to their end: who is refused, what takes its time, what goes wrong on purpose.
#include "ranks.hpp"

using namespace shardkit_test;
using doubled::report_kind;

namespace {

ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

// Polls until nothing is in progress, or for `milliseconds`; how often it was in progress.
ncclResult_t poll(ncclComm_t comm, int* polls = nullptr, int milliseconds = 2000) {
  ncclResult_t state = ncclInProgress;
  for (int i = 0; i < milliseconds && state == ncclInProgress; ++i) {
    CHECK(ncclCommGetAsyncError(comm, &state) == ncclSuccess);
    if (state != ncclInProgress) break;
    if (polls != nullptr) ++*polls;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return state;
}

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

ncclResult_t all_reduce(nccl_rank& me, float* x, std::size_t n = 2) {
  return ncclAllReduce(x, x, n, ncclFloat32, ncclSum, me.comm, me.stream);
}

}  // namespace

TEST_CASE("version and error texts are NCCL's, and a test chooses the version") {
  int version = 0;
  CHECK(ncclGetVersion(&version) == ncclSuccess);
  CHECK(version == NCCL_VERSION_CODE);
  doubled::nccl::set_version(21903);
  ncclGetVersion(&version);
  CHECK(version == 21903);
  CHECK(std::string(ncclGetErrorString(ncclInvalidUsage)) == "invalid usage");
  expect_nothing_found();
  ncclGetVersion(&version);
  CHECK(version == NCCL_VERSION_CODE);
}

TEST_CASE("a communicator knows its ranks and its device, and one thread can make several") {
  doubled::set_device_count(3);
  ncclComm_t comms[2]{};
  const int devices[2] = {2, 0};
  CHECK(ncclCommInitAll(comms, 2, devices) == ncclSuccess);
  for (int rank = 0; rank < 2; ++rank) {
    int size = 0, number = -1, device = -1;
    CHECK(ncclCommCount(comms[rank], &size) == ncclSuccess);
    CHECK(ncclCommUserRank(comms[rank], &number) == ncclSuccess);
    CHECK(ncclCommCuDevice(comms[rank], &device) == ncclSuccess);
    CHECK(size == 2);
    CHECK(number == rank);
    CHECK(device == devices[rank]);
  }
  CHECK(doubled::nccl::live_communicators() == 2);
  CHECK(ncclCommDestroy(comms[0]) == ncclSuccess);
  CHECK(ncclCommDestroy(comms[1]) == ncclSuccess);

  ncclUniqueId id = fresh_id();
  CHECK(ncclGroupStart() == ncclSuccess);
  for (int rank = 0; rank < 2; ++rank) {
    cudaSetDevice(rank);
    CHECK(ncclCommInitRank(&comms[rank], 2, id, rank) == ncclSuccess);
  }
  CHECK(ncclGroupEnd() == ncclSuccess);
  for (ncclComm_t comm : comms) CHECK(ncclCommDestroy(comm) == ncclSuccess);
  CHECK(ncclCommDestroy(nullptr) == ncclSuccess);
  CHECK(ncclCommAbort(nullptr) == ncclSuccess);
  expect_nothing_found();
}

TEST_CASE("two ranks on one GPU are refused unless the test or the environment of NCCL 2.30 allows them") {
  const auto attempt = [](ncclResult_t want) {
    const ncclUniqueId id = fresh_id();
    on_threads(2, [&](int rank) {
      cudaSetDevice(0);
      ncclComm_t comm{};
      CHECK(ncclCommInitRank(&comm, 2, id, rank) == want);
      CHECK((comm != nullptr) == (want == ncclSuccess));
      CHECK(ncclCommDestroy(comm) == ncclSuccess);
    });
  };
  attempt(ncclInvalidUsage);
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
  attempt(ncclInvalidUsage);
  doubled::nccl::set_version(23007);
  attempt(ncclSuccess);
  unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
  attempt(ncclInvalidUsage);
  doubled::nccl::allow_duplicate_gpu(true);
  attempt(ncclSuccess);
  expect_nothing_found();
}

TEST_CASE("an id serves one communicator, and an invented one none") {
  doubled::nccl::set_patience(0.05);
  ncclUniqueId id = fresh_id();
  ncclComm_t comm{};
  CHECK(ncclCommInitRank(&comm, 1, id, 0) == ncclSuccess);
  CHECK(ncclCommDestroy(comm) == ncclSuccess);
  CHECK(ncclCommInitRank(&comm, 1, id, 0) == ncclSystemError);
  CHECK(comm == nullptr);
  ncclUniqueId invented{};
  CHECK(ncclCommInitRank(&comm, 1, invented, 0) == ncclInvalidArgument);
  CHECK(ncclCommInitRank(&comm, 2, fresh_id(), 2) == ncclInvalidArgument);
  CHECK(ncclCommInitRank(&comm, 0, fresh_id(), 0) == ncclInvalidArgument);
  // A rank that never comes: NCCL waits.
  CHECK(ncclCommInitRank(&comm, 2, fresh_id(), 0) == ncclSystemError);
  ncclConfig_t uninitialised{};
  CHECK(ncclCommInitRankConfig(&comm, 1, fresh_id(), 0, &uninitialised) == ncclInvalidArgument);
  const std::vector<doubled::report> reports = found();
  CHECK_MESSAGE(reports.size() == 4, text_of(reports));
  CHECK(says(reports, "the id has made a communicator before"));
  CHECK(says(reports, "never made"));
  CHECK(says(reports, "would wait forever"));
  CHECK(says(reports, "NCCL_CONFIG_INITIALIZER"));
}

TEST_CASE("ranks that disagree about the size of the communicator are told, or wait") {
  doubled::set_device_count(2);
  const ncclUniqueId id = fresh_id();
  on_threads(2, [&](int rank) {
    cudaSetDevice(rank);
    ncclComm_t comm{};
    CHECK(ncclCommInitRank(&comm, 2 + rank, id, rank) == ncclInvalidArgument);
  });
  CHECK(says(found(), "ranks, another says"));
}

TEST_CASE("a non-blocking communicator is in progress until all ranks came and the chosen time is over") {
  doubled::set_device_count(2);
  doubled::nccl::hold_initialisation(0.03);
  const ncclUniqueId id = fresh_id();
  on_threads(2, [&](int rank) {
    cudaSetDevice(rank);
    ncclConfig_t config = non_blocking();
    ncclComm_t comm{};
    int size = 0;
    const double took = seconds_of([&] {
      CHECK(ncclCommInitRankConfig(&comm, 2, id, rank, &config) == ncclInProgress);
      CHECK(ncclCommCount(comm, &size) == ncclInvalidArgument);
      CHECK(poll(comm) == ncclSuccess);
    });
    CHECK(took > 0.029);
    CHECK(ncclCommCount(comm, &size) == ncclSuccess);
    CHECK(ncclCommFinalize(comm) == ncclInProgress);
    CHECK(poll(comm) == ncclSuccess);
    CHECK(ncclCommFinalize(comm) == ncclInvalidArgument);
    CHECK(ncclCommAbort(comm) == ncclSuccess);
  });
  expect_nothing_found();
}

TEST_CASE("a non-blocking communicator whose peer never comes can be aborted") {
  ncclConfig_t config = non_blocking();
  ncclComm_t comm{};
  CHECK(ncclCommInitRankConfig(&comm, 2, fresh_id(), 0, &config) == ncclInProgress);
  CHECK(poll(comm, nullptr, 20) == ncclInProgress);
  CHECK(ncclCommDestroy(comm) == ncclInvalidArgument);
  CHECK(ncclCommAbort(comm) == ncclSuccess);
  expect_nothing_found();
}

TEST_CASE("calls on a non-blocking communicator are queued when the polls say so, not before") {
  doubled::set_device_count(2);
  doubled::nccl::hold_enqueue(3);
  const ncclUniqueId id = fresh_id();
  on_threads(2, [&](int rank) {
    cudaSetDevice(rank);
    nccl_rank me{rank, 2, nullptr, nullptr};
    cudaStreamCreateWithFlags(&me.stream, cudaStreamNonBlocking);
    ncclConfig_t config = non_blocking();
    CHECK(ncclCommInitRankConfig(&me.comm, 2, id, rank, &config) == ncclInProgress);
    CHECK(poll(me.comm) == ncclSuccess);
    on_gpu<float> x(std::vector<float>(2, 1));
    CHECK(all_reduce(me, x.data()) == ncclInProgress);
    CHECK(all_reduce(me, x.data()) == ncclInvalidArgument);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 1);
    CHECK(poll(me.comm) == ncclInvalidArgument);  // the second call's failure stays
    CHECK(ncclCommAbort(me.comm) == ncclSuccess);
    me.comm = nullptr;
    cudaStreamDestroy(me.stream);
  });
  const ncclUniqueId second = fresh_id();
  on_threads(2, [&](int rank) {
    cudaSetDevice(rank);
    nccl_rank me{rank, 2, nullptr, nullptr};
    cudaStreamCreateWithFlags(&me.stream, cudaStreamNonBlocking);
    ncclConfig_t config = non_blocking();
    CHECK(ncclCommInitRankConfig(&me.comm, 2, second, rank, &config) == ncclInProgress);
    CHECK(poll(me.comm) == ncclSuccess);
    on_gpu<float> x(std::vector<float>(2, 1));
    ncclGroupStart();
    CHECK(all_reduce(me, x.data()) == ncclSuccess);
    CHECK(ncclGroupEnd() == ncclInProgress);
    int polls = 0;
    CHECK(poll(me.comm, &polls) == ncclSuccess);
    CHECK(polls == 3);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 2);
    CHECK(ncclCommDestroy(me.comm) == ncclSuccess);
    cudaStreamDestroy(me.stream);
  });
  expect_nothing_found();
}

TEST_CASE("split orders ranks by key, then by rank, and leaves out those without color") {
  for (bool blocking : {true, false}) {
    doubled::set_device_count(4);
    doubled::nccl::hold_initialisation(blocking ? 0 : 0.01);
    const ncclUniqueId id = fresh_id();
    on_threads(4, [&](int rank) {
      cudaSetDevice(rank);
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = blocking ? 1 : 0;
      ncclComm_t world{};
      ncclCommInitRankConfig(&world, 4, id, rank, &config);
      CHECK(poll(world) == ncclSuccess);
      // Keys with a gap and a duplicate: order 3, 0, 2 in color 7; rank 1 has none.
      const int keys[] = {5, 0, 5, -3};
      ncclComm_t part = reinterpret_cast<ncclComm_t>(&config);
      const ncclResult_t called = ncclCommSplit(world, rank == 1 ? NCCL_SPLIT_NOCOLOR : 7, keys[rank], &part, nullptr);
      CHECK(called == (blocking ? ncclSuccess : ncclInProgress));
      if (!blocking) CHECK(part == nullptr);
      CHECK(poll(world) == ncclSuccess);
      CHECK((part == nullptr) == (rank == 1));
      if (part != nullptr) {
        const int want[] = {1, -1, 2, 0};
        int number = -1, size = 0;
        CHECK(ncclCommUserRank(part, &number) == ncclSuccess);
        CHECK(ncclCommCount(part, &size) == ncclSuccess);
        CHECK(number == want[rank]);
        CHECK(size == 3);
        CHECK(ncclCommDestroy(part) == ncclSuccess);
      }
      CHECK(ncclCommDestroy(world) == ncclSuccess);
    });
    expect_nothing_found();
  }
}

TEST_CASE("the n-th call fails as the test says, in a group as a failure of the group") {
  doubled::fail_call("ncclAllReduce", 2, ncclSystemError, 1);
  doubled::drop_call("ncclBroadcast", 1, 0);
  on_nccl_ranks(1, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(2, 1));
    on_gpu<float> y(std::vector<float>(2, 5));
    CHECK(ncclBroadcast(x.data(), y.data(), 2, ncclFloat32, 0, me.comm, me.stream) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(y.values()[0] == 5);
    doubled::fail_call("ncclSend", 2, ncclSystemError);
    ncclGroupStart();
    CHECK(ncclSend(x.data(), 1, ncclFloat32, 0, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclRecv(y.data(), 1, ncclFloat32, 0, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclSend(x.data(), 1, ncclFloat32, 0, me.comm, me.stream) == ncclSystemError);
    CHECK(ncclGroupEnd() == ncclSystemError);
    doubled::fail_call("ncclGroupEnd", 1, ncclInternalError);
    ncclGroupStart();
    CHECK(ncclSend(x.data(), 1, ncclFloat32, 0, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclRecv(y.data(), 1, ncclFloat32, 0, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclGroupEnd() == ncclInternalError);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(y.values()[0] == 5);
    ncclGroupStart();
    CHECK(ncclSend(x.data(), 1, ncclFloat32, 0, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclRecv(y.data(), 1, ncclFloat32, 0, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclGroupEnd() == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(y.values()[0] == 1);
    doubled::fail_call("ncclCommDestroy", 1, ncclInternalError);
    CHECK(ncclCommDestroy(me.comm) == ncclInternalError);
  });
  expect_nothing_found();
}

TEST_CASE("an asynchronous error shows on its rank, its peers hang, and abort frees the streams") {
  meeting_point all(3);
  on_nccl_ranks(3, [&](nccl_rank& me) {
    if (me.rank == 0) doubled::nccl::fail_asynchronously(1, ncclRemoteError, 2);
    all.wait();
    on_gpu<float> x(std::vector<float>(2, 1));
    CHECK(all_reduce(me, x.data()) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(all_reduce(me, x.data()) == ncclSuccess);
    CHECK_FALSE(ends(me.stream, 30));
    ncclResult_t state = ncclSuccess;
    CHECK(ncclCommGetAsyncError(me.comm, &state) == ncclSuccess);
    CHECK(state == (me.rank == 1 ? ncclRemoteError : ncclSuccess));
    if (me.rank == 1) CHECK(all_reduce(me, x.data()) == ncclRemoteError);
    all.wait();
    // Only the own operations are dropped: a peer hangs on.
    if (me.rank == 1) CHECK(ncclCommAbort(me.comm) == ncclSuccess);
    all.wait();
    if (me.rank != 1) {
      CHECK_FALSE(ends(me.stream, 10));
      CHECK(ncclCommAbort(me.comm) == ncclSuccess);
    }
    me.comm = nullptr;
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 3);
  });
  expect_nothing_found();
}

TEST_CASE("a slow rank delays all, and a stopped one holds all until it goes on") {
  meeting_point all(2);
  on_nccl_ranks(2, [&](nccl_rank& me) {
    if (me.rank == 0) doubled::nccl::slow_rank(1, 0.03);
    on_gpu<float> x(std::vector<float>(2, 1));
    all.wait();
    const double took = seconds_of([&] {
      all_reduce(me, x.data());
      cudaStreamSynchronize(me.stream);
    });
    if (me.rank == 1) CHECK(took > 0.029);  // the other may have come later
    all.wait();
    if (me.rank == 0) doubled::nccl::slow_rank(1, 0);
    if (me.rank == 0) doubled::nccl::stop_rank(1);
    all.wait();
    all_reduce(me, x.data());
    CHECK_FALSE(ends(me.stream, 20));
    all.wait();
    if (me.rank == 0) doubled::nccl::stop_rank(1, false);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 4);
  });
  expect_nothing_found();
}

TEST_CASE("a troubled rank stays so in communicators that are split from it") {
  meeting_point all(2);
  on_nccl_ranks(2, [&](nccl_rank& me) {
    if (me.rank == 0) doubled::nccl::stop_rank(1);
    ncclComm_t swapped{};
    CHECK(ncclCommSplit(me.comm, 0, -me.rank, &swapped, nullptr) == ncclSuccess);
    ncclComm_t alone{};
    CHECK(ncclCommSplit(me.comm, me.rank, 0, &alone, nullptr) == ncclSuccess);
    on_gpu<float> x(std::vector<float>(2, 1));
    on_gpu<float> y(std::vector<float>(2, 0));
    CHECK(ncclAllReduce(x.data(), y.data(), 2, ncclFloat32, ncclSum, alone, me.stream) == ncclSuccess);
    CHECK(ends(me.stream, me.rank == 0 ? 2000 : 20) == (me.rank == 0));
    all.wait();
    if (me.rank == 0) doubled::nccl::stop_rank(1, false);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(ncclCommDestroy(alone) == ncclSuccess);
    CHECK(ncclCommDestroy(swapped) == ncclSuccess);
  });
  expect_nothing_found();
}

TEST_CASE("where NCCL connects on first use, a missing peer holds up the thread, or leaves the call in progress") {
  for (bool blocking : {true, false}) {
    doubled::set_device_count(3);
    doubled::nccl::connect_on_first_use(true);
    doubled::nccl::hold_enqueue(0);
    const ncclUniqueId id = fresh_id();
    on_threads(3, [&](int rank) {
      cudaSetDevice(rank);
      nccl_rank me{rank, 3, nullptr, nullptr};
      cudaStreamCreateWithFlags(&me.stream, cudaStreamNonBlocking);
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = blocking ? 1 : 0;
      ncclCommInitRankConfig(&me.comm, 3, id, rank, &config);
      CHECK(poll(me.comm) == ncclSuccess);
      on_gpu<float> x(std::vector<float>(2, 1));
      // A message connects with its other end only; rank 2 stays away.
      for (int i = 0; i < 2 && rank < 2; ++i) {
        ncclGroupStart();
        ncclSend(x.data(), 1, ncclFloat32, 1 - rank, me.comm, me.stream);
        ncclRecv(x.data() + 1, 1, ncclFloat32, 1 - rank, me.comm, me.stream);
        CHECK(ncclGroupEnd() == (blocking ? ncclSuccess : ncclInProgress));
        CHECK(poll(me.comm) == ncclSuccess);
      }
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      CHECK(ncclCommDestroy(me.comm) == ncclSuccess);
      cudaStreamDestroy(me.stream);
    });
    expect_nothing_found();

    doubled::set_device_count(2);
    doubled::nccl::connect_on_first_use(true);
    const ncclUniqueId second = fresh_id();
    on_threads(2, [&](int rank) {
      cudaSetDevice(rank);
      nccl_rank me{rank, 2, nullptr, nullptr};
      cudaStreamCreateWithFlags(&me.stream, cudaStreamNonBlocking);
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = blocking ? 1 : 0;
      ncclCommInitRankConfig(&me.comm, 2, second, rank, &config);
      CHECK(poll(me.comm) == ncclSuccess);
      on_gpu<float> x(std::vector<float>(2, 1));
      if (rank == 0) {
        doubled::nccl::set_patience(0.03);
        const double took =
            seconds_of([&] { CHECK(all_reduce(me, x.data()) == (blocking ? ncclSystemError : ncclInProgress)); });
        if (blocking) CHECK(took > 0.029);
        if (!blocking) CHECK(poll(me.comm, nullptr, 20) == ncclInProgress);
        CHECK(cudaStreamQuery(me.stream) == cudaSuccess);
      }
      CHECK(ncclCommAbort(me.comm) == ncclSuccess);
      cudaStreamDestroy(me.stream);
    });
    CHECK(count(found(), report_kind::communicator) == (blocking ? 1 : 0));
  }
}

TEST_CASE("abort drops what is queued, and what is behind it on the stream runs") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    if (me.rank == 1) return;
    on_gpu<float> x(std::vector<float>(2, 1));
    on_gpu<float> y(std::vector<float>(2, 1));
    all_reduce(me, x.data());
    all_reduce(me, x.data());
    cudaMemsetAsync(y.data(), 0, 8, me.stream);
    CHECK_FALSE(ends(me.stream, 20));
    CHECK(ncclCommAbort(me.comm) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 1);
    CHECK(y.values()[0] == 0);
    me.comm = nullptr;
  });
  expect_nothing_found();
}

TEST_CASE("use after the end of a communicator is reported, for each call") {
  ncclComm_t comm{};
  float* x = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&x), 8);
  for (bool abort : {true, false}) {
    CHECK(ncclCommInitRank(&comm, 1, fresh_id(), 0) == ncclSuccess);
    CHECK((abort ? ncclCommAbort(comm) : ncclCommDestroy(comm)) == ncclSuccess);
    ncclResult_t state{};
    int number = 0;
    void* handle = nullptr;
    CHECK(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, comm, nullptr) == ncclInvalidArgument);
    CHECK(ncclCommGetAsyncError(comm, &state) == ncclInvalidArgument);
    CHECK(ncclCommCount(comm, &number) == ncclInvalidArgument);
    CHECK(ncclCommAbort(comm) == ncclInvalidArgument);
    CHECK(ncclCommDestroy(comm) == ncclInvalidArgument);
    CHECK(ncclCommRevoke(comm, 0) == ncclInvalidArgument);
    CHECK(ncclCommRegister(comm, x, 8, &handle) == ncclInvalidArgument);
    CHECK(count(doubled::reports(), report_kind::use_after_free) == 7);
    CHECK(says(doubled::reports(), abort ? "which ncclCommAbort freed" : "which ncclCommDestroy freed"));
    doubled::clear_reports();
  }
  cudaFree(x);
  expect_nothing_found();
  CHECK(ncclCommDestroy(comm) == ncclInvalidArgument);
  CHECK(found().size() == 1);
}

TEST_CASE("a communicator that ends inside a group takes its operations with it, with a report") {
  on_nccl_ranks(1, [&](nccl_rank& me) {
    ncclGroupStart();
    ncclSend(nullptr, 0, ncclFloat32, 0, me.comm, me.stream);
    ncclRecv(nullptr, 0, ncclFloat32, 0, me.comm, me.stream);
    CHECK(ncclCommAbort(me.comm) == ncclSuccess);
    me.comm = nullptr;
    CHECK(ncclGroupEnd() == ncclInvalidArgument);
  });
  CHECK(says(found(), "which ncclCommAbort freed"));
}

TEST_CASE("destroy waits for operations, and reports those that never end") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(2, 1));
    if (me.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    all_reduce(me, x.data());
    CHECK(ncclCommDestroy(me.comm) == ncclSuccess);
    CHECK(cudaStreamQuery(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 2);
    me.comm = nullptr;
  });
  expect_nothing_found();
  on_nccl_ranks(2, [&](nccl_rank& me) {
    if (me.rank == 1) return;
    doubled::nccl::set_patience(0.03);
    on_gpu<float> x(std::vector<float>(2, 1));
    all_reduce(me, x.data());
    CHECK(ncclCommDestroy(me.comm) == ncclSystemError);
    me.comm = nullptr;
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
  });
  const std::vector<doubled::report> reports = found();
  CHECK(reports.size() == 1);
  CHECK(says(reports, "waits forever for ncclAllReduce of 2 f32, sum"));
}

TEST_CASE("finalize waits, and forbids what comes after it") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(2, 1));
    all_reduce(me, x.data());
    CHECK(ncclCommFinalize(me.comm) == ncclSuccess);
    CHECK(cudaStreamQuery(me.stream) == cudaSuccess);
    CHECK(all_reduce(me, x.data()) == ncclInvalidUsage);
  });
  const std::vector<doubled::report> reports = found();
  CHECK(count(reports, report_kind::communicator) == 2);
  CHECK(reports.size() == 2);
}

TEST_CASE("revoke drops what is queued; then the communicator can only be split or ended") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(2, 1));
    if (me.rank == 0) all_reduce(me, x.data());
    CHECK(ncclCommRevoke(me.comm, 1) == ncclInvalidArgument);
    CHECK(ncclCommRevoke(me.comm, NCCL_REVOKE_DEFAULT) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(all_reduce(me, x.data()) == ncclInvalidUsage);
    CHECK(ncclCommRevoke(me.comm, NCCL_REVOKE_DEFAULT) == ncclInvalidArgument);
    CHECK(ncclCommFinalize(me.comm) == ncclInvalidArgument);
    ncclComm_t again{};
    CHECK(ncclCommSplit(me.comm, 0, me.rank, &again, nullptr) == ncclSuccess);
    std::swap(again, me.comm);
    CHECK(all_reduce(me, x.data()) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 2);
    CHECK(ncclCommDestroy(again) == ncclSuccess);
  });
  expect_nothing_found();
}

TEST_CASE("communicators that share resources stop together") {
  doubled::nccl::allow_duplicate_gpu(true);
  on_nccl_ranks(2, [&](nccl_rank& me) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.splitShare = 1;
    ncclComm_t shared{};
    CHECK(ncclCommSplit(me.comm, 0, me.rank, &shared, &config) == ncclSuccess);
    on_gpu<float> x(std::vector<float>(2, 1));
    if (me.rank == 0) ncclAllReduce(x.data(), x.data(), 2, ncclFloat32, ncclSum, shared, me.stream);
    if (me.rank == 0) CHECK_FALSE(ends(me.stream, 10));
    CHECK(ncclCommAbort(me.comm) == ncclSuccess);
    me.comm = nullptr;
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(ncclCommAbort(shared) == ncclSuccess);
  });
  expect_nothing_found();
}

TEST_CASE("memory freed under an operation or a registration is reported") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    void* x = nullptr;
    CHECK(ncclMemAlloc(&x, 8) == ncclSuccess);
    void* handle = nullptr;
    CHECK(ncclCommRegister(me.comm, x, 8, &handle) == ncclSuccess);
    CHECK(ncclCommDeregister(me.comm, handle) == ncclSuccess);
    CHECK(ncclMemFree(x) == ncclSuccess);
    if (me.rank == 1) return;
    CHECK(ncclMemAlloc(&x, 8) == ncclSuccess);
    CHECK(ncclCommRegister(me.comm, x, 8, &handle) == ncclSuccess);
    CHECK(ncclMemFree(x) == ncclSuccess);
    CHECK(ncclCommDeregister(me.comm, handle) == ncclSuccess);
    CHECK(ncclCommDeregister(me.comm, handle) == ncclInvalidUsage);
    CHECK(ncclMemFree(x) == ncclInvalidArgument);
    CHECK(ncclCommRegister(me.comm, x, 8, &handle) == ncclInvalidArgument);
    CHECK(doubled::reports().size() == 4);
    CHECK(says(doubled::reports(), "was freed before ncclCommDeregister"));
    CHECK(says(doubled::reports(), "of what is not registered"));
    CHECK(says(doubled::reports(), "of what ncclMemAlloc did not give"));
    doubled::clear_reports();
  });
  expect_nothing_found();
  on_nccl_ranks(2, [&](nccl_rank& me) {
    doubled::nccl::slow_rank(1, 0.01);
    // cudaFree waits for the device, and so for both ranks.
    all_reduce(me, on_gpu<float>(std::vector<float>(2, 1)).data());
  });
  CHECK(count(found(), report_kind::free_in_flight) == 2);
}

TEST_CASE("what a test leaves behind is reported at its end: communicators and operations that wait") {
  doubled::set_device_count(2);
  ncclComm_t comms[2]{};
  CHECK(ncclCommInitAll(comms, 2, nullptr) == ncclSuccess);
  cudaSetDevice(0);
  float* x = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&x), 8);
  CHECK(ncclAllReduce(x, x, 2, ncclFloat32, ncclSum, comms[0], nullptr) == ncclSuccess);
  const std::vector<doubled::report> reports = found();
  CHECK(says(reports, "rank 0 of 2 of communicator"));
  CHECK(says(reports, "was never destroyed or aborted"));
  CHECK_MESSAGE(count(reports, report_kind::unfinished) >= 1, text_of(reports));
  CHECK(doubled::nccl::live_communicators() == 0);
}

TEST_CASE("blocking and non-blocking communicators, and making and using them, do not share a group") {
  ncclConfig_t config = non_blocking();
  ncclComm_t first{}, second{};
  CHECK(ncclCommInitRank(&first, 1, fresh_id(), 0) == ncclSuccess);
  CHECK(ncclCommInitRankConfig(&second, 1, fresh_id(), 0, &config) == ncclInProgress);
  CHECK(poll(second) == ncclSuccess);
  float* x = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&x), 8);
  ncclGroupStart();
  for (ncclComm_t comm : {first, second}) {
    ncclSend(x, 0, ncclFloat32, 0, comm, nullptr);
    ncclRecv(x, 0, ncclFloat32, 0, comm, nullptr);
  }
  CHECK(ncclGroupEnd() == ncclInvalidArgument);
  ncclComm_t third{};
  ncclGroupStart();
  ncclSend(x, 0, ncclFloat32, 0, first, nullptr);
  ncclRecv(x, 0, ncclFloat32, 0, first, nullptr);
  CHECK(ncclCommInitRankConfig(&third, 1, fresh_id(), 0, &config) == ncclSuccess);
  CHECK(ncclGroupEnd() == ncclInvalidUsage);
  for (ncclComm_t comm : {first, second, third}) CHECK(ncclCommAbort(comm) == ncclSuccess);
  cudaFree(x);
  CHECK(count(found(), report_kind::communicator) == 1);
}
