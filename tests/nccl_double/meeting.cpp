// How operations meet, and do not: groups, order, mismatches, deadlocks, arguments, graphs.
#include "ranks.hpp"

#include <cmath>
#include <functional>

using namespace shardkit_test;
using doubled::mismatch_mode;
using doubled::report_kind;

namespace {

// What one rank calls with its buffers x (8 floats) and y (8 floats).
using calls = std::function<void(nccl_rank&, float* x, float* y)>;

ncclResult_t state_of(ncclComm_t comm) {
  ncclResult_t state = ncclInternalError;
  CHECK(ncclCommGetAsyncError(comm, &state) == ncclSuccess);
  return state;
}

// Two ranks disagree. Diagnosed: a report that says `says`, streams that end, and an error on both communicators.
// Faithful: nothing is said and nothing ends until the communicators are aborted.
void disagreement(const calls& both, const std::vector<std::string>& texts) {
  CAPTURE(texts.front());
  for (mismatch_mode mode : {mismatch_mode::diagnose, mismatch_mode::faithful}) {
    const bool hangs = mode == mismatch_mode::faithful;
    CAPTURE(hangs);
    doubled::set_mismatch_mode(mode);
    meeting_point all(2);
    on_nccl_ranks(2, [&](nccl_rank& me) {
      on_gpu<float> x(std::vector<float>(8, 1));
      on_gpu<float> y(std::vector<float>(8, 1));
      both(me, x.data(), y.data());
      CHECK(ends(me.stream, hangs ? 25 : 2000) == !hangs);
      CHECK((state_of(me.comm) == ncclSuccess) == hangs);
      // What a failed call leaves in its buffer is nothing that could pass for a result.
      if (!hangs && me.rank == 1) CHECK(std::isnan(y.values()[0]));
      all.wait();
      CHECK(ncclCommAbort(me.comm) == ncclSuccess);
      me.comm = nullptr;
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    });
    const std::vector<doubled::report> reports = found();
    CHECK_MESSAGE(reports.size() == (hangs ? 0 : 1), text_of(reports));
    for (const std::string& text : texts) CHECK_MESSAGE((hangs || says(reports, text)), text_of(reports));
    CHECK(count(reports, report_kind::mismatch) == (hangs ? 0 : 1));
  }
}

}  // namespace

TEST_CASE("ranks that disagree about a collective are both named, or hang as NCCL does") {
  disagreement([](nccl_rank& me, float* x,
                  float* y) { ncclAllReduce(x, y, me.rank == 0 ? 3 : 4, ncclFloat32, ncclSum, me.comm, me.stream); },
               {"rank 0 calls ncclAllReduce of 3 f32, sum", "rank 1 calls ncclAllReduce of 4 f32, sum"});
  disagreement(
      [](nccl_rank& me, float* x, float* y) {
        ncclAllReduce(x, y, 4, me.rank == 0 ? ncclInt32 : ncclFloat32, ncclSum, me.comm, me.stream);
      },
      {"4 i32", "4 f32"});
  disagreement(
      [](nccl_rank& me, float* x, float* y) {
        ncclAllReduce(x, y, 4, ncclFloat32, me.rank == 0 ? ncclMax : ncclSum, me.comm, me.stream);
      },
      {"f32, maximum", "f32, sum"});
  disagreement(
      [](nccl_rank& me, float* x, float* y) { ncclBroadcast(x, y, 4, ncclFloat32, me.rank, me.comm, me.stream); },
      {"from root 0", "from root 1"});
  disagreement(
      [](nccl_rank& me, float* x, float* y) {
        if (me.rank == 0) ncclAllGather(x, y, 4, ncclFloat32, me.comm, me.stream);
        else ncclReduceScatter(x, y, 4, ncclFloat32, ncclSum, me.comm, me.stream);
      },
      {"rank 0 calls ncclAllGather", "rank 1 calls ncclReduceScatter"});
  disagreement(
      [](nccl_rank& me, float* x, float* y) {
        if (me.rank == 0) ncclSend(x, 3, ncclFloat32, 1, me.comm, me.stream);
        else ncclRecv(y, 4, ncclFloat32, 0, me.comm, me.stream);
      },
      {"rank 0 calls ncclSend of 3 f32 to rank 1", "rank 1 calls ncclRecv of 4 f32 from rank 0"});
}

