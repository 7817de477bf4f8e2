// One stage of a pipeline: rank r of a communicator computes its layers on what rank r - 1 passes to it, and passes
// the result on to rank r + 1. Receives are posted ahead and sends run on behind, in two slots for each direction. On a
// device everything is enqueued, in the order of the program: on one stream, or, with a fork, messages on a second one
// beside the computation.
//
//   stage pipeline(comm, {{"hidden", dtype::f32, hidden_size, 64}});
//   pipeline.forward(partition::balanced(samples, 8), [&](const microbatch& mb, const auto& in, auto& out) {
//     auto x = out.template matrix<float>("hidden");
//     if (pipeline.is_first()) embed(ids, mb, x);
//     else copy(x, in.template matrix<float>("hidden"));
//     layers(x);
//     if (pipeline.is_last()) head(x, logits, mb);
//   });
#pragma once

#include <shardkit/comm/communicator.hpp>
#include <shardkit/pipeline/detail/hop_slot.hpp>
#include <shardkit/pipeline/detail/same_declaration.hpp>

#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// Some of the rows of a batch, computed by all stages one after the other.
struct microbatch {
  int index;          ///< from 0, in the order computed
  std::size_t first;  ///< row of the batch
  std::size_t rows;   ///< may be 0
};

/// What goes out on the last stage is sent nowhere: it is working memory of the same size. What comes in on the first
/// stage carries nothing. So one program serves all stages, and a single rank.
///
/// The blocks below are called in the same order and with the same rows by all stages. Where any of them, or the
/// engine's function, throws, the communicator fails, so that no stage waits for this one. A stage that is destroyed
/// with transfers under way fails it, too: `drain` first. The communicator must outlive the stage.
template <class Communicator>
class stage {
 public:
  using space = typename Communicator::space;
  using where = typename Communicator::where;
  using start_where = typename Communicator::start_where;  ///< a stream, or a fork of two
  using hop_type = hop<space>;                             ///< what the engine's function gets and fills

  /// Collective. Compares the ports over all ranks: where they differ, every rank throws usage_error naming the first
  /// rank that does. Allocates everything that the stage will ever need.
  stage(Communicator& comm, std::vector<port> ports, where w = {}) : comm_(&comm) {
    auto layout = std::make_shared<const detail::hop_layout>(std::move(ports));
    const participant self(comm, w.site);
    if (const std::string fault = layout->fault(); !fault.empty()) self.reject("stage", fault);
    detail::require_same_declaration(comm, "stage", layout->describe(), w);
    max_rows_ = layout->max_rows();
    for (std::size_t i = 0; i < slots; ++i) {
      if (is_first()) incoming_.emplace_back(layout, self);
      else incoming_.emplace_back(layout, self, w.stream);
      outgoing_.emplace_back(layout, self, w.stream);
    }
  }
  stage(stage&&) = default;

  /// Which stage this rank is, from 0.
  int index() const noexcept { return comm_->rank(); }
  /// Number of stages.
  int count() const noexcept { return comm_->size(); }
  /// Whether this stage begins the pipeline; `in` carries nothing there.
  bool is_first() const noexcept { return index() == 0; }
  /// Whether this stage ends the pipeline; `out` is sent nowhere.
  bool is_last() const noexcept { return index() == count() - 1; }
  /// The one that the stages are ranks of.
  Communicator& communicator() noexcept { return *comm_; }

  /// Starts to receive the next hop, of `rows`, into a free slot. The hop that `receive` gave last keeps its slot until
  /// the next `receive`; so one hop can be expected while one is read, or two while none is.
  void expect(std::size_t rows, start_where w = {}) {
    require_rows("expect", rows, w);
    if (expected_ + (reading_ ? 1 : 0) == slots)
      reject("expect",
             "both incoming slots are in use, " + std::to_string(expected_) +
                 " by hops that are expected; call receive() before the next expect()",
             w);
    if (!is_first()) {
      detail::hop_slot<space>& slot = incoming_[(next_incoming_ + expected_) % slots];
      slot.reuse(rows);
      slot.receive(*comm_, index() - 1, w);
    }
    ++expected_;
  }

