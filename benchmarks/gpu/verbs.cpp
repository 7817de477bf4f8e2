// Verbs over NCCL beside the raw calls on the same ncclComm_t, called one by one and replayed as a CUDA graph.
//
//   gpu_verbs [--ranks=2] [--rounds=15] [--dry-run]
//
// Ranks are threads that share one GPU. More than one takes NCCL 2.30 or newer and NCCL_MULTI_RANK_GPU_ENABLE=1.
#include "timing.hpp"

#include <shardkit/backends/nccl.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/launch/run_ranks.hpp>

#include <optional>

namespace {

using namespace gpu_benchmark;
using shardkit::cuda_check;
using shardkit::cuda_space;
using shardkit::nccl_communicator;
using shardkit::view;
using floats = view<float, cuda_space>;

/// A verb, through the library and by hand; the same effect.
struct verb {
  std::string name;
  std::function<void()> ours, raw;
};

void raw_check(ncclResult_t code, const char* call, ncclComm_t comm = nullptr) {
  // The communicator is non-blocking: a call may still be on its way to the stream.
  while (code == ncclInProgress && comm != nullptr)
    if (ncclCommGetAsyncError(comm, &code) != ncclSuccess) break;
  if (code != ncclSuccess) {
    std::fprintf(stderr, "%s: %s\n", call, ncclGetErrorString(code));
    std::exit(1);
  }
}

std::vector<verb> verbs(nccl_communicator& comm, floats in, floats out, std::size_t count, cudaStream_t stream) {
  const auto parts = static_cast<std::size_t>(comm.size());
  const ncclComm_t handle = comm.backend().native_handle();
  const floats a = in.subview(0, count), b = out.subview(0, count);
  const std::size_t share = std::max<std::size_t>(1, count / parts);
  const floats whole_in = in.subview(0, share * parts), whole_out = out.subview(0, share * parts);
  const floats share_in = in.subview(0, share), share_out = out.subview(0, share);
  const auto at = [](floats x) { return x.data(); };
  return {
      {"all_reduce", [=, &comm] { comm.all_reduce(a, b, shardkit::sum, stream); },
       [=] {
         raw_check(ncclAllReduce(at(a), at(b), count, ncclFloat, ncclSum, handle, stream), "ncclAllReduce", handle);
       }},
      {"all_reduce in place", [=, &comm] { comm.all_reduce(shardkit::in_place(a), shardkit::sum, stream); },
       [=] {
         raw_check(ncclAllReduce(at(a), at(a), count, ncclFloat, ncclSum, handle, stream), "ncclAllReduce", handle);
       }},
      {"broadcast", [=, &comm] { comm.broadcast(a, 0, stream); },
       [=] { raw_check(ncclBroadcast(at(a), at(a), count, ncclFloat, 0, handle, stream), "ncclBroadcast", handle); }},
      {"all_gather", [=, &comm] { comm.all_gather(share_in, whole_out, stream); },
       [=] {
         raw_check(ncclAllGather(at(share_in), at(whole_out), share, ncclFloat, handle, stream), "ncclAllGather",
                   handle);
       }},
      {"reduce_scatter", [=, &comm] { comm.reduce_scatter(whole_in, share_out, shardkit::sum, stream); },
       [=] {
         raw_check(ncclReduceScatter(at(whole_in), at(share_out), share, ncclFloat, ncclSum, handle, stream),
                   "ncclReduceScatter", handle);
       }}};
}

/// Calls of `enqueue`, captured once and replayed as a whole.
class replay {
 public:
  static constexpr int calls = 20;

  replay(const std::function<void()>& enqueue, cudaStream_t stream) : stream_(stream) {
    cudaGraph_t graph = nullptr;
    cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int i = 0; i < calls; ++i) enqueue();
    cuda_check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    cuda_check(cudaGraphInstantiate(&graph_, graph, 0), "cudaGraphInstantiate");
    cuda_check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
  replay(const replay&) = delete;
  replay& operator=(const replay&) = delete;
  ~replay() { (void)cudaGraphExecDestroy(graph_); }

  void operator()() const { cuda_check(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};

void run(shardkit::thread_communicator& threads, const options& how) {
  cuda_check(cudaSetDevice(how.dry_run ? threads.rank() : 0), "cudaSetDevice");  // NCCL's double has no sharing
  const std::vector<std::size_t> sizes =
      how.dry_run ? std::vector<std::size_t>{8, 4096} : std::vector<std::size_t>{8, 4096, 1 << 20, 16 << 20, 256 << 20};
  const shardkit::cuda_stream stream;
  auto comm = shardkit::nccl_world(threads);
  shardkit::buffer<float, cuda_space> in(sizes.back() / sizeof(float)), out(in.size());
  shardkit::fill_zero(in, stream.handle());
  for (const std::size_t bytes : sizes)
    for (const verb& one : verbs(comm, view_of(in), view_of(out), bytes / sizeof(float), stream.handle())) {
      one.ours();  // connects before the capture
      const replay ours(one.ours, stream.handle()), raw(one.raw, stream.handle());
      const std::vector<double> took = measure(
          threads, stream.handle(), how, {{"", one.ours}, {"", one.raw}, {"", [&] { ours(); }}, {"", [&] { raw(); }}});
      if (threads.is_root())
        std::printf("| %d | %s | %s | %.2f | %.2f | %.3f | %.2f | %.2f | %.3f | %.1f |\n", comm.size(),
                    one.name.c_str(), bytes_text(bytes).c_str(), took[0], took[1], took[0] / took[1],
                    took[2] / replay::calls, took[3] / replay::calls, took[2] / took[3],
                    1e-3 * static_cast<double>(bytes) / took[0]);
    }
}

/// Why so many ranks cannot share a GPU here; empty where they can.
std::string obstacle(const options& how) {
  int version = 0;
  raw_check(ncclGetVersion(&version), "ncclGetVersion");
  if (how.ranks == 1 || how.dry_run) return {};
  const char* const allowed = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  if (version < 23000) return "NCCL " + std::to_string(version) + " is older than 2.30";
  if (allowed == nullptr || std::string(allowed) != "1") return "NCCL_MULTI_RANK_GPU_ENABLE=1 is not set";
  return {};
}

}  // namespace

int main(int argc, char** argv) try {
  const options how(argc, argv);
  const std::string why_not = obstacle(how);
  if (!why_not.empty()) {
    std::printf("verbs on %d ranks of one GPU: skipped: %s\n", how.ranks, why_not.c_str());
    return 0;
  }
  std::printf(
      "Microseconds of a call; in a graph, of one of %d. GB/s of the call by bytes / time.\n\n"
      "| ranks | verb | bytes | shardkit | NCCL | ratio | shardkit, graph | NCCL, graph | ratio | GB/s |\n"
      "|---|---|---|---|---|---|---|---|---|---|\n",
      replay::calls);
  shardkit::run_ranks(how.ranks, [&](shardkit::thread_communicator& threads) { run(threads, how); });
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return 1;
}
