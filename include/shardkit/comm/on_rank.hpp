// What one rank does for all: computes a value, or goes first.
#pragma once

#include <shardkit/comm/blobs.hpp>

#include <cstring>
#include <exception>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

/// What another rank threw in `on_rank` or under `root_first`. The communicator goes on.
class remote_error : public error {
 public:
  remote_error(int rank, const std::string& what)
      : error("rank " + std::to_string(rank) + " threw: " + what), rank_(rank) {}

  /// The rank that threw, counted in the communicator.
  int rank() const noexcept { return rank_; }

 private:
  int rank_;
};

namespace detail {

template <class Value>
std::string packed(const Value& value) {
  if constexpr (std::is_trivially_copyable<Value>::value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  } else {
    using element = typename Value::value_type;
    static_assert(std::is_trivially_copyable<element>::value,
                  "shardkit: on_rank returns a plain value, a string, or a vector of plain elements");
    return std::string(reinterpret_cast<const char*>(value.data()), value.size() * sizeof(element));
  }
}
template <class Value>
Value unpacked(const char* bytes, std::size_t count) {
  Value value{};
  if constexpr (std::is_trivially_copyable<Value>::value) {
    std::memcpy(&value, bytes, sizeof value);
  } else {
    value.resize(count / sizeof(typename Value::value_type));
    if (count != 0) std::memcpy(value.data(), bytes, count);
  }
  return value;
}

/// The text of the exception that is being handled.
inline std::string current_exception_text() {
  try {
    throw;
  } catch (const error& failure) {
    return failure.message();
  } catch (const std::exception& failure) {
    return failure.what();
  } catch (...) {
    return "unknown exception";
  }
}

template <class Communicator>
[[noreturn]] void throw_remote(Communicator& comm, const char* operation, int rank, const std::string& what,
                               const call_site& site) {
  remote_error failure(rank, what);
  comm.explain(failure, operation, site);
  throw failure;
}

}  // namespace detail

/// Collective: calls function() on one rank; its result reaches all. It returns nothing, a plain value, a string, or a
/// vector of plain elements. Where it throws, that rank rethrows and the others throw remote_error with its text; the
/// communicator is as good as before. Every rank waits no longer than the operation deadline.
///
///     const auto seed = on_rank(comm, 0, [] { return std::random_device{}(); });
template <class Communicator, class Function>
auto on_rank(Communicator& comm, int rank, Function&& function, typename Communicator::where w = {}) {
  using value = std::decay_t<decltype(function())>;
  detail::require_rank(comm, "on_rank", rank, w);
  constexpr char good = 'g', bad = 'b';
  std::string outcome;  // how it went, then the value or what was thrown
  std::exception_ptr own;
  if (comm.rank() == rank) {
    try {
      outcome = good;
      if constexpr (std::is_void<value>::value) function();
      else outcome += detail::packed<value>(function());
    } catch (...) {
      own = std::current_exception();
      outcome = bad + detail::current_exception_text();
    }
  }
  outcome = broadcast_bytes(comm, std::move(outcome), rank, w);
  if (own) std::rethrow_exception(own);
  if (outcome[0] == bad) detail::throw_remote(comm, "on_rank", rank, outcome.substr(1), w.site);
  if constexpr (!std::is_void<value>::value) return detail::unpacked<value>(outcome.data() + 1, outcome.size() - 1);
}

/// Lets the root go first, for what must not be done by several ranks at once and is quick the second time, such as a
/// download into a cache:
///
///     { root_first turn(comm);  weights = fetch(url); }
///
/// Collective: on the root the constructor returns at once, elsewhere once the root's guard is gone; the others then
/// go on together. The root makes no other call on the communicator while it holds the guard. Where it leaves its scope
/// by an exception, the others' constructors throw remote_error. For one rank per node, use a communicator of the node.
/// The others wait no longer than the operation deadline.
template <class Communicator>
class root_first {
 public:
  using where = typename Communicator::where;

  explicit root_first(Communicator& comm, int root = 0, where w = {})
      : comm_(comm), where_(w), is_root_(comm.rank() == root), exceptions_(std::uncaught_exceptions()) {
    detail::require_rank(comm, "root_first", root, w);
    if (!is_root_ && comm_.exchange(char{0}, where_)[static_cast<std::size_t>(root)] != 0)
      detail::throw_remote(comm, "root_first", root, "it left root_first by an exception", w.site);
  }
  root_first(const root_first&) = delete;
  root_first& operator=(const root_first&) = delete;
  ~root_first() {
    if (!is_root_) return;
    try {
      (void)comm_.exchange(static_cast<char>(std::uncaught_exceptions() > exceptions_), where_);
    } catch (...) {  // the launch has failed; the next call says so
    }
  }

 private:
  Communicator& comm_;
  where where_;
  bool is_root_;
  int exceptions_;
};

}  // namespace shardkit
