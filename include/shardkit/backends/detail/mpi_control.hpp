// The control lane over MPI: messages on a communicator of its own, which nothing else uses. Everything is polled, so
// that its waits end with an exception where those of MPI's own calls would end the job.
#pragma once

#include <shardkit/backends/detail/mpi_launch.hpp>
#include <shardkit/comm/control.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/shared.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <climits>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

class mpi_control final : public shared_object, public control_lane {
 public:
  /// Takes over `own`, a duplicate of the communicator.
  mpi_control(mpi_launch& launch, MPI_Comm own) : launch_(launch), comm_(own) {
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  }
  mpi_control(const mpi_control&) = delete;
  mpi_control& operator=(const mpi_control&) = delete;
  ~mpi_control() override {
    // After a failure, or after MPI has ended, MPI may still hold the buffers of what was posted: they stay.
    if (!outgoing_.empty()) new (std::nothrow) list<outgoing>(std::move(outgoing_));
  }

  /// Collective, as the end of the communicator is. What was posted and nobody takes is waited for no longer than the
  /// abort deadline.
  void close() noexcept {
    wait_for(
        spins, launch_.limits().abort, [&, this] { return reap(); }, [&, this] { return launch_.failed(); });
    MPI_Comm_free(&comm_);
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  void post(int peer, control_topic topic, const blob& message, const call_site&) override {
    guarded([&, this] {
      require(peer, message);
      send(peer, tag_of(topic, false), message);
    });
  }
  bool poll(int peer, control_topic topic, blob& message, const call_site&) override {
    return guarded([&, this] {
      require(peer, {});
      return receive(peer, tag_of(topic, false), message);
    });
  }
  blob take(int peer, control_topic topic, const call_site& site) override {
    return guarded([&, this] {
      require(peer, {});
      return await(peer, tag_of(topic, false), site);
    });
  }
  std::vector<blob> exchange(control_topic topic, const blob& message, const call_site& site) override {
    return guarded([&, this] {
      require(rank_, message);
      for (int peer = 0; peer < size_; ++peer)
        if (peer != rank_) send(peer, tag_of(topic, true), message);
      std::vector<blob> all(static_cast<std::size_t>(size_));
      for (int peer = 0; peer < size_; ++peer)
        all[static_cast<std::size_t>(peer)] = peer == rank_ ? message : await(peer, tag_of(topic, true), site);
      return all;
    });
  }
  void request_stop() noexcept override { launch_.ask_to_stop(); }
  bool stop_requested(const call_site&) override { return launch_.stop_asked(); }

 private:
  struct outgoing {
    blob message;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  static constexpr int spins = 20;

  static int tag_of(control_topic topic, bool exchanged) noexcept {
    return static_cast<int>(topic) * 2 + (exchanged ? 1 : 0);
  }

  /// What is thrown fails the launch, so that no peer waits for this rank.
  template <class Body>
  auto guarded(Body body) -> decltype(body()) {
    launch_.require_alive();
    try {
      return body();
    } catch (...) {
      launch_.fail_as_caught();
      throw;
    }
  }
  void require(int peer, const blob& message) const {
    if (peer < 0 || peer >= size_) throw usage_error(not_a_rank("control: peer", peer, size_));
    if (message.size() > INT_MAX)
      throw usage_error("control: a message of " + std::to_string(message.size()) + " bytes; at most " +
                        std::to_string(INT_MAX) + ": send it in parts, or as a call");
  }

  void send(int peer, int tag, const blob& message) {
    reap();
    outgoing one{message};
    outgoing_.make_room();  // or, without memory, what MPI reads would go away with `one`
    mpi_check(
        MPI_Isend(one.message.data(), static_cast<int>(one.message.size()), MPI_BYTE, peer, tag, comm_, &one.request),
        "MPI_Isend");
    outgoing_.push_back(std::move(one));
  }
  /// Lets go of what has been sent; whether nothing is left.
  bool reap() {
    for (outgoing* one = outgoing_.begin(); one != outgoing_.end();) {
      int done = 0;
      if (MPI_Test(&one->request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done != 0) outgoing_.erase(one);
      else ++one;
    }
    return outgoing_.empty();
  }

  bool receive(int peer, int tag, blob& message) {
    int arrived = 0, bytes = 0;
    MPI_Message found = MPI_MESSAGE_NULL;
    MPI_Status status;
    mpi_check(MPI_Improbe(peer, tag, comm_, &arrived, &found, &status), "MPI_Improbe");
    if (arrived == 0) return false;
    mpi_check(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
    message.resize(static_cast<std::size_t>(bytes));
    mpi_check(MPI_Mrecv(message.data(), bytes, MPI_BYTE, &found, MPI_STATUS_IGNORE), "MPI_Mrecv");
    return true;
  }
  blob await(int peer, int tag, const call_site& site) {
    blob message;
    const auto arrived = [&, this] {
      reap();
      return receive(peer, tag, message);
    };
    const double seconds = launch_.limits().operation;
    switch (wait_for(spins, seconds, arrived, [&, this] { return launch_.failed(); })) {
      case wait_result::ready: break;
      case wait_result::interrupted: launch_.require_alive(); break;
      case wait_result::expired:
        throw timeout_error("rank " + std::to_string(peer) + " of this communicator did not post a control message" +
                            (site.known() ? std::string(" at ") + site.file + ":" + std::to_string(site.line) : "") +
                            " within the operation deadline of " + std::to_string(seconds) +
                            " s; let it post one, or give the launch a longer deadline");
    }
    return message;
  }

  mpi_launch& launch_;
  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
  list<outgoing> outgoing_;  // MPI reads what the messages own, which stays where it is when they are moved
};

}  // namespace shardkit::detail
