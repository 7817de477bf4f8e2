// A hop with memory of its own and the transfer that uses it.
#pragma once

#include <shardkit/comm/request.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/pipeline/hop.hpp>

#include <cstddef>
#include <memory>
#include <utility>

namespace shardkit::detail {

template <class Space>
class hop_slot {
 public:
  using stream = typename Space::stream;

  /// A slot that carries nothing.
  hop_slot(std::shared_ptr<const hop_layout> layout, const participant& owner) : hop_(std::move(layout), owner) {}
  /// Room for the largest hop. Zeros at first: gaps between ports are sent as well.
  hop_slot(std::shared_ptr<const hop_layout> layout, const participant& owner, stream on)
      : hop_slot(std::move(layout), owner) {
    memory_ = buffer<std::byte, Space>(hop_.layout_->capacity());
    Space::fill_bytes(memory_.data(), 0, memory_.size(), on);
    hop_.data_ = memory_.data();
    resize(0);
  }

  hop<Space>& content() noexcept { return hop_; }

  /// Waits for the transfer under way, then makes the slot a hop of `rows`, whose contents are unspecified.
  void reuse(std::size_t rows) {
    transfer_.wait();
    resize(rows);
  }

  template <class Communicator>
  void send(Communicator& comm, int peer, const typename Communicator::start_where& w) {
    // nvcc takes an assignment for a request that is dropped.
    (void)(transfer_ = comm.send_async(view<const std::byte, Space>(memory_.data(), bytes_), peer, w));
  }
  template <class Communicator>
  void receive(Communicator& comm, int peer, const typename Communicator::start_where& w) {
    (void)(transfer_ = comm.recv_async(view<std::byte, Space>(memory_.data(), bytes_), peer, w));
  }
  void wait() { transfer_.wait(); }

 private:
  void resize(std::size_t rows) {
    hop_.rows_ = rows;
    bytes_ = hop_.layout_->arrange(rows, hop_.offsets_);
  }

  hop<Space> hop_;
  buffer<std::byte, Space> memory_;
  std::size_t bytes_ = 0;
  request transfer_;  // last: it ends before its memory does
};

}  // namespace shardkit::detail