TEST_CASE("a collective that meets a message is a deadlock that names both") {
  meeting_point all(2);
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(8, 1));
    if (me.rank == 0) ncclAllReduce(x.data(), x.data(), 8, ncclFloat32, ncclSum, me.comm, me.stream);
    else ncclSend(x.data(), 8, ncclFloat32, 0, me.comm, me.stream);
    CHECK_FALSE(ends(me.stream));
    all.wait();
    CHECK(ncclCommAbort(me.comm) == ncclSuccess);
    me.comm = nullptr;
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
  });
  const std::vector<doubled::report> reports = found();
  CHECK(reports.size() == 1);
  CHECK(says(reports, "ncclAllReduce of 8 f32, sum of rank 0"));
  CHECK(says(reports, "ncclSend of 8 f32 to rank 0 of rank 1"));
}

TEST_CASE("who comes after a peer's abort waits for ever, for collectives and for messages") {
  for (bool message : {false, true}) {
    meeting_point all(2);
    on_nccl_ranks(2, [&](nccl_rank& me) {
      on_gpu<float> x(std::vector<float>(2, 1));
      const auto call = [&] {
        if (!message) ncclAllReduce(x.data(), x.data(), 2, ncclFloat32, ncclSum, me.comm, me.stream);
        else if (me.rank == 0) ncclSend(x.data(), 2, ncclFloat32, 1, me.comm, me.stream);
        else ncclRecv(x.data(), 2, ncclFloat32, 0, me.comm, me.stream);
        CHECK_FALSE(ends(me.stream, 30));
      };
      if (me.rank == 1) all.wait();
      call();
      CHECK(ncclCommAbort(me.comm) == ncclSuccess);
      me.comm = nullptr;
      if (me.rank == 0) all.wait();
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      CHECK(x.values()[0] == 1);
    });
    expect_nothing_found();
  }
}

TEST_CASE("a third rank that comes after a disagreement gets the error, too") {
  on_nccl_ranks(3, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(8, 1));
    doubled::nccl::slow_rank(2, 0.01);
    ncclAllReduce(x.data(), x.data(), me.rank == 0 ? 3 : 4, ncclFloat32, ncclSum, me.comm, me.stream);
    CHECK(ends(me.stream, 2000));
    CHECK(state_of(me.comm) == ncclInvalidUsage);
    ncclCommAbort(me.comm);
    me.comm = nullptr;
  });
  CHECK(found().size() == 1);
}

TEST_CASE("sends that wait for each other's receives deadlock unless they are in one group") {
  for (mismatch_mode mode : {mismatch_mode::diagnose, mismatch_mode::faithful}) {
    doubled::set_mismatch_mode(mode);
    meeting_point all(2);
    on_nccl_ranks(2, [&](nccl_rank& me) {
      on_gpu<float> x(std::vector<float>(8, static_cast<float>(me.rank)));
      on_gpu<float> y(std::vector<float>(8));
      CHECK(ncclGroupStart() == ncclSuccess);
      CHECK(ncclSend(x.data(), 8, ncclFloat32, 1 - me.rank, me.comm, me.stream) == ncclSuccess);
      CHECK(ncclRecv(y.data(), 8, ncclFloat32, 1 - me.rank, me.comm, me.stream) == ncclSuccess);
      CHECK(ncclGroupEnd() == ncclSuccess);
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      CHECK(y.values() == std::vector<float>(8, static_cast<float>(1 - me.rank)));

      CHECK(ncclSend(x.data(), 8, ncclFloat32, 1 - me.rank, me.comm, me.stream) == ncclSuccess);
      CHECK(ncclRecv(y.data(), 8, ncclFloat32, 1 - me.rank, me.comm, me.stream) == ncclSuccess);
      CHECK_FALSE(ends(me.stream));
      CHECK(state_of(me.comm) == ncclSuccess);
      all.wait();
      CHECK(ncclCommAbort(me.comm) == ncclSuccess);
      me.comm = nullptr;
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    });
    const std::vector<doubled::report> reports = found();
    CHECK(reports.size() == (mode == mismatch_mode::diagnose ? 1 : 0));
    CHECK((mode == mismatch_mode::faithful || says(reports, "deadlock, each waits for the next")));
  }
}

