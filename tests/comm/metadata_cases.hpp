// What any_of, on_rank, root_first, verify_same, pad_to_max and the byte blobs promise, for any communicator.
#pragma once

#include <doctest/doctest.h>
#include <shardkit/comm/agreement.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/blobs.hpp>
#include <shardkit/comm/on_rank.hpp>
#include <shardkit/comm/pad_to_max.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace metadata {

using comm_type = shardkit::any_communicator<shardkit::host_space>;

inline void any_and_all(comm_type& comm) {
  CHECK(!any_of(comm, false));
  CHECK(all_of(comm, true));
  for (int one = 0; one < comm.size(); ++one) {
    CHECK(any_of(comm, comm.rank() == one));
    CHECK(all_of(comm, comm.rank() != one) == false);
    CHECK(any_of(comm, comm.rank() != one) == (comm.size() > 1));
  }
}

/// Rank r's blob: lengths 0, 1, a prime, a page and more.
inline std::string blob_of(int rank, std::size_t shift) {
  const std::size_t lengths[] = {0, 1, 4097, 31, 0, 70001};
  std::string blob(lengths[(static_cast<std::size_t>(rank) + shift) % 6], ' ');
  for (std::size_t i = 0; i < blob.size(); ++i) blob[i] = static_cast<char>(i * 7 + static_cast<std::size_t>(rank));
  return blob;
}

inline void blobs(comm_type& comm) {
  for (std::size_t shift = 0; shift < 6; ++shift) {
    const std::vector<std::string> all = all_gather_bytes(comm, blob_of(comm.rank(), shift));
    CHECK(all.size() == static_cast<std::size_t>(comm.size()));
    for (int rank = 0; rank < comm.size(); ++rank) {
      CHECK(all[static_cast<std::size_t>(rank)] == blob_of(rank, shift));
      CHECK(broadcast_bytes(comm, blob_of(comm.rank(), shift), rank) == blob_of(rank, shift));
    }
  }
  const std::vector<std::vector<std::uint8_t>> none = all_gather_bytes(comm, std::vector<std::uint8_t>());
  for (const auto& one : none) CHECK(one.empty());
}

/// What on_rank throws where this is not the rank that did.
template <class Call>
std::string remote_text(int culprit, Call call) {
  try {
    call();
  } catch (const shardkit::remote_error& failure) {
    CHECK(failure.rank() == culprit);
    return failure.what();
  }
  return "nothing was thrown";
}

inline void on_rank(comm_type& comm) {
  for (int one = 0; one < comm.size(); ++one) {
    int calls = 0;
    CHECK(shardkit::on_rank(comm, one, [&] { return ++calls, one * 3 + 0.5; }) == one * 3 + 0.5);
    CHECK(calls == (comm.rank() == one ? 1 : 0));
    CHECK(shardkit::on_rank(comm, one, [&] { return blob_of(one, 2); }) == blob_of(one, 2));
    CHECK(shardkit::on_rank(comm, one, [] {
            return std::vector<std::int16_t>{4, 5, 6};
          }) == std::vector<std::int16_t>{4, 5, 6});
    CHECK(shardkit::on_rank(comm, one, [] { return std::vector<double>(); }).empty());
    shardkit::on_rank(comm, one, [&] { ++calls; });
    CHECK(calls == (comm.rank() == one ? 2 : 0));

    const auto throwing = [&] {
      return shardkit::on_rank(comm, one, []() -> int { throw std::out_of_range("no luck"); });
    };
    if (comm.rank() == one) {
      CHECK_THROWS_AS((void)throwing(), std::out_of_range);
    } else {
      const std::string text = remote_text(one, throwing);
      CHECK(text.find("rank " + std::to_string(one) + " threw: no luck") != std::string::npos);
      CHECK(text.find("on_rank") != std::string::npos);
    }
    comm.barrier();  // the communicator goes on
  }
}

inline void root_first(comm_type& comm) {
  for (int root = 0; root < comm.size(); ++root) {
    // Nobody else is past the constructor while the root holds its guard.
    comm.barrier();
    {
      shardkit::root_first turn(comm, root);
      if (comm.rank() == root) shardkit::detail::sleep_seconds(2e-3);
    }
    const auto leave = [&] {
      shardkit::root_first turn(comm, root);
      if (comm.rank() == root) throw std::runtime_error("the disk is full");
    };
    if (comm.rank() == root) CHECK_THROWS_AS(leave(), std::runtime_error);
    else CHECK(remote_text(root, leave).find("it left root_first by an exception") != std::string::npos);
    // An exception that is already under way is not the guard's.
    struct guarded_cleanup {
      comm_type& comm;
      int root;
      ~guarded_cleanup() { shardkit::root_first turn(comm, root); }
    };
    CHECK_THROWS_AS(([&] {
                      const guarded_cleanup cleanup{comm, root};
                      throw std::runtime_error("another");
                    }()),
                    std::runtime_error);
    comm.barrier();
  }
}

