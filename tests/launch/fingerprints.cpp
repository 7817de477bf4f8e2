// Every field of every verb that one TCP rank changes is found out, with and without checked<B>.
#include <doctest/doctest.h>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/checked.hpp>
#include "../comm/mutations.hpp"
#include "tcp_ranks.hpp"

#include <string>
#include <utility>
#include <vector>

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<outcome> run(const mutations::mutation& one, int ranks, int mutated, bool checked) {
  return on_tcp_ranks(ranks, tcp_test_options(6), [&](shardkit::tcp_communicator& comm) {
    const int rank = comm.rank();
    mutations::comm_type any = checked ? erase(with_checks(std::move(comm))) : erase(std::move(comm));
    one.make(any, rank == mutated);
  });
}

}  // namespace

TEST_CASE("tcp: each field that one rank changes is caught: one rank at least says who, what and where") {
  for (const int ranks : {2, 3})
    for (const mutations::mutation& one : mutations::all())
      for (int mutated = 0; mutated < (one.between_two ? 2 : ranks); ++mutated) {
        CAPTURE(one.what);
        CAPTURE(ranks);
        CAPTURE(mutated);
        int mismatches = 0, sites = 0;
        for (const outcome& rank : run(one, ranks, mutated, false)) {
          CAPTURE(rank.text);
          // A rank that had nothing to wait for may have left before any other came to the call.
          CHECK((rank.text == "" || is<shardkit::mismatch_error>(rank) || has(rank.text, "messages differ: ")));
          CHECK((rank.text == "" || has(rank.text, "rank " + std::to_string(mutated) + " ")));
          sites += has(rank.text, "right.cpp:10") && has(rank.text, "wrong.cpp:20") ? 1 : 0;
          mismatches += is<shardkit::mismatch_error>(rank) ? 1 : 0;
        }
        CHECK(mismatches >= 1);
        CHECK(sites >= 1);
      }
}

TEST_CASE("tcp: with checks every rank says who differs, and where") {
  for (const mutations::mutation& one : mutations::all())
    for (int mutated = 0; mutated < (one.between_two ? 2 : 3); ++mutated) {
      CAPTURE(one.what);
      CAPTURE(mutated);
      const auto outcomes = run(one, 3, mutated, true);
      for (std::size_t rank = 0; rank < outcomes.size(); ++rank) {
        CAPTURE(outcomes[rank].text);
        CHECK(is<shardkit::mismatch_error>(outcomes[rank]));
        CHECK(has(outcomes[rank].text, "rank " + std::to_string(mutated) + " "));
        CHECK(has(outcomes[rank].text, "right.cpp:10"));
        CHECK(has(outcomes[rank].text, "wrong.cpp:20"));
      }
    }
}