TEST_CASE("a send in order with its receive needs no group, and messages of a pair keep their order") {
  for (doubled::order when : {doubled::order::eager, doubled::order::late}) {
    doubled::set_schedule({when, 0});
    on_nccl_ranks(2, [&](nccl_rank& me) {
      on_gpu<float> x(std::vector<float>{1, 2, 3, 4});
      on_gpu<float> y(std::vector<float>(4));
      for (int i = 0; i < 4; ++i) {
        if (me.rank == 0) ncclSend(x.data() + i, 1, ncclFloat32, 1, me.comm, me.stream);
        else ncclRecv(y.data() + (3 - i), 1, ncclFloat32, 0, me.comm, me.stream);
      }
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      if (me.rank == 1) CHECK(y.values() == std::vector<float>{4, 3, 2, 1});
    });
    expect_nothing_found();
  }
}

TEST_CASE("two communicators called in opposite order deadlock on one stream and not on two") {
  for (bool one_stream : {true, false}) {
    meeting_point all(2);
    const ncclUniqueId second_id = fresh_id();
    on_nccl_ranks(2, [&](nccl_rank& me) {
      ncclComm_t second{};
      CHECK(ncclCommInitRank(&second, 2, second_id, me.rank) == ncclSuccess);
      cudaStream_t other{};
      cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
      on_gpu<float> x(std::vector<float>(8, 1));
      on_gpu<float> y(std::vector<float>(8, 1));
      const auto first_call = [&] { ncclAllReduce(x.data(), x.data(), 8, ncclFloat32, ncclSum, me.comm, me.stream); };
      const auto second_call = [&] {
        ncclAllReduce(y.data(), y.data(), 8, ncclFloat32, ncclSum, second, one_stream ? me.stream : other);
      };
      if (me.rank == 0) first_call(), second_call();
      else second_call(), first_call();
      CHECK(ends(me.stream, one_stream ? 40 : 2000) == !one_stream);
      CHECK((ends(other, 2000) || one_stream));
      all.wait();
      CHECK(ncclCommAbort(second) == ncclSuccess);
      CHECK(ncclCommAbort(me.comm) == ncclSuccess);
      me.comm = nullptr;
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      cudaStreamDestroy(other);
    });
    const std::vector<doubled::report> reports = found();
    CHECK_MESSAGE(reports.size() == (one_stream ? 1 : 0), text_of(reports));
    CHECK((!one_stream || says(reports, "deadlock")));
  }
}

TEST_CASE("a communicator used on two streams takes effect in program order") {
  for (doubled::order when : {doubled::order::eager, doubled::order::late}) {
    doubled::set_schedule({when, 0});
    on_nccl_ranks(2, [&](nccl_rank& me) {
      cudaStream_t other{};
      cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
      on_gpu<float> x(std::vector<float>(2, 1));
      on_gpu<double> y(std::vector<double>(3, 1));
      // Out of order these would meet as different collectives.
      CHECK(ncclAllReduce(x.data(), x.data(), 2, ncclFloat32, ncclSum, me.comm, me.stream) == ncclSuccess);
      CHECK(ncclAllReduce(y.data(), y.data(), 3, ncclFloat64, ncclMax, me.comm, other) == ncclSuccess);
      CHECK(cudaStreamSynchronize(other) == cudaSuccess);
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      CHECK(x.values()[1] == 2);
      cudaStreamDestroy(other);
    });
    expect_nothing_found();
  }
}

TEST_CASE("streams of one group wait for each other") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    cudaStream_t other{};
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    on_gpu<float> x(std::vector<float>(2, 1));
    on_gpu<float> y(std::vector<float>(2, 1));
    cudaMemsetAsync(y.data(), 0, 2 * sizeof(float), other);
    ncclGroupStart();
    ncclAllReduce(x.data(), x.data(), 2, ncclFloat32, ncclSum, me.comm, me.stream);
    ncclAllReduce(y.data(), y.data(), 2, ncclFloat32, ncclSum, me.comm, other);
    CHECK(ncclGroupEnd() == ncclSuccess);
    // Written on `me.stream` by the launch of both; used on the other after it.
    cudaMemsetAsync(x.data(), 0, 2 * sizeof(float), other);
    CHECK(cudaStreamSynchronize(other) == cudaSuccess);
    CHECK(x.values()[0] == 0);
    CHECK(y.values()[0] == 0);
    cudaStreamDestroy(other);
  });
  expect_nothing_found();
}

