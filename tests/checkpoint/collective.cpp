// Opening and loading on several ranks: what goes wrong on one is told on all, in the same words.
#include "files.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/checkpoint/safetensors_writer.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/launch/run_ranks.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

using files::contains;
using namespace shardkit;

namespace {

constexpr std::size_t row_count = 23, column_count = 10;

std::string write_checkpoint(const std::string& path) {
  safetensors_writer out(path, {{"w", dtype::f32, {row_count, column_count}}});
  std::vector<float> values(row_count * column_count);
  std::iota(values.begin(), values.end(), 0.0f);
  out.write(values);
  out.commit();
  return path;
}

// What every rank's `body(comm)` says in its checkpoint_error; "" where it throws none. The communicator works on
// afterwards.
template <class Body>
std::vector<std::string> messages(int size, Body&& body) {
  std::vector<std::string> said(static_cast<std::size_t>(size));
  run_ranks(size, [&](thread_communicator& comm) {
    try {
      body(comm);
    } catch (const checkpoint_error& failure) {
      said[static_cast<std::size_t>(comm.rank())] = failure.what();
    }
    if (comm.all_reduce(1, sum) != size) throw std::runtime_error("the communicator is broken");
  });
  return said;
}

}  // namespace

TEST_CASE("ranks load their rows, which together are the whole") {
  const files::directory folder;
  const std::string path = write_checkpoint(folder / "f.safetensors");
  for (int size = 1; size <= 6; ++size) {
    std::vector<float> whole(row_count * column_count, -1.0f);
    run_ranks(size, [&](thread_communicator& comm) {
      const archive weights = open_archive(comm, path);
      load_plan plan(weights, comm.rank(), comm.size());
      const auto cut = partition::balanced(row_count, comm.size());
      const arena_slot slot = plan.add("w", {row_count, column_count}, rows(cut));
      buffer<std::byte> arena(plan.bytes()), staging(load_plan::least_staging);
      const load_report report = plan.load(comm, arena, staging);
      if (report.bytes_loaded != cut.count(comm.rank()) * column_count * 4) throw std::runtime_error("bytes_loaded");
      const auto mine = slot.view_in<float>(arena);
      std::copy(mine.begin(), mine.end(),
                whole.begin() + static_cast<std::ptrdiff_t>(cut.offset(comm.rank()) * column_count));
    });
    for (std::size_t i = 0; i < whole.size(); ++i) CHECK(whole[i] == static_cast<float>(i));
  }
}

TEST_CASE("a file that one rank cannot open is refused on all, in the same words") {
  const files::directory folder;
  const std::string good = write_checkpoint(folder / "good.safetensors");
  const std::string broken = folder.write("broken.safetensors", files::safetensors("{}", "x"));
  for (int size = 1; size <= 5; ++size)
    for (int culprit = 0; culprit < size; ++culprit) {
      const auto said = messages(
          size, [&](thread_communicator& comm) { open_archive(comm, comm.rank() == culprit ? broken : good); });
      for (const std::string& each : said) {
        // The path in the first words is each rank's own.
        const std::size_t from = each.find("failed on");
        REQUIRE(from != std::string::npos);
        CHECK(each.substr(from) == said[0].substr(said[0].find("failed on")));
        CHECK(contains(each, "failed on rank " + std::to_string(culprit) + " of " + std::to_string(size) + ": '" +
                                 broken + "' is not a valid safetensors file"));
      }
    }
}

TEST_CASE("a file that no rank can open is told once") {
  const auto said = messages(3, [](thread_communicator& comm) { open_archive(comm, "absent.safetensors"); });
  for (const std::string& each : said)
    CHECK(each ==
          "shardkit: opening the checkpoint 'absent.safetensors' failed on ranks 0, 1, 2 of 3: cannot open "
          "'absent.safetensors': No such file or directory");
}

