// What the NCCL double computes and moves, against a serial computation in double and CUDA's own conversions.
#include "ranks.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>

using namespace shardkit_test;

namespace {

// An element type by what the CUDA headers say of it.
struct element {
  ncclDataType_t type;
  std::size_t bytes;
  double (*load)(const void*);
  void (*store)(double, void*);
  double precision;  // relative error of one rounding; 0: exact
  double smallest;   // absolute error of one rounding near zero
};

template <class T>
double load_plain(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return static_cast<double>(value);
}
template <class T>
void store_plain(double value, void* to) {
  const T stored = static_cast<T>(value);
  std::memcpy(to, &stored, sizeof stored);
}
template <class T>
double load_small(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return static_cast<double>(static_cast<float>(value));
}
template <class T>
void store_small(double value, void* to) {
  const T stored(static_cast<float>(value));
  std::memcpy(to, &stored, sizeof stored);
}

template <class T>
element plain(ncclDataType_t type, double precision) {
  return {type, sizeof(T), load_plain<T>, store_plain<T>, precision, 0};
}
template <class T>
element small(ncclDataType_t type, double precision, double smallest) {
  return {type, sizeof(T), load_small<T>, store_small<T>, precision, smallest};
}

const std::vector<element>& elements() {
  static const std::vector<element> all{
      plain<std::int8_t>(ncclInt8, 0),
      plain<std::uint8_t>(ncclUint8, 0),
      plain<std::int32_t>(ncclInt32, 0),
      plain<std::uint32_t>(ncclUint32, 0),
      plain<std::int64_t>(ncclInt64, 0),
      plain<std::uint64_t>(ncclUint64, 0),
      small<__half>(ncclFloat16, std::ldexp(1.0, -11), std::ldexp(1.0, -25)),
      plain<float>(ncclFloat32, std::ldexp(1.0, -24)),
      plain<double>(ncclFloat64, std::ldexp(1.0, -53)),
      small<__nv_bfloat16>(ncclBfloat16, std::ldexp(1.0, -8), 0),
      small<__nv_fp8_e4m3>(ncclFloat8e4m3, std::ldexp(1.0, -4), std::ldexp(1.0, -10)),
      small<__nv_fp8_e5m2>(ncclFloat8e5m2, std::ldexp(1.0, -3), std::ldexp(1.0, -17)),
  };
  return all;
}

const element& element_of(ncclDataType_t type) {
  return *std::find_if(elements().begin(), elements().end(), [&](const element& e) { return e.type == type; });
}

enum class verb { all_reduce, reduce, reduce_scatter, broadcast, bcast, all_gather, all_to_all, gather, scatter, ring };

struct job {
  verb what;
  ncclRedOp_t op;
  const element* of;
  std::size_t count;
  int root;
  bool in_place;
};

// The value that rank r passes at index i.
double value(const job& j, int rank, std::size_t i) {
  const auto mixed = static_cast<unsigned>(rank * 31 + static_cast<int>(i) * 17 + static_cast<int>(j.what) * 5 + 3);
  if (j.of->precision == 0) return j.op == ncclProd ? 1 + mixed % 3 : mixed % 20;
  return (static_cast<double>(mixed % 23) - 11) / 8;
}

std::size_t sent(const job& j, int size) {
  const bool blocks = j.what == verb::reduce_scatter || j.what == verb::all_to_all || j.what == verb::scatter;
  return j.count * static_cast<std::size_t>(blocks ? size : 1);
}
std::size_t received(const job& j, int size) {
  const bool blocks = j.what == verb::all_gather || j.what == verb::all_to_all || j.what == verb::gather;
  return j.count * static_cast<std::size_t>(blocks ? size : 1);
}

// What rank r must have at index i afterwards, and how far off it may be; false where the verb says nothing.
bool expected(const job& j, int size, int rank, std::size_t i, double& want, double& allowed) {
  const auto stored = [&](int from, std::size_t k) {
    std::byte bytes[8];
    j.of->store(value(j, from, k), bytes);
    return j.of->load(bytes);
  };
  const std::size_t block = i / j.count;
  const std::size_t within = i % j.count;
  allowed = 0;
  switch (j.what) {
    case verb::broadcast:
    case verb::bcast: want = stored(j.root, i); return true;
    case verb::all_gather: want = stored(static_cast<int>(block), within); return true;
    case verb::gather: want = stored(static_cast<int>(block), within); return rank == j.root;
    case verb::scatter: want = stored(j.root, static_cast<std::size_t>(rank) * j.count + i); return true;
    case verb::all_to_all:
      want = stored(static_cast<int>(block), static_cast<std::size_t>(rank) * j.count + within);
      return true;
    case verb::ring: want = stored((rank + size - 1) % size, i); return true;
    default: break;
  }
  if (j.what == verb::reduce && rank != j.root) return false;
  const std::size_t k = j.what == verb::reduce_scatter ? static_cast<std::size_t>(rank) * j.count + i : i;
  std::vector<double> all;
  for (int from = 0; from < size; ++from) all.push_back(stored(from, k));
  double sum = 0;
  double product = 1;
  double magnitude = 0;
  for (double x : all) sum += x, product *= x, magnitude += std::fabs(x);
  switch (j.op) {
    case ncclSum: want = sum; break;
    case ncclProd: want = product, magnitude = std::fabs(product); break;
    case ncclMax: want = *std::max_element(all.begin(), all.end()); break;
    case ncclMin: want = *std::min_element(all.begin(), all.end()); break;
    default: want = j.of->precision == 0 ? std::trunc(sum / size) : sum / size;
  }
  if (j.op == ncclMax || j.op == ncclMin || j.of->precision == 0) return true;
  const double accumulation = j.of->type == ncclFloat64 ? std::ldexp(1.0, -53) : std::ldexp(1.0, -24);
  allowed = j.of->precision * std::fabs(want) + j.of->smallest + 4 * accumulation * magnitude;
  // The factor of an average is rounded to the type, too.
  if (j.op == ncclAvg) allowed += j.of->precision * std::fabs(want) * (1 + j.of->precision);
  return true;
}

ncclResult_t call(const job& j, const nccl_rank& me, const void* send, void* recv) {
  const ncclDataType_t type = j.of->type;
  switch (j.what) {
    case verb::all_reduce: return ncclAllReduce(send, recv, j.count, type, j.op, me.comm, me.stream);
    case verb::reduce: return ncclReduce(send, recv, j.count, type, j.op, j.root, me.comm, me.stream);
    case verb::reduce_scatter: return ncclReduceScatter(send, recv, j.count, type, j.op, me.comm, me.stream);
    case verb::broadcast: return ncclBroadcast(send, recv, j.count, type, j.root, me.comm, me.stream);
    case verb::bcast: return ncclBcast(recv, j.count, type, j.root, me.comm, me.stream);
    case verb::all_gather: return ncclAllGather(send, recv, j.count, type, me.comm, me.stream);
    case verb::all_to_all: return ncclAlltoAll(send, recv, j.count, type, me.comm, me.stream);
    case verb::gather: return ncclGather(send, recv, j.count, type, j.root, me.comm, me.stream);
    case verb::scatter: return ncclScatter(send, recv, j.count, type, j.root, me.comm, me.stream);
    case verb::ring: break;
  }
  ncclGroupStart();
  const ncclResult_t one = ncclSend(send, j.count, type, (me.rank + 1) % me.size, me.comm, me.stream);
  const ncclResult_t two = ncclRecv(recv, j.count, type, (me.rank + me.size - 1) % me.size, me.comm, me.stream);
  const ncclResult_t end = ncclGroupEnd();
  return one != ncclSuccess ? one : two != ncclSuccess ? two : end;
}

// Where the receive buffer begins inside an in-place buffer, and the send buffer, in elements.
bool in_place_layout(const job& j, const nccl_rank& me, std::size_t& send, std::size_t& recv) {
  const std::size_t mine = static_cast<std::size_t>(me.rank) * j.count;
  send = recv = 0;
  switch (j.what) {
    case verb::all_reduce:
    case verb::broadcast:
    case verb::bcast: return true;
    case verb::reduce: return me.rank == j.root;
    case verb::all_gather: send = mine; return true;
    case verb::reduce_scatter: recv = mine; return true;
    case verb::gather: send = mine; return me.rank == j.root;
    case verb::scatter: recv = mine; return me.rank == j.root;
    default: return false;
  }
}

std::vector<job> all_jobs(int size) {
  std::vector<job> jobs;
  const std::size_t counts[] = {1, 5, 0, 17};
  int number = 0;
  const auto add = [&](verb what, ncclRedOp_t op, const element& of) {
    ++number;
    jobs.push_back({what, op, &of, counts[number % 4], number % size, what == verb::bcast || number % 3 == 0});
  };
  for (const element& of : elements()) {
    for (ncclRedOp_t op : {ncclSum, ncclProd, ncclMax, ncclMin, ncclAvg}) {
      add(verb::all_reduce, op, of);
      add(verb::reduce, op, of);
      add(verb::reduce_scatter, op, of);
    }
    for (verb what :
         {verb::broadcast, verb::bcast, verb::all_gather, verb::all_to_all, verb::gather, verb::scatter, verb::ring}) {
      add(what, ncclSum, of);
    }
  }
  return jobs;
}

// Runs all jobs without a synchronisation between them; what comes back is compared at the end.
void run_jobs(const nccl_rank& me, const std::vector<job>& jobs) {
  struct buffers {
    std::vector<std::byte> in, out;
    void* device_in = nullptr;
    void* device_out = nullptr;
  };
  std::vector<buffers> all(jobs.size());
  for (std::size_t n = 0; n < jobs.size(); ++n) {
    const job& j = jobs[n];
    buffers& b = all[n];
    const std::size_t bytes = j.of->bytes;
    const std::size_t in = sent(j, me.size);
    const std::size_t out = received(j, me.size);
    b.in.resize(in * bytes);
    b.out.resize(out * bytes);
    for (std::size_t i = 0; i < in; ++i) j.of->store(value(j, me.rank, i), b.in.data() + i * bytes);
    std::size_t send_at = 0;
    std::size_t recv_at = 0;
    const bool in_place = j.in_place && in_place_layout(j, me, send_at, recv_at);
    CHECK(cudaMalloc(&b.device_in, (std::max(in, out) + 1) * bytes) == cudaSuccess);
    if (!in_place) CHECK(cudaMalloc(&b.device_out, (out + 1) * bytes) == cudaSuccess);
    std::byte* send = static_cast<std::byte*>(b.device_in) + send_at * bytes;
    std::byte* recv =
        in_place ? static_cast<std::byte*>(b.device_in) + recv_at * bytes : static_cast<std::byte*>(b.device_out);
    CHECK(cudaMemcpyAsync(send, b.in.data(), b.in.size(), cudaMemcpyHostToDevice, me.stream) == cudaSuccess);
    CHECK(call(j, me, send, recv) == ncclSuccess);
    CHECK(cudaMemcpyAsync(b.out.data(), recv, b.out.size(), cudaMemcpyDeviceToHost, me.stream) == cudaSuccess);
  }
  CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
  for (std::size_t n = 0; n < jobs.size(); ++n) {
    const job& j = jobs[n];
    for (std::size_t i = 0; i < received(j, me.size); ++i) {
      double want = 0;
      double allowed = 0;
      if (!expected(j, me.size, me.rank, i, want, allowed)) continue;
      const double got = j.of->load(all[n].out.data() + i * j.of->bytes);
      const bool right = std::fabs(got - want) <= allowed;
      CHECK_MESSAGE(right, "job ", n, " verb ", static_cast<int>(j.what), " op ", static_cast<int>(j.op), " type ",
                    static_cast<int>(j.of->type), " rank ", me.rank, " of ", me.size, " at ", i, ": ", got, " for ",
                    want);
    }
    CHECK(cudaFree(all[n].device_in) == cudaSuccess);
    CHECK(cudaFree(all[n].device_out) == cudaSuccess);
  }
}

std::vector<doubled::schedule> schedules() {
  std::vector<doubled::schedule> all{{doubled::order::eager, 0}, {doubled::order::late, 0}};
  for (std::uint64_t seed = 1; seed <= 8; ++seed) all.push_back({doubled::order::jitter, seed});
  return all;
}

}  // namespace

