// The control lane of a communicator: small host messages beside its calls, for metadata, fingerprints and stop flags,
// whatever the space its buffers lie in. Not for speed: a virtual interface, copies, no promises on the hot path.
#pragma once

#include <shardkit/core/call_site.hpp>
#include <shardkit/core/detail/sentence.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// What travels in a lane; messages of one topic between two ranks arrive in the order posted, topics do not wait for
/// each other.
enum class control_topic : unsigned char {
  user,         ///< the engine's own metadata
  fingerprint,  ///< what `checked` compares
  transport,    ///< what a device backend tells the ranks of the host communicator that it stands on
};
/// How many topics there are.
inline constexpr std::size_t control_topics = 3;
/// "user", "fingerprint", ...
inline const char* name_of(control_topic topic) noexcept {
  constexpr const char* names[control_topics] = {"user", "fingerprint", "transport"};
  return names[static_cast<std::size_t>(topic)];
}

/// A rank's end of the lane. The ranks are those of the communicator it belongs to. One thread uses it at a time.
///
/// Waits end at the launch's operation deadline (timeout_error) and with the launch's failure (peer_failed). A peer
/// that does not exist, or a message that is too long for the transport, fails the launch (usage_error). The errors of
/// a lane that a communicator has handed out name rank, communicator, operation and call site.
class control_lane {
 public:
  using blob = std::vector<char>;  ///< one message, of any length

  virtual ~control_lane() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  /// Sends a copy of `message` to `peer`, which may be this rank. Does not wait for the receiver.
  virtual void post(int peer, control_topic topic, const blob& message,
                    const call_site& site = call_site::current()) = 0;

  /// The next message of this topic from `peer`, where one has arrived.
  virtual bool poll(int peer, control_topic topic, blob& message, const call_site& site = call_site::current()) = 0;

  /// Waits for the next message of this topic from `peer`.
  virtual blob take(int peer, control_topic topic, const call_site& site = call_site::current()) = 0;

  /// Collective: element r of the result is rank r's `message`, of any length.
  virtual std::vector<blob> exchange(control_topic topic, const blob& message,
                                     const call_site& site = call_site::current()) = 0;

  /// Asks all ranks of the launch to stop at their next convenience; not collective, and not a failure.
  virtual void request_stop() noexcept = 0;
  /// Whether any rank has asked, as far as this rank has heard.
  virtual bool stop_requested(const call_site& site = call_site::current()) = 0;

  /// Takes the topic for one user of this end, to whom its messages belong; false where another has it.
  virtual bool claim(control_topic topic) noexcept {
    bool& claimed = claimed_[static_cast<std::size_t>(topic)];
    return !std::exchange(claimed, true);
  }

 private:
  bool claimed_[control_topics] = {};
};

namespace detail {

/// What is wrong with a rank that does not exist: "root", "peer", ...
[[gnu::cold, gnu::noinline]] inline std::string not_a_rank(const char* what, int rank, int size) {
  return sentence() << what << " " << rank << " is not a rank of this communicator; its ranks are 0 to " << size - 1;
}

}  // namespace detail
}  // namespace shardkit