inline std::string difference(comm_type& comm, const std::vector<float>& data) {
  try {
    verify_same(comm, data, "the table");
  } catch (const shardkit::mismatch_error& found) {
    return found.what();
  }
  return {};
}

inline void verify_same(comm_type& comm) {
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{1000}}) {
    std::vector<float> data(count, 1.5f);
    if (count != 0) data[0] = std::numeric_limits<float>::quiet_NaN();  // bytes are what counts
    CHECK(difference(comm, data).empty());
    for (int odd = 0; odd < comm.size(); ++odd) {
      const std::string who = "rank " + std::to_string(odd);
      std::vector<float> mine = data;
      if (comm.rank() == odd) mine.push_back(0);
      const std::string shape = difference(comm, mine);
      CHECK(shape.empty() == (comm.size() == 1));
      if (comm.size() > 2) {
        CHECK(shape.find("the table is not the same on all ranks: " + who + " has 1 x " + std::to_string(count + 1)) !=
              std::string::npos);
        CHECK(shape.find("1 x " + std::to_string(count) + " of f32") != std::string::npos);
      }
      for (const std::size_t place : {std::size_t{0}, count / 2, count - 1}) {
        if (count == 0) continue;
        mine = data;
        if (comm.rank() == odd) mine[place] = -0.0f;
        const std::string bytes = difference(comm, mine);
        CHECK(bytes.empty() == (comm.size() == 1));
        if (comm.size() > 2) CHECK(bytes.find(who + " differs from rank ") != std::string::npos);
      }
    }
    comm.barrier();
  }
  // Parts of wider rows, and other types of the same bytes.
  std::vector<std::int32_t> wide(12, comm.rank()), same(6, 3);
  const auto inner = shardkit::matrix_view(wide.data(), 2, 3, 6);
  for (std::size_t row = 0; row < 2; ++row)
    for (std::size_t column = 0; column < 3; ++column) inner(row, column) = 3;
  verify_same(comm, inner, "a block");
  if (comm.size() == 1) return;
  if (comm.rank() == 1) inner(1, 2) = 4;
  CHECK_THROWS_WITH_AS(verify_same(comm, inner, "a block"), doctest::Contains("first within rows 1 to 1"),
                       shardkit::mismatch_error);
  const std::vector<std::uint32_t> as_unsigned(same.begin(), same.end());
  if (comm.rank() == 1) CHECK_THROWS_AS(verify_same(comm, as_unsigned, "types"), shardkit::mismatch_error);
  else CHECK_THROWS_WITH_AS(verify_same(comm, same, "types"), doctest::Contains("of u32"), shardkit::mismatch_error);
}

inline void pad_to_max(comm_type& comm) {
  for (std::size_t shift = 0; shift < 4; ++shift) {
    const auto count_of = [&](int rank) { return (static_cast<std::size_t>(rank) * 5 + shift * 3) % 7; };
    const std::vector<std::int64_t> mine(count_of(comm.rank()), comm.rank() + 1);
    const auto padded = shardkit::pad_to_max(comm, mine);
    std::size_t largest = 0;
    for (int rank = 0; rank < comm.size(); ++rank) {
      CHECK(padded.counts[static_cast<std::size_t>(rank)] == count_of(rank));
      if (count_of(rank) > largest) largest = count_of(rank);
    }
    CHECK(padded.largest() == largest);
    for (std::size_t i = 0; i < padded.values.size(); ++i)
      CHECK(padded.values[i] == (i < mine.size() ? comm.rank() + 1 : 0));
  }
}

}  // namespace metadata

#define METADATA_CASES(X)                                                                          \
  X(any_and_all, "any_of and all_of are true where one rank, or every rank, says so")              \
  X(blobs, "blobs of any length reach every rank")                                                 \
  X(on_rank, "on_rank runs on one rank, and its value or its exception reaches all")               \
  X(root_first, "root_first lets the others wait for the root, and releases them when it unwinds") \
  X(verify_same, "verify_same names the ranks that differ, and in what")                           \
  X(pad_to_max, "pad_to_max makes counts equal and says what they were")
