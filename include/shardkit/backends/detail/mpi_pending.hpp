// Sends and receives that outlive the call that started them, and the pool they come from.
#pragma once

#include <shardkit/backends/detail/mpi_transfer.hpp>
#include <shardkit/comm/request.hpp>

#include <memory>
#include <utility>
#include <vector>

namespace shardkit::detail {

class mpi_pending;

/// The pending calls of one communicator, used again and again.
class mpi_pool {
 public:
  mpi_pool(mpi_launch& launch, mpi_call_slot& slot, std::size_t piece_bytes) noexcept
      : launch_(launch), slot_(slot), piece_bytes_(piece_bytes) {}

  /// `owner` keeps the communicator, and with it the pool, until the call is released.
  mpi_pending& take(std::shared_ptr<void> owner, const char* name, const call_site& site);
  void give_back(mpi_pending& idle) { idle_.push_back(&idle); }

 private:
  mpi_launch& launch_;
  mpi_call_slot& slot_;
  const std::size_t piece_bytes_;
  std::vector<std::unique_ptr<mpi_pending>> all_;
  std::vector<mpi_pending*> idle_;  // has room for all, so that giving back cannot fail
};

class mpi_pending final : public pending_call {
 public:
  mpi_pending(mpi_pool& pool, mpi_launch& launch, mpi_call_slot& slot, std::size_t piece_bytes) noexcept
      : transfer(launch, piece_bytes), pool_(pool), launch_(launch), slot_(slot) {}
  virtual ~mpi_pending() = default;

  void begin(std::shared_ptr<void> owner, const char* name, const call_site& site) noexcept {
    owner_ = std::move(owner);
    name_ = name;
    site_ = site;
  }

  bool test() override {
    return launch_.run(slot_, name_, site_, [&] { return transfer.test(); });
  }
  void wait() override {
    launch_.run(slot_, name_, site_, [&] { transfer.wait(); });
  }
  void release() noexcept override {
    if (!transfer.empty()) {
      launch_.fail((std::string("the request of a ") + name_ + " was dropped before it was complete").c_str());
      const mpi_in_call in_call(slot_, name_, site_, mpi_in_call::even_after_failure{});
      transfer.abandon();
    }
    const auto owner = std::move(owner_);  // may be the last, and take this object with it
    pool_.give_back(*this);
  }

  mpi_transfer transfer;

 private:
  mpi_pool& pool_;
  mpi_launch& launch_;
  mpi_call_slot& slot_;
  std::shared_ptr<void> owner_;
  const char* name_ = "";
  call_site site_;
};

inline mpi_pending& mpi_pool::take(std::shared_ptr<void> owner, const char* name, const call_site& site) {
  if (idle_.empty()) {
    idle_.reserve(all_.size() + 1);
    all_.push_back(std::make_unique<mpi_pending>(*this, launch_, slot_, piece_bytes_));
    idle_.push_back(all_.back().get());
  }
  mpi_pending& taken = *idle_.back();
  idle_.pop_back();
  taken.begin(std::move(owner), name, site);
  return taken;
}

}  // namespace shardkit::detail