TEST_CASE("calls of one group that touch the same memory are reported") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(4, 1));
    on_gpu<float> y(std::vector<float>(8, 1));
    ncclGroupStart();
    ncclAllReduce(x.data(), y.data(), 4, ncclFloat32, ncclSum, me.comm, me.stream);
    ncclAllGather(x.data(), y.data(), 4, ncclFloat32, me.comm, me.stream);
    CHECK(ncclGroupEnd() == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
  });
  const std::vector<doubled::report> reports = found();
  CHECK(count(reports, report_kind::race) == 2);
  CHECK(says(reports, "of one group"));
}

TEST_CASE("a failed call fails its group, and nothing of the group is queued") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(4, 1));
    CHECK(ncclGroupStart() == ncclSuccess);
    CHECK(ncclAllReduce(x.data(), x.data(), 4, ncclFloat32, ncclSum, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclBroadcast(x.data(), x.data(), 4, ncclFloat32, 2, me.comm, me.stream) == ncclInvalidArgument);
    CHECK(ncclGroupEnd() == ncclInvalidArgument);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 1);

    CHECK(ncclSend(x.data(), 1, ncclFloat32, me.rank, me.comm, me.stream) == ncclInvalidUsage);
    ncclGroupStart();
    CHECK(ncclSend(x.data(), 1, ncclFloat32, me.rank, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclRecv(x.data() + 1, 1, ncclFloat32, me.rank, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclGroupEnd() == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
  });
  expect_nothing_found();
}

TEST_CASE("a group holds 1024 operations, or as many as the test says") {
  on_nccl_ranks(1, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(1, 1));
    for (int limit : {1024, 3}) {
      doubled::nccl::set_group_limit(limit);
      ncclGroupStart();
      for (int i = 0; i < limit; ++i) {
        const bool sends = i % 2 == 0;
        CHECK((sends ? ncclSend(x.data(), 0, ncclFloat32, 0, me.comm, me.stream)
                     : ncclRecv(x.data(), 0, ncclFloat32, 0, me.comm, me.stream)) == ncclSuccess);
      }
      CHECK(ncclSend(x.data(), 0, ncclFloat32, 0, me.comm, me.stream) == ncclInvalidUsage);
      CHECK(ncclGroupEnd() == ncclInvalidUsage);
    }
    CHECK(ncclGroupEnd() == ncclInvalidUsage);
  });
  CHECK(says(found(), "ncclGroupEnd without ncclGroupStart"));
}

