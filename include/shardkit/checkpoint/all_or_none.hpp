// Work that each rank does by itself (opening a file, reading its shard) made to succeed or fail on all ranks.
#pragma once

#include <shardkit/core/call_site.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {
namespace detail {

/// What each rank tells the others: plain and of one size, as communicator::exchange needs it.
struct rank_outcome {
  bool failed = false;
  char message[1023] = {};  // ends with NUL, cut where longer

  void fail(const char* why) noexcept {
    failed = true;
    std::strncpy(message, why, sizeof message - 1);
  }
};

/// Runs body; any exception becomes an outcome, so that no rank stays away from the exchange that follows.
template <class Body>
rank_outcome attempt(Body&& body) noexcept {
  rank_outcome mine;
  try {
    body();
  } catch (const error& failure) {
    mine.fail(failure.message().c_str());
  } catch (const std::exception& failure) {
    mine.fail(failure.what());
  } catch (...) {
    mine.fail("an exception that is not derived from std::exception");
  }
  return mine;
}

/// "rank 1 of 4: why; ranks 2, 3 of 4: another reason", or nothing where none failed.
inline std::string failures_text(const std::vector<rank_outcome>& all) {
  constexpr std::size_t most_ranks = 8, most_reasons = 4;
  std::string text;
  std::size_t reasons = 0;
  for (std::size_t first = 0; first < all.size(); ++first) {
    const auto same = [&](std::size_t r) {
      return all[r].failed && std::strcmp(all[r].message, all[first].message) == 0;
    };
    bool told = !all[first].failed;
    for (std::size_t r = 0; r < first && !told; ++r) told = same(r);
    if (told) continue;
    if (++reasons > most_reasons) return text + "; and other reasons";
    std::string ranks;
    std::size_t count = 0;
    for (std::size_t r = first; r < all.size(); ++r)
      if (same(r) && ++count <= most_ranks) ranks += (count == 1 ? "" : ", ") + std::to_string(r);
    if (count > most_ranks) ranks += " and " + std::to_string(count - most_ranks) + " more";
    text += (reasons == 1 ? "" : "; ") + std::string(count == 1 ? "rank " : "ranks ") + ranks + " of " +
            std::to_string(all.size()) + ": " + all[first].message;
  }
  return text;
}

}  // namespace detail

/// Collective: every rank runs `body`, then all learn whether any of them threw. If so, every rank throws
/// checkpoint_error with the same text, which names the ranks and their causes; else returns what body returned.
///
///     auto report = all_or_none(comm, "loading the weights", [&] { return plan.load(arena, staging); });
///
/// `body` must not itself communicate: a rank that failed has left it. `task` completes "... failed on".
template <class Communicator, class Body>
auto all_or_none(Communicator& comm, const std::string& task, Body&& body, call_site site = call_site::current()) {
  using result_type = std::invoke_result_t<Body&>;
  using kept_type = std::conditional_t<std::is_void_v<result_type>, char, result_type>;
  std::optional<kept_type> result;
  const detail::rank_outcome mine = detail::attempt([&] {
    if constexpr (std::is_void_v<result_type>) body();
    else result.emplace(body());
  });
  const std::vector<detail::rank_outcome> all =
      comm.exchange(mine, typename Communicator::where(typename Communicator::space::stream{}, site));
  const std::string failures = detail::failures_text(all);
  if (!failures.empty()) throw checkpoint_error(task + " failed on " + failures);
  if constexpr (!std::is_void_v<result_type>) return std::move(*result);
}

}  // namespace shardkit
