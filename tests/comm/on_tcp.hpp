// Runs a conformance case on TCP ranks, erased, and asserts what they found.
#pragma once

#include <doctest/doctest.h>
#include <shardkit/comm/any_communicator.hpp>
#include "../launch/tcp_ranks.hpp"
#include "conformance/report.hpp"
#include "conformance/sweep.hpp"

#include <functional>
#include <initializer_list>
#include <utility>
#include <vector>

inline void on_tcp(std::initializer_list<int> rank_counts,
                   const std::function<void(shardkit::any_communicator<shardkit::host_space>&, conformance::report&,
                                            const conformance::sweep&)>& body) {
  conformance::sweep how;
  how.always_ordered = true;
  how.points = 60;
  for (int ranks : rank_counts) {
    CAPTURE(ranks);
    std::vector<conformance::report> reports(static_cast<std::size_t>(ranks));
    const auto outcomes = on_tcp_ranks(ranks, tcp_test_options(60), [&](shardkit::tcp_communicator& comm) {
      conformance::report& mine = reports[static_cast<std::size_t>(comm.rank())];
      auto any = shardkit::erase(std::move(comm));
      body(any, mine, how);
    });
    for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
      CAPTURE(rank);
      CHECK(outcomes[rank].text == "");
      CHECK_MESSAGE(reports[rank].failures() == 0, reports[rank].failures(), " of ", reports[rank].checks(),
                    " checks failed", reports[rank].what());
    }
  }
}