TEST_CASE("bad arguments are refused, and reported where NCCL would not notice") {
  doubled::set_mismatch_mode(mismatch_mode::faithful);
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(8, 1));
    const auto reduce = [&](const float* in, float* out, std::size_t n) {
      return ncclAllReduce(in, out, n, ncclFloat32, ncclSum, me.comm, me.stream);
    };
    if (me.rank == 1) return;
    const auto expect = [&](ncclResult_t got, ncclResult_t want, report_kind kind, const std::string& text) {
      CHECK(got == want);
      const std::vector<doubled::report> now = doubled::reports();
      CHECK_MESSAGE((now.size() == 1 && now[0].kind == kind && says(now, text)), text, " for:\n", text_of(now));
      doubled::clear_reports();
    };
    const auto refused = [&](ncclResult_t got, ncclResult_t want) {
      CHECK(got == want);
      CHECK_MESSAGE(doubled::reports().empty(), text_of(doubled::reports()));
    };
    using K = report_kind;
    expect(reduce(nullptr, x.data(), 1), ncclInvalidArgument, K::bad_argument, "null");
    refused(reduce(nullptr, nullptr, 0), ncclSuccess);
    expect(reduce(x.data(), x.data() + 1, 2), ncclInvalidArgument, K::bad_argument, "overlap");
    refused(ncclReduce(x.data(), nullptr, 0, ncclFloat32, ncclSum, 2, me.comm, me.stream), ncclInvalidArgument);
    refused(ncclReduce(x.data(), x.data(), 1, ncclFloat32, ncclSum, -1, me.comm, me.stream), ncclInvalidArgument);
    refused(ncclSend(x.data(), 1, ncclFloat32, 2, me.comm, me.stream), ncclInvalidArgument);
    refused(ncclAllReduce(x.data(), x.data(), 1, ncclNumTypes, ncclSum, me.comm, me.stream), ncclInvalidArgument);
    refused(ncclAllReduce(x.data(), x.data(), 1, ncclFloat32, ncclNumOps, me.comm, me.stream), ncclInvalidArgument);
    refused(ncclAllReduce(x.data(), x.data(), 1, ncclFloat32, ncclSum, nullptr, me.stream), ncclInvalidArgument);
    int nothing = 0;
    expect(
        ncclAllReduce(x.data(), x.data(), 1, ncclFloat32, ncclSum, reinterpret_cast<ncclComm_t>(&nothing), me.stream),
        ncclInvalidArgument, K::bad_handle, "never made");
    float on_host[2] = {1, 2};
    expect(reduce(on_host, x.data(), 2), ncclUnhandledCudaError, K::bad_argument, "ncclAllReduce");
    expect(reduce(x.data(), x.data(), 80), ncclUnhandledCudaError, K::out_of_bounds, "ncclAllReduce");
    cudaSetDevice(1);
    cudaStream_t other{};
    cudaStreamCreate(&other);
    float* other_memory = nullptr;
    cudaMalloc(reinterpret_cast<void**>(&other_memory), 8);
    cudaSetDevice(0);
    expect(ncclAllReduce(x.data(), x.data(), 1, ncclFloat32, ncclSum, me.comm, other), ncclUnhandledCudaError,
           K::wrong_device, "ncclAllReduce");
    expect(reduce(x.data(), other_memory, 2), ncclUnhandledCudaError, K::wrong_device, "ncclAllReduce");
    cudaFree(other_memory);
    cudaStreamDestroy(other);
    // In-place calls as NCCL allows them, and one block off.
    const std::size_t mine = static_cast<std::size_t>(me.rank) * 2;
    expect(ncclAllGather(x.data() + 2 - mine, x.data(), 2, ncclFloat32, me.comm, me.stream), ncclInvalidArgument,
           K::bad_argument, "overlap");
    expect(ncclReduceScatter(x.data(), x.data() + 2 - mine, 2, ncclFloat32, ncclSum, me.comm, me.stream),
           ncclInvalidArgument, K::bad_argument, "overlap");
    expect(ncclAlltoAll(x.data(), x.data(), 2, ncclFloat32, me.comm, me.stream), ncclInvalidArgument, K::bad_argument,
           "overlap");
    CHECK(std::string(ncclGetLastError(me.comm)).find("overlap") != std::string::npos);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
  });
  expect_nothing_found();
}