  /// Waits for the oldest expected hop. It may be read until the next `receive`.
  const hop_type& receive(where w = {}) {
    if (expected_ == 0) reject("receive", "no hop is expected; call expect(rows) before", w);
    detail::hop_slot<space>& slot = incoming_[next_incoming_];
    slot.wait();
    next_incoming_ = (next_incoming_ + 1) % slots;
    --expected_;
    reading_ = true;
    return slot.content();
  }

  /// A hop of `rows` to write. Waits until the hop before the last one has been sent, which used the same slot.
  hop_type& outgoing(std::size_t rows, where w = {}) {
    require_rows("outgoing", rows, w);
    detail::hop_slot<space>& slot = outgoing_[next_outgoing_];
    slot.reuse(rows);
    writing_ = true;
    return slot.content();
  }

  /// Starts to send the hop that `outgoing` gave; it may not be touched any more.
  void pass_on(start_where w = {}) {
    if (!writing_) reject("pass_on", "there is nothing to pass on; call outgoing(rows) and write the hop before", w);
    if (!is_last()) outgoing_[next_outgoing_].send(*comm_, index() + 1, w);
    next_outgoing_ = (next_outgoing_ + 1) % slots;
    writing_ = false;
  }

  /// Waits until everything passed on has been sent.
  void drain() {
    for (detail::hop_slot<space>& slot : outgoing_) slot.wait();
  }

  /// Collective: calls compute(const microbatch&, const hop& in, hop& out) for every part of the batch, in order. The
  /// number of microbatches is free, their sizes too; nothing is padded. On a device `compute` enqueues on w.stream,
  /// nothing waits, and all of it can be captured; synchronise before the stage is destroyed.
  ///
  /// With fork{compute, communication}, `compute` enqueues on the first stream, and a microbatch is sent, and the next
  /// one received, while another is computed; a stage then sends a microbatch when the next has come. With one stream
  /// a microbatch is passed on at once: less latency for the first of them, and nothing at the same time.
  template <class Forward>
  void forward(const partition& microbatches, Forward&& compute, start_where w = {}) {
    require_rows("forward", microbatches.padded_count(), w);
    if (expected_ != 0) reject("forward", "a hop is expected already; receive() it before", w);
    const int parts = microbatches.parts();
    const bool ahead = expects_ahead(w);
    guarded("forward", [&, this] {
      expect(microbatches.count(0), w);
      for (int i = 0; i < parts; ++i) {
        const hop_type& in = receive(w);
        const bool more = i + 1 < parts;
        if (more && ahead) expect(microbatches.count(i + 1), w);
        hop_type& out = outgoing(microbatches.count(i), w);
        compute(microbatch{i, microbatches.offset(i), microbatches.count(i)}, in, out);
        pass_on(w);
        if (more && !ahead) expect(microbatches.count(i + 1), w);
      }
      drain();
    });
    reading_ = false;
  }

  /// Calls `body`; where it throws, fails the communicator and lets the exception pass. For loops of one's own over the
  /// blocks above.
  template <class Body>
  void guarded(const char* operation, Body&& body) {
    const auto fail = [&, this](const char* reason) {
      comm_->fail(std::string(operation) + " on stage " + std::to_string(index()) + ": " + reason);
    };
    try {
      body();
    } catch (const std::exception& failure) {
      fail(failure.what());
      throw;
    } catch (...) {
      fail("an exception that is not a std::exception");
      throw;
    }
  }

 private:
  static constexpr std::size_t slots = 2;
  // On one stream, the computation would wait for a receive that was posted before it, and so for the stage before.
  static bool expects_ahead(const start_where& w) noexcept {
    if constexpr (detail::forks<space>::value) return space::native(w.compute) != space::native(w.stream);
    else return true;
  }

  void require_rows(const char* operation, std::size_t rows, const where& w) {
    if (rows > max_rows_)
      reject(operation,
             std::to_string(rows) + " rows in a hop, and the ports are declared for up to " +
                 std::to_string(max_rows_) + "; declare more, or use more microbatches",
             w);
  }
  [[noreturn]] void reject(const char* operation, const std::string& message, const where& w) {
    participant(*comm_, w.site).reject(operation, message);
  }

  Communicator* comm_;
  std::size_t max_rows_ = 0;
  std::vector<detail::hop_slot<space>> incoming_, outgoing_;
  std::size_t expected_ = 0, next_incoming_ = 0, next_outgoing_ = 0;
  bool reading_ = false, writing_ = false;
};

}  // namespace shardkit
