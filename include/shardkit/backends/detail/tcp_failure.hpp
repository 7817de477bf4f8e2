// What a rank over TCP knows of the failure of its launch, and what it throws on account of it.
#pragma once

#include <shardkit/comm/fingerprint.hpp>
#include <shardkit/core/error.hpp>

#include <exception>
#include <string>

namespace shardkit::detail {

/// The first failure that the rank has found or heard of, until the hub says which one came first of all.
class tcp_failure {
 public:
  bool known() const noexcept { return known_; }
  /// Whether nobody will say of it anything else.
  bool settled() const noexcept { return settled_; }
  const std::string& reason() const noexcept { return reason_; }

  /// Whether news of `culprit` would count: they are the first, or it was about to say more.
  bool awaits(int culprit) const noexcept { return !known_ || (provisional_ && culprit == culprit_); }
  /// Found here, or not from the hub.
  void note(int culprit, const std::string& reason, bool more_may_come = false) noexcept {
    if (!awaits(culprit)) return;
    known_ = true;
    provisional_ = more_may_come;
    culprit_ = culprit;
    try {
      reason_ = reason;
    } catch (const std::exception&) {
      reason_.clear();
    }
  }
  /// The hub's word, which counts.
  void settle(int culprit, const std::string& reason) noexcept {
    known_ = false;
    settled_ = true;
    note(culprit, reason);
  }
  /// The hub is gone: what is known counts, or else this.
  void settle_without_hub(const std::string& reason) noexcept {
    settled_ = true;
    note(0, reason);
  }

  /// The program on this rank learns of it by what it does, or by an exception of the caller's.
  void mark_told() noexcept { told_ = true; }
  /// Throws it, known as it is.
  [[noreturn]] void raise() {
    told_ = true;
    if (std::uncaught_exceptions() == 0) provisional_ = false;  // else this is a destructor on the exception's way
    if (is_mismatch()) throw mismatch_error(reason_);           // whoever has found it
    throw peer_failed(culprit_, reason_);
  }
  /// Throws mismatch_error where ranks made different calls and the program on this rank has not learnt of it.
  void require_agreement() {
    if (!known_ || told_ || !is_mismatch()) return;
    told_ = true;
    throw mismatch_error(reason_);
  }

 private:
  bool is_mismatch() const noexcept { return reason_.find(mismatch_words) == 0; }

  bool known_ = false, settled_ = false;
  bool provisional_ = false;  // an exception is passing, of which its handler may say more
  bool told_ = false;         // to the program on this rank
  int culprit_ = 0;
  std::string reason_;
};

}  // namespace shardkit::detail
