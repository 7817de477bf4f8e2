// Every exception of the library: one hierarchy under shardkit::error. An error is thrown with the message of
// the place that knows the cause; the places it passes attach what they know (rank, operation, call site)
// to the passing object, so that its type and its text survive.
#pragma once

#include <shardkit/core/call_site.hpp>
#include <shardkit/core/detail/sentence.hpp>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <utility>

namespace shardkit {

/// What was going on when an error was thrown.
struct error_context {
  int rank = -1;               ///< rank within the communicator; -1: not known
  int size = 0;                ///< ranks of the communicator
  std::string communicator;    ///< its name ("world", "tensor", ...)
  std::string operation;       ///< the verb with its counts: "all_reduce(12 x f32, sum)"
  std::uint64_t sequence = 0;  ///< the how-many-th call on this communicator, from 1
  call_site site;              ///< where the user's code made the call
};

/// Base of all errors. `what()` is the message followed by the context in brackets.
class error : public std::exception {
 public:
  [[gnu::cold, gnu::noinline]] explicit error(std::string message) : message_(std::move(message)) { compose(); }
  error(const error&) = default;
  error(error&&) = default;
  error& operator=(const error&) = default;
  error& operator=(error&&) = default;
  [[gnu::cold, gnu::noinline]] ~error() override = default;

  /// "shardkit: ", the message, the context in brackets where it is known, then the history.
  const char* what() const noexcept override { return text_.c_str(); }
  /// What went wrong, in the words of the place that found it.
  const std::string& message() const noexcept { return message_; }
  /// Its rank is -1 where none is attached yet.
  const error_context& context() const noexcept { return context_; }

  /// Adds the context where none is attached yet: the innermost call is the one to report.
  [[gnu::cold, gnu::noinline]] void attach(error_context context) {
    if (context_.rank >= 0) return;
    context_ = std::move(context);
    compose();
  }

  /// The calls that came before, one a line, where `traced` has kept them; `what()` ends with it.
  const std::string& history() const noexcept { return history_; }
  /// Adds the history where none is attached yet.
  [[gnu::cold, gnu::noinline]] void attach_history(std::string history) {
    if (!history_.empty()) return;
    history_ = std::move(history);
    compose();
  }

 private:
  [[gnu::cold, gnu::noinline]] void compose() {
    detail::sentence text;
    text << "shardkit: " << message_;
    if (context_.rank >= 0) {
      text << " [rank " << context_.rank << " of " << context_.size;
      if (!context_.communicator.empty()) text << " of '" << context_.communicator << "'";
      if (!context_.operation.empty()) text << ", " << context_.operation;
      if (context_.sequence != 0) text << ", call " << context_.sequence;
      if (context_.site.known())
        text << ", at " << context_.site.file << ":" << context_.site.line << " in " << context_.site.function;
      text << "]";
    }
    if (!history_.empty()) text << "\n" << history_;
    text_ = text;
  }

  std::string message_;
  error_context context_;
  std::string history_;
  std::string text_;
};

/// The caller's arguments are wrong: sizes, ranks, null pointers, configuration. Nothing was done.
class usage_error : public error {
  using error::error;
};

/// Correct, but not available here: a reduction of this type, a feature of another build.
class unsupported_error : public error {
  using error::error;
};

/// Base of what goes wrong between ranks. The communicator and all others of the launch are unusable afterwards.
class communication_error : public error {
  using error::error;
};

/// Another rank threw, left or was found to be gone.
class peer_failed : public communication_error {
 public:
  peer_failed(int culprit, const std::string& reason)
      : communication_error(detail::sentence() << "rank " << culprit << " failed: " << reason), culprit_(culprit) {}

  /// The failed rank, counted in the launch (the world), whichever communicator reports it.
  int culprit() const noexcept { return culprit_; }

 private:
  int culprit_;
};

/// A wait outlasted its deadline.
class timeout_error : public communication_error {
  using communication_error::communication_error;
};

/// Ranks called different things at the same point of the program.
class mismatch_error : public communication_error {
  using communication_error::communication_error;
};

/// The transport (MPI, NCCL, a socket) reported an error.
class transport_error : public communication_error {
  using communication_error::communication_error;
};

/// A checkpoint file is missing, broken or does not hold what was asked for.
class checkpoint_error : public error {
  using error::error;
};

}  // namespace shardkit
