// The conformance suite over NCCL, on thread ranks with a device each.
#include "../comm/conformance.hpp"
#include "on_device.hpp"
#include "ranks.hpp"

#include <shardkit/comm/any_communicator.hpp>

#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#ifndef NCCL_CONFORMANCE_POINTS
#define NCCL_CONFORMANCE_POINTS 16
#endif

namespace {

using nccl_test::on_device;

/// A started message occupies its stream until its peer takes it, and what is started behind it waits: these cases
/// start messages one by one that can only go on together. On NCCL such messages go into a group.
bool needs_messages_beside_each_other(const char* function) {
  for (const char* one : {"requests_in_any_order", "requests_tested", "requests_and_collectives", "requests_outlive"})
    if (std::strcmp(function, one) == 0) return true;
  return false;
}

using case_body = std::function<void(shardkit::any_communicator<shardkit::host_space>&, conformance::report&,
                                     const conformance::sweep&)>;

void over_nccl(const char* function, std::size_t points, const case_body& body) {
  if (needs_messages_beside_each_other(function)) return;
  conformance::sweep how;
  how.points = points;
  how.large = 5003;
  how.rounded_averages = true;  // ncclAvg
  for (int ranks : nccl_test::rank_counts({1, 2, 3, 4})) {
    CAPTURE(ranks);
    std::vector<conformance::report> reports(static_cast<std::size_t>(ranks));
    nccl_test::on_devices(ranks, [&](shardkit::thread_communicator& host) {
      auto world = shardkit::nccl_world(host, nccl_test::options_with_kernel());
      using backend = on_device<shardkit::nccl_backend>;
      auto comm = shardkit::erase(shardkit::communicator<backend>(backend(std::move(world.backend())), "world"));
      body(comm, reports[static_cast<std::size_t>(host.rank())], how);
    });
    for (const auto& report : reports)
      CHECK_MESSAGE(report.failures() == 0, "rank ", &report - reports.data(), ": ", report.failures(), " of ",
                    report.checks(), " checks failed", report.what());
  }
  nccl_test::expect_clean();
}

}  // namespace

#define OVER_NCCL(function, name)                                                                           \
  TEST_CASE("nccl: " name) {                                                                                \
    over_nccl(#function, NCCL_CONFORMANCE_POINTS,                                                           \
              [](auto& comm, auto& report, const auto& how) { conformance::function(comm, report, how); }); \
  }
SHARDKIT_CONFORMANCE_CASES(OVER_NCCL)