TEST_CASE("every verb gives the serial result for every type on 1 to 4 ranks under every schedule") {
  for (int size = 1; size <= 4; ++size) {
    const std::vector<job> jobs = all_jobs(size);
    for (const doubled::schedule& s : schedules()) {
      CAPTURE(size);
      CAPTURE(s.seed);
      doubled::set_schedule(s);
      on_nccl_ranks(size, [&](nccl_rank& me) { run_jobs(me, jobs); });
      expect_nothing_found();
    }
  }
}

TEST_CASE("sums of 16-bit floats are rounded as CUDA's conversion rounds them, over all bit patterns") {
  constexpr int patterns = 1 << 16;
  std::mt19937 random(5);
  std::vector<std::uint16_t> first(patterns);
  std::vector<std::uint16_t> second(patterns);
  for (int i = 0; i < patterns; ++i) {
    first[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(i);
    second[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(random());
  }
  for (ncclDataType_t type : {ncclFloat16, ncclBfloat16}) {
    const element& of = element_of(type);
    on_nccl_ranks(2, [&](nccl_rank& me) {
      on_gpu<std::uint16_t> x(me.rank == 0 ? first : second);
      CHECK(ncclAllReduce(x.data(), x.data(), patterns, type, ncclSum, me.comm, me.stream) == ncclSuccess);
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      const std::vector<std::uint16_t> got = x.values();
      int wrong = 0;
      for (std::size_t i = 0; i < patterns; ++i) {
        const float sum = static_cast<float>(of.load(&first[i])) + static_cast<float>(of.load(&second[i]));
        std::uint16_t want = 0;
        of.store(sum, &want);
        if (std::isnan(sum) ? !std::isnan(of.load(&got[i])) : want != got[i]) ++wrong;
      }
      CHECK(wrong == 0);
    });
  }
  expect_nothing_found();
}

TEST_CASE("sums of 8-bit floats are rounded as CUDA's conversion rounds them, over all pairs") {
  constexpr int pairs = 1 << 16;
  std::vector<std::uint8_t> first(pairs);
  std::vector<std::uint8_t> second(pairs);
  for (int i = 0; i < pairs; ++i) {
    first[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i & 0xff);
    second[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i >> 8);
  }
  for (ncclDataType_t type : {ncclFloat8e4m3, ncclFloat8e5m2}) {
    const element& of = element_of(type);
    on_nccl_ranks(2, [&](nccl_rank& me) {
      on_gpu<std::uint8_t> x(me.rank == 0 ? first : second);
      CHECK(ncclAllReduce(x.data(), x.data(), pairs, type, ncclSum, me.comm, me.stream) == ncclSuccess);
      CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
      const std::vector<std::uint8_t> got = x.values();
      int wrong = 0;
      for (std::size_t i = 0; i < pairs; ++i) {
        const float sum = static_cast<float>(of.load(&first[i])) + static_cast<float>(of.load(&second[i]));
        std::uint8_t want = 0;
        of.store(sum, &want);
        if (std::isnan(sum) ? !std::isnan(of.load(&got[i])) : want != got[i]) ++wrong;
      }
      CHECK(wrong == 0);
    });
  }
  expect_nothing_found();
}

TEST_CASE("minimum and maximum drop NaN and tell the zeros apart, as NCCL's do") {
  on_nccl_ranks(2, [](nccl_rank& me) {
    const float nan = std::nanf("");
    on_gpu<float> x(me.rank == 0 ? std::vector<float>{nan, 1, -0.0F} : std::vector<float>{2, nan, 0.0F});
    on_gpu<float> low(std::vector<float>(3));
    CHECK(ncclAllReduce(x.data(), low.data(), 3, ncclFloat32, ncclMin, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclAllReduce(x.data(), x.data(), 3, ncclFloat32, ncclMax, me.comm, me.stream) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(low.values()[0] == 2);
    CHECK(low.values()[1] == 1);
    CHECK(std::signbit(low.values()[2]));
    CHECK(x.values()[0] == 2);
    CHECK_FALSE(std::signbit(x.values()[2]));
  });
  expect_nothing_found();
}

TEST_CASE("a pre-multiplied sum takes each rank's own factor, from the host at once or from the device later") {
  on_nccl_ranks(3, [](nccl_rank& me) {
    on_gpu<float> x(std::vector<float>{1, 2});
    on_gpu<float> y(std::vector<float>(2));
    on_gpu<float> factor(std::vector<float>{10.0F * static_cast<float>(me.rank + 1)});
    float on_host = static_cast<float>(me.rank + 1);
    ncclRedOp_t by_host{};
    ncclRedOp_t by_device{};
    CHECK(ncclRedOpCreatePreMulSum(&by_host, &on_host, ncclFloat32, ncclScalarHostImmediate, me.comm) == ncclSuccess);
    on_host = 1000;
    CHECK(ncclRedOpCreatePreMulSum(&by_device, factor.data(), ncclFloat32, ncclScalarDevice, me.comm) == ncclSuccess);
    CHECK(ncclAllReduce(x.data(), y.data(), 2, ncclFloat64, by_host, me.comm, me.stream) == ncclInvalidArgument);
    CHECK(ncclAllReduce(x.data(), y.data(), 2, ncclFloat32, by_host, me.comm, me.stream) == ncclSuccess);
    CHECK(ncclRedOpDestroy(by_host, me.comm) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(y.values() == std::vector<float>{6, 12});
    CHECK(ncclAllReduce(x.data(), y.data(), 2, ncclFloat32, by_device, me.comm, me.stream) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(y.values() == std::vector<float>{60, 120});
    CHECK(ncclRedOpDestroy(by_device, me.comm) == ncclSuccess);
    CHECK(ncclAllReduce(x.data(), y.data(), 2, ncclFloat32, by_device, me.comm, me.stream) == ncclInvalidArgument);
  });
  expect_nothing_found();
}

TEST_CASE("300 runs of a correct program give right data and no report") {
  for (std::uint64_t run = 0; run < 300; ++run) {
    doubled::set_schedule({run % 3 == 0   ? doubled::order::eager
                           : run % 3 == 1 ? doubled::order::late
                                          : doubled::order::jitter,
                           run});
    on_nccl_ranks(3, [](nccl_rank& me) {
      cudaStream_t copies{};
      cudaEvent_t copied{};
      cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking);
      cudaEventCreateWithFlags(&copied, cudaEventDisableTiming);
      float* x = nullptr;
      cudaMalloc(reinterpret_cast<void**>(&x), 4 * sizeof(float));
      std::vector<float> host(4, static_cast<float>(me.rank + 1));
      cudaMemcpyAsync(x, host.data(), 4 * sizeof(float), cudaMemcpyHostToDevice, copies);
      cudaEventRecord(copied, copies);
      cudaStreamWaitEvent(me.stream, copied, 0);
      ncclAllReduce(x, x, 4, ncclFloat32, ncclSum, me.comm, me.stream);
      cudaEventRecord(copied, me.stream);
      cudaStreamWaitEvent(copies, copied, 0);
      cudaMemcpyAsync(host.data(), x, 4 * sizeof(float), cudaMemcpyDeviceToHost, copies);
      cudaStreamSynchronize(copies);
      CHECK(host == std::vector<float>(4, 6));
      cudaFree(x);
      cudaEventDestroy(copied);
      cudaStreamDestroy(copies);
    });
    expect_nothing_found();
  }
}