TEST_CASE("a buffer that is one element short is reported for every verb, on the ranks that use it") {
  using verb = std::function<ncclResult_t(nccl_rank&, float* in, float* out)>;
  struct row {
    const char* name;
    std::size_t in, out;     // elements on two ranks for a count of 4
    bool root_in, root_out;  // only the root, rank 0, uses it
    verb call;
  };
  const std::vector<row> rows{
      {"AllReduce", 4, 4, false, false,
       [](auto& me, float* in, float* out) {
         return ncclAllReduce(in, out, 4, ncclFloat32, ncclSum, me.comm, me.stream);
       }},
      {"Reduce", 4, 4, false, true,
       [](auto& me, float* in, float* out) {
         return ncclReduce(in, out, 4, ncclFloat32, ncclSum, 0, me.comm, me.stream);
       }},
      {"ReduceScatter", 8, 4, false, false,
       [](auto& me, float* in, float* out) {
         return ncclReduceScatter(in, out, 4, ncclFloat32, ncclSum, me.comm, me.stream);
       }},
      {"Broadcast", 4, 4, true, false,
       [](auto& me, float* in, float* out) { return ncclBroadcast(in, out, 4, ncclFloat32, 0, me.comm, me.stream); }},
      {"AllGather", 4, 8, false, false,
       [](auto& me, float* in, float* out) { return ncclAllGather(in, out, 4, ncclFloat32, me.comm, me.stream); }},
      {"AlltoAll", 8, 8, false, false,
       [](auto& me, float* in, float* out) { return ncclAlltoAll(in, out, 4, ncclFloat32, me.comm, me.stream); }},
      {"Gather", 4, 8, false, true,
       [](auto& me, float* in, float* out) { return ncclGather(in, out, 4, ncclFloat32, 0, me.comm, me.stream); }},
      {"Scatter", 8, 4, true, false,
       [](auto& me, float* in, float* out) { return ncclScatter(in, out, 4, ncclFloat32, 0, me.comm, me.stream); }},
  };
  for (const row& r : rows) {
    for (bool short_in : {true, false}) {
      on_nccl_ranks(2, [&](nccl_rank& me) {
        CAPTURE(r.name);
        CAPTURE(short_in);
        float* in = nullptr;
        float* out = nullptr;
        cudaMalloc(reinterpret_cast<void**>(&in), (r.in - (short_in ? 1 : 0)) * sizeof(float));
        cudaMalloc(reinterpret_cast<void**>(&out), (r.out - (short_in ? 0 : 1)) * sizeof(float));
        const bool uses_it = me.rank == 0 || !(short_in ? r.root_in : r.root_out);
        CHECK(r.call(me, in, out) == (uses_it ? ncclUnhandledCudaError : ncclSuccess));
        CHECK(ncclCommAbort(me.comm) == ncclSuccess);
        me.comm = nullptr;
        CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
        cudaFree(in);
        cudaFree(out);
      });
      const std::vector<doubled::report> reports = found();
      const int users = (short_in ? r.root_in : r.root_out) ? 1 : 2;
      CHECK_MESSAGE(count(reports, report_kind::out_of_bounds) == users, r.name, '\n', text_of(reports));
      CHECK(static_cast<int>(reports.size()) == users);
    }
  }
}

TEST_CASE("an empty collective meets nobody, and an empty message does") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(1, 1));
    if (me.rank == 0) ncclAllReduce(x.data(), x.data(), 0, ncclFloat32, ncclSum, me.comm, me.stream);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    if (me.rank == 0) {
      ncclSend(x.data(), 0, ncclFloat32, 1, me.comm, me.stream);
      CHECK(ends(me.stream, 2000));
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      ncclRecv(x.data(), 0, ncclFloat32, 0, me.comm, me.stream);
    }
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
  });
  expect_nothing_found();
}

TEST_CASE("gradients reduced without waiting for the pass that writes them are reported, even if the data are right") {
  for (bool waits : {false, true}) {
    for (doubled::order when : {doubled::order::eager, doubled::order::late, doubled::order::jitter}) {
      doubled::set_schedule({when, 3});
      on_nccl_ranks(2, [&](nccl_rank& me) {
        on_gpu<float> gradients(std::vector<float>(4, 1));
        cudaStream_t backward{};
        cudaEvent_t written{};
        cudaStreamCreateWithFlags(&backward, cudaStreamNonBlocking);
        cudaEventCreateWithFlags(&written, cudaEventDisableTiming);
        cudaMemsetAsync(gradients.data(), 0, 4 * sizeof(float), backward);
        cudaEventRecord(written, backward);
        // Long enough for the data to be there; asking the stream would be a synchronisation.
        if (!waits) std::this_thread::sleep_for(std::chrono::milliseconds(25));
        if (waits) cudaStreamWaitEvent(me.stream, written, 0);
        CHECK(ncclAllReduce(gradients.data(), gradients.data(), 4, ncclFloat32, ncclSum, me.comm, me.stream) ==
              ncclSuccess);
        CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
        cudaStreamDestroy(backward);
        cudaEventDestroy(written);
      });
      const std::vector<doubled::report> reports = found();
      CHECK_MESSAGE((waits ? reports.empty() : count(reports, report_kind::race) > 0), text_of(reports));
    }
  }
}