TEST_CASE("a read that fails on one rank fails on all, naming it") {
  const files::directory folder;
  const std::string path = folder / "f.safetensors";
  for (int size = 1; size <= 4; ++size)
    for (int culprit = 0; culprit < size; ++culprit) {
      for (int rank = 0; rank < size; ++rank) write_checkpoint(path + std::to_string(rank));
      const auto said = messages(size, [&](thread_communicator& comm) {
        const std::string mine = path + std::to_string(comm.rank());  // as on disks of different nodes
        load_plan plan(open_archive(comm, mine), comm.rank(), comm.size());
        plan.add("w", {row_count, column_count}, columns(partition::balanced(column_count, comm.size())));
        buffer<std::byte> arena(plan.bytes()), staging(load_plan::least_staging);
        if (comm.rank() == culprit) std::filesystem::resize_file(mine, 500);
        plan.load(comm, arena, staging);
      });
      for (const std::string& each : said) {
        CHECK(contains(each, "failed on rank " + std::to_string(culprit) + " of " + std::to_string(size) + ":"));
        CHECK(contains(each, "changed since its header was read"));
        CHECK(contains(each, "now 500"));
      }
    }
}

TEST_CASE("anything thrown on one rank is told on all: too little memory, a callback's own exception") {
  const auto told = [](const std::function<void()>& fault, const std::string& expected) {
    const auto said = messages(3, [&](thread_communicator& comm) {
      all_or_none(comm, "the work", [&] {
        if (comm.rank() == 1) fault();
      });
    });
    for (const std::string& each : said) CHECK(contains(each, "the work failed on rank 1 of 3: " + expected));
  };
  told([] { throw std::bad_alloc(); }, "std::bad_alloc");
  told([] { throw std::runtime_error("the disk is gone"); }, "the disk is gone");
  told([] { throw usage_error("wrong size"); }, "wrong size");
  told([] { throw 42; }, "an exception that is not derived from std::exception");
  told([] { throw std::runtime_error(std::string(10'000, 'x')); }, "xxxxx");
}

TEST_CASE("different causes are told apart, and many ranks are counted") {
  const auto said = messages(5, [](thread_communicator& comm) {
    all_or_none(comm, "it", [&] {
      if (comm.rank() != 2) throw std::runtime_error(comm.rank() % 2 == 0 ? "even" : "odd");
    });
  });
  for (const std::string& each : said)
    CHECK(each == "shardkit: it failed on ranks 0, 4 of 5: even; ranks 1, 3 of 5: odd");

  std::vector<detail::rank_outcome> all(20);
  for (auto& each : all) each.fail("full");
  CHECK(detail::failures_text(all) == "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 12 more of 20: full");
  for (std::size_t r = 0; r < all.size(); ++r) all[r].fail(std::to_string(r).c_str());
  CHECK(detail::failures_text(all) ==
        "rank 0 of 20: 0; rank 1 of 20: 1; rank 2 of 20: 2; rank 3 of 20: 3; and other reasons");
  CHECK(detail::failures_text(std::vector<detail::rank_outcome>(3)).empty());
}

TEST_CASE("an exception without text is a failure too") {
  struct silent : std::exception {
    const char* what() const noexcept override { return ""; }
  };
  for (const std::string& each : messages(2, [](thread_communicator& comm) {
         all_or_none(comm, "it", [&] {
           if (comm.rank() == 0) throw silent{};
         });
       }))
    CHECK(each == "shardkit: it failed on rank 0 of 2: ");
}

TEST_CASE("the result of the work is returned") {
  self_communicator comm{self_backend{}};
  CHECK(all_or_none(comm, "it", [] { return std::string("done"); }) == "done");
  auto owner = all_or_none(comm, "it", [] { return std::make_unique<int>(3); });
  CHECK(*owner == 3);
}

TEST_CASE("a rank that fails before it gets to the load leaves no other waiting") {
  const files::directory folder;
  const std::string path = write_checkpoint(folder / "f.safetensors");
  launch_options quiet;
  quiet.on_failure = {};
  const auto launch = [&] {
    run_ranks(3, quiet, [&](thread_communicator& comm) {
      load_plan plan(open_archive(comm, path), comm.rank(), comm.size());
      if (comm.rank() == 2) plan.add("absent", {1});
      buffer<std::byte> arena(plan.bytes()), staging(load_plan::least_staging);
      plan.load(comm, arena, staging);
    });
  };
  CHECK(contains(files::message_of(launch), "no tensor 'absent'"));
}
