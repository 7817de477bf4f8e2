// What the library adds to the NCCL calls that it wraps: instructions per call, in loops as programs have them, over a
// libnccl and a CUDA runtime whose calls return at once (tests/double/stub). overhead_nccl.sh counts them with
// callgrind inside the measured functions only. Needs no GPU; figures repeat exactly.
//
//   overhead_nccl raw|shardkit CASE [calls]      the cases are listed below
#include <shardkit/backends/nccl.hpp>
#include <shardkit/core/buffer.hpp>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

using shardkit::cuda_space;
using shardkit::in_place;
using shardkit::nccl_communicator;
using shardkit::sum;

/// Two ranks, of which only this one is there: the stub does not mind.
class two_ranks final : public shardkit::bootstrap {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 2; }
  blob broadcast(const blob& mine) override { return mine; }
  void barrier() override {}
};

/// Views of device memory, as an engine makes them from its raw pointers.
using device_view = shardkit::view<float, cuda_space>;

// Each case: its name, NCCL's call and the library's, which see the same variables.
#define CASES(X)                                                                                                \
  X(all_reduce, ncclAllReduce(x.data(), x.data(), x.size(), ncclFloat32, ncclSum, raw, stream),                 \
    world.all_reduce(in_place(x), sum, stream))                                                                 \
  X(all_reduce_to, ncclAllReduce(x.data(), y.data(), x.size(), ncclFloat32, ncclSum, raw, stream),              \
    world.all_reduce(x, y, sum, stream))                                                                        \
  X(broadcast, ncclBroadcast(x.data(), x.data(), x.size(), ncclFloat32, 0, raw, stream),                        \
    world.broadcast(x, 0, stream))                                                                              \
  X(reduce, ncclReduce(x.data(), y.data(), x.size(), ncclFloat32, ncclSum, 0, raw, stream),                     \
    world.reduce(x, y, sum, 0, stream))                                                                         \
  X(reduce_in_place, ncclReduce(x.data(), x.data(), x.size(), ncclFloat32, ncclSum, 0, raw, stream),            \
    world.reduce(in_place(x), sum, 0, stream))                                                                  \
  X(all_gather, ncclAllGather(x.data(), whole.data(), x.size(), ncclFloat32, raw, stream),                      \
    world.all_gather(x, whole, stream))                                                                         \
  X(all_gather_in_place, ncclAllGather(whole.data(), whole.data(), whole.size() / 2, ncclFloat32, raw, stream), \
    world.all_gather(in_place(whole), stream))                                                                  \
  X(reduce_scatter, ncclReduceScatter(whole.data(), x.data(), x.size(), ncclFloat32, ncclSum, raw, stream),     \
    world.reduce_scatter(whole, x, sum, stream))                                                                \
  X(send, ncclSend(x.data(), x.size(), ncclFloat32, 1, raw, stream), world.send(x, 1, stream))                  \
  X(recv, ncclRecv(x.data(), x.size(), ncclFloat32, 1, raw, stream), world.recv(x, 1, stream))                  \
  X(barrier, ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, raw, stream), world.barrier(stream))      \
  X(gather, ncclGather(x.data(), whole.data(), x.size(), ncclFloat32, 0, raw, stream),                          \
    world.gather(x, whole, 0, stream))                                                                          \
  X(scatter, ncclScatter(whole.data(), x.data(), x.size(), ncclFloat32, 0, raw, stream),                        \
    world.scatter(whole, x, 0, stream))                                                                         \
  X(all_to_all, ncclAlltoAll(whole.data(), turned.data(), 2, ncclFloat32, raw, stream),                         \
    world.all_to_all(whole, turned, stream))                                                                    \
  X(send_recv,                                                                                                  \
    (ncclGroupStart(), ncclSend(x.data(), x.size(), ncclFloat32, 1, raw, stream),                               \
     ncclRecv(y.data(), y.size(), ncclFloat32, 1, raw, stream), ncclGroupEnd()),                                \
    world.send_recv(x, 1, y, 1, stream))

// One pair of functions for each.
#define MEASURED(name, by_nccl, by_library)                                                                           \
  [[gnu::noinline]] void measured_raw_##name([[maybe_unused]] device_view x, [[maybe_unused]] device_view y,          \
                                             [[maybe_unused]] device_view whole, [[maybe_unused]] device_view turned, \
                                             ncclComm_t raw, cudaStream_t stream, long calls) {                       \
    for (long i = 0; i < calls; ++i) by_nccl;                                                                         \
  }                                                                                                                   \
  [[gnu::noinline]] void measured_##name([[maybe_unused]] device_view x, [[maybe_unused]] device_view y,              \
                                         [[maybe_unused]] device_view whole, [[maybe_unused]] device_view turned,     \
                                         nccl_communicator& world, cudaStream_t stream, long calls) {                 \
    for (long i = 0; i < calls; ++i) by_library;                                                                      \
  }
CASES(MEASURED)

}  // namespace

int main(int argc, char** argv) {
  const std::string variant = argc > 1 ? argv[1] : "raw", wanted = argc > 2 ? argv[2] : "all_reduce";
  const long calls = argc > 3 ? std::atol(argv[3]) : 1000;
  two_ranks start;
  nccl_communicator world = shardkit::nccl_world(start);
  const ncclComm_t raw = world.backend().native_handle();
  const shardkit::cuda_stream stream;
  shardkit::buffer<float, cuda_space> memory(12);
  const device_view all = view_of(memory), x = all.subview(0, 2), y = all.subview(2, 2);
  const device_view whole = all.subview(4, 4), turned = all.subview(8, 4);
// Through a variable, so that sizes and addresses are not known where the calls are compiled.
#define RUN(name, by_nccl, by_library)                                                         \
  if (wanted == #name) {                                                                       \
    decltype(&measured_raw_##name) volatile by_hand = &measured_raw_##name;                    \
    decltype(&measured_##name) volatile ours = &measured_##name;                               \
    if (variant == "raw") return by_hand(x, y, whole, turned, raw, stream.handle(), calls), 0; \
    return ours(x, y, whole, turned, world, stream.handle(), calls), 0;                        \
  }
  CASES(RUN)
  std::fprintf(stderr, "unknown case %s\n", wanted.c_str());
  return 2;
}