TEST_CASE("a captured collective runs anew at each launch of its graph") {
  for (doubled::order when : {doubled::order::eager, doubled::order::late}) {
    doubled::set_schedule({when, 0});
    on_nccl_ranks(2, [&](nccl_rank& me) {
      on_gpu<float> x(std::vector<float>(2, 1));
      cudaGraph_t graph{};
      cudaGraphExec_t runnable{};
      CHECK(cudaStreamBeginCapture(me.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
      CHECK(ncclAllReduce(x.data(), x.data(), 2, ncclFloat32, ncclSum, me.comm, me.stream) == ncclSuccess);
      CHECK(cudaStreamEndCapture(me.stream, &graph) == cudaSuccess);
      CHECK(doubled::graph_text(graph).find("ncclAllReduce") != std::string::npos);
      CHECK(cudaGraphInstantiate(&runnable, graph, 0) == cudaSuccess);
      CHECK(x.values()[0] == 1);
      for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(runnable, me.stream) == cudaSuccess);
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      CHECK(x.values()[1] == 8);
      CHECK(cudaGraphExecDestroy(runnable) == cudaSuccess);
      CHECK(cudaGraphDestroy(graph) == cudaSuccess);
    });
    expect_nothing_found();
  }
}

TEST_CASE("a communicator that ends before the graph that holds its operations is reported") {
  on_nccl_ranks(1, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(2, 1));
    on_gpu<float> y(std::vector<float>(2, 0));
    cudaGraph_t graph{};
    cudaGraphExec_t runnable{};
    cudaStreamBeginCapture(me.stream, cudaStreamCaptureModeThreadLocal);
    ncclAllReduce(x.data(), y.data(), 2, ncclFloat32, ncclSum, me.comm, me.stream);
    cudaStreamEndCapture(me.stream, &graph);
    cudaGraphInstantiate(&runnable, graph, 0);
    CHECK(ncclCommDestroy(me.comm) == ncclSuccess);
    me.comm = nullptr;
    cudaGraphLaunch(runnable, me.stream);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(y.values()[0] == 0);
    cudaGraphExecDestroy(runnable);
    cudaGraphDestroy(graph);
  });
  const std::vector<doubled::report> reports = found();
  CHECK(reports.size() == 2);
  CHECK(says(reports, "while a graph holds its operations"));
  CHECK(count(reports, report_kind::use_after_free) == 1);
}

TEST_CASE("a replayed collective of a revoked communicator does nothing") {
  on_nccl_ranks(2, [&](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>(2, 1));
    cudaGraph_t graph{};
    cudaGraphExec_t runnable{};
    cudaStreamBeginCapture(me.stream, cudaStreamCaptureModeThreadLocal);
    ncclAllReduce(x.data(), x.data(), 2, ncclFloat32, ncclSum, me.comm, me.stream);
    ncclComm_t refused{};
    CHECK(ncclCommSplit(me.comm, NCCL_SPLIT_NOCOLOR, 0, &refused, nullptr) == ncclUnhandledCudaError);
    CHECK(cudaStreamEndCapture(me.stream, &graph) != cudaSuccess);
    cudaStreamBeginCapture(me.stream, cudaStreamCaptureModeThreadLocal);
    ncclAllReduce(x.data(), x.data(), 2, ncclFloat32, ncclSum, me.comm, me.stream);
    CHECK(cudaStreamEndCapture(me.stream, &graph) == cudaSuccess);
    cudaGraphInstantiate(&runnable, graph, 0);
    CHECK(ncclCommRevoke(me.comm, NCCL_REVOKE_DEFAULT) == ncclSuccess);
    CHECK(cudaGraphLaunch(runnable, me.stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(x.values()[0] == 1);
    cudaGraphExecDestroy(runnable);
    cudaGraphDestroy(graph);
  });
  const std::vector<doubled::report> reports = found();
  CHECK_MESSAGE(count(reports, report_kind::capture) == static_cast<int>(reports.size()), text_of(reports));
  CHECK(says(reports, "ncclCommSplit"));
}

TEST_CASE("a group with captured and uncaptured streams is refused") {
  on_nccl_ranks(1, [&](nccl_rank& me) {
    cudaStream_t other{};
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    on_gpu<float> x(std::vector<float>(1, 1));
    cudaStreamBeginCapture(me.stream, cudaStreamCaptureModeThreadLocal);
    ncclGroupStart();
    ncclSend(x.data(), 0, ncclFloat32, 0, me.comm, me.stream);
    ncclRecv(x.data(), 0, ncclFloat32, 0, me.comm, other);
    CHECK(ncclGroupEnd() == ncclInvalidUsage);
    cudaGraph_t graph{};
    CHECK(cudaStreamEndCapture(me.stream, &graph) == cudaSuccess);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(other);
  });
  expect_nothing_found();
}
