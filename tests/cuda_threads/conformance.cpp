// The conformance suite over thread ranks on CUDA memory: ranks that share one device, that have one each, and that
// have devices which do not reach each other. It demands the bits of a serial loop in rank order.
#include "../comm/conformance.hpp"
#include "../nccl/on_device.hpp"
#include "ranks.hpp"

#include <shardkit/comm/any_communicator.hpp>

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#ifndef CUDA_THREADS_CONFORMANCE_POINTS
#define CUDA_THREADS_CONFORMANCE_POINTS 6
#endif

namespace {

using namespace cuda_threads_test;

using case_body = std::function<void(any_communicator<host_space>&, conformance::report&, const conformance::sweep&)>;

void over_cuda_threads(std::size_t points, const case_body& body) {
  conformance::sweep how;
  how.points = points;
  how.large = 5003;
  for (const placement& where : {placement{1, 1}, {2, 1}, {4, 2}, {3, 3, false}}) {
    std::vector<conformance::report> reports(static_cast<std::size_t>(where.ranks));
    on_devices(where, [&](thread_communicator& threads) {
      auto options = with_kernel();
      if (!where.reach) options.workspace_bytes = 1024;  // reductions in pieces
      auto world = cuda_thread_world(threads, options);
      using backend = nccl_test::on_device<cuda_thread_backend>;
      auto comm = erase(communicator<backend>(backend(std::move(world.backend())), "world"));
      body(comm, reports[static_cast<std::size_t>(threads.rank())], how);
    });
    for (const auto& report : reports)
      CHECK_MESSAGE(report.failures() == 0, "rank ", &report - reports.data(), " of ", where.ranks, ": ",
                    report.failures(), " of ", report.checks(), " checks failed", report.what());
  }
}

}  // namespace

#define OVER_CUDA_THREADS(function, name)                                                                           \
  TEST_CASE("thread ranks on CUDA memory: " name) {                                                                 \
    over_cuda_threads(CUDA_THREADS_CONFORMANCE_POINTS,                                                              \
                      [](auto& comm, auto& report, const auto& how) { conformance::function(comm, report, how); }); \
  }
SHARDKIT_CONFORMANCE_CASES(OVER_CUDA_THREADS)
