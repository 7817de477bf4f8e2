// Autoregressive decoding over a pipeline: what the last stage chooses goes back to the first, which decides whether
// and with what a group of sequences goes on. Several groups keep all stages busy: with stages + 1 of them none waits.
//
// Why it cannot deadlock, however strictly sends wait for their receives: every stage takes the groups in the same
// order, round after round; no stage waits for a send of its own before it has come two turns further; and the first
// stage has posted the receive of a feedback before it passes on the hop that leads to it. So each wait is for an
// earlier turn, or for the same turn on an earlier stage.
#pragma once

#include <shardkit/pipeline/stage.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

/// Groups are counted from 0, steps from 0 in each group. A ring is used again and again; it allocates at construction.
///
///     decode_ring ring(stages, {{"hidden", dtype::f32, hidden_size, longest_prompt}}, {"token", dtype::i32, 1, 1},
///                      stages.size() + 1);
///     ring.run([&](int group, int step) { return step == 0 ? prompts[group].size() : 1; },
///              [&](int group, int step, const hop<>& in, hop<>& out, hop<>& token) { ... },
///              [&](int group, int step, const hop<>& token) { return token.matrix<int>(0)(0, 0) != end_of_text; });
template <class Communicator>
class decode_ring {
 public:
  using space = typename Communicator::space;
  using where = typename Communicator::where;
  using hop_type = hop<space>;  ///< what the engine's function gets and fills

  /// Collective. `ports` pass from stage to stage. `feedback` passes from the last stage to the first after every step,
  /// always with all of its max_rows rows. Room for `groups` groups. Errors as those of `stage`.
  decode_ring(Communicator& comm, std::vector<port> ports, port feedback, int groups, where w = {})
      : stamp_port_(ports.size()), stage_(comm, with_stamp(std::move(ports)), w) {
    static_assert(std::is_same<space, host_space>::value,
                  "shardkit: decode_ring reads its stop flags on the host and needs a host communicator");
    const participant self(comm, w.site);
    feedback.rows = port_rows::fixed;
    feedback_rows_ = feedback.max_rows;
    auto layout = std::make_shared<const detail::hop_layout>(std::vector<port>{std::move(feedback)});
    if (const std::string fault = layout->fault(); !fault.empty()) self.reject("decode_ring", "feedback: " + fault);
    if (groups < 1) self.reject("decode_ring", std::to_string(groups) + " groups; at least 1 is needed");
    detail::require_same_declaration(comm, "decode_ring",
                                     std::to_string(groups) + " groups with the feedback " + layout->describe(), w);
    ended_.resize(static_cast<std::size_t>(groups));
    nothing_.emplace_back(layout, self);
    if (stage_.is_first() || stage_.is_last())
      for (int group = 0; group < groups; ++group) feedback_.emplace_back(layout, self, w.stream);
  }

  /// Groups of sequences that there is room for.
  int groups() const noexcept { return static_cast<int>(ended_.size()); }
  /// Which stage this rank is, from 0.
  int index() const noexcept { return stage_.index(); }
  /// Number of stages.
  int count() const noexcept { return stage_.count(); }
  /// Whether this stage reads the feedback.
  bool is_first() const noexcept { return stage_.is_first(); }
  /// Whether this stage writes the feedback.
  bool is_last() const noexcept { return stage_.is_last(); }

  /// Collective: decodes `active` groups, at most groups(), to their ends. Calls, in this order for each group:
  ///
  ///     std::size_t rows(int group, int step)
  ///         The rows of that step: the prompt's length at step 0, then 1 for each sequence. The same on every stage;
  ///         asked also for the step behind the last one, whose hop says that the group has ended.
  ///     forward(int group, int step, const hop& in, hop& out, hop& feedback)
  ///         Computes a step: `in` and `out` as in stage::forward. The last stage writes `feedback`, which carries
  ///         nothing elsewhere.
  ///     bool accept(int group, int step, const hop& feedback)
  ///         On the first stage only, before `forward` of step + 1: takes what came back; whether the group goes on.
  ///
  /// On one rank the calls are the same and nothing is sent. Where a call throws, the communicator fails.
  template <class Rows, class Forward, class Accept>
  void run(int active, Rows&& rows, Forward&& forward, Accept&& accept, where w = {}) {
    if (active < 0 || active > groups())
      participant(stage_.communicator(), w.site)
          .reject("decode_ring::run",
                  std::to_string(active) + " active groups; the ring was made for up to " + std::to_string(groups()));
    stage_.guarded("decode_ring::run", [&, this] { decode(active, rows, forward, accept, w); });
  }
  /// All groups.
  template <class Rows, class Forward, class Accept>
  void run(Rows&& rows, Forward&& forward, Accept&& accept, where w = {}) {
    run(groups(), rows, forward, accept, w);
  }

 private:
  // A group's step, when it is the group's turn.
  struct turn {
    int group, step;
    std::size_t rows;
  };

  template <class Rows, class Forward, class Accept>
  void decode(int active, Rows& rows, Forward& forward, Accept& accept, const where& w) {
    if (active == 0) return;
    ended_.assign(ended_.size(), false);
    const auto expect = [&, this](int group, int step) {
      const turn next{group, step, static_cast<std::size_t>(rows(group, step))};
      stage_.expect(next.rows, w);
      return next;
    };
    turn now = expect(0, 0);
    for (bool more = true; more;) {
      const hop_type& in = stage_.receive(w);
      const bool goes_on = is_first() ? accepted(now, accept) : announced_to_go_on(now, in);
      ended_[index_of(now)] = !goes_on;

      turn next = now;
      more = find_next(active, next.group, next.step);
      if (more) next = expect(next.group, next.step);

      hop_type& out = stage_.outgoing(now.rows, w);
      stamp_of(out)(0, 0) = stamp(now, goes_on);
      if (goes_on) compute(now, in, out, forward, w);
      stage_.pass_on(w);
      if (goes_on && is_last() && !is_first()) feedback_[index_of(now)].send(stage_.communicator(), 0, w);
      now = next;
    }
    stage_.drain();
    for (detail::hop_slot<space>& slot : feedback_) slot.wait();
  }

  // The next turn of a group that has not ended; false where all have.
  bool find_next(int active, int& group, int& step) const {
    for (int looked = 0; looked < active; ++looked) {
      if (++group == active) {
        group = 0;
        ++step;
      }
      if (!ended_[static_cast<std::size_t>(group)]) return true;
    }
    return false;
  }

  template <class Accept>
  bool accepted(const turn& now, Accept& accept) {
    if (now.step == 0) return true;
    detail::hop_slot<space>& slot = feedback_[index_of(now)];
    slot.wait();
    return accept(now.group, now.step - 1, std::as_const(slot.content()));
  }

  template <class Forward>
  void compute(const turn& now, const hop_type& in, hop_type& out, Forward& forward, const where& w) {
    if (is_last()) {
      detail::hop_slot<space>& slot = feedback_[index_of(now)];
      slot.reuse(feedback_rows_);
      forward(now.group, now.step, in, out, slot.content());
    } else {
      if (is_first()) {
        detail::hop_slot<space>& slot = feedback_[index_of(now)];
        slot.reuse(feedback_rows_);
        slot.receive(stage_.communicator(), count() - 1, w);
      }
      forward(now.group, now.step, in, out, nothing_.front().content());
    }
  }

  // A hop says whose turn it is and whether the group goes on, so that stages that disagree find out at once.
  static std::uint64_t stamp(const turn& now, bool goes_on) noexcept {
    const auto group = static_cast<std::uint64_t>(now.group);
    return static_cast<std::uint64_t>(now.step) << 32 | group << 1 | (goes_on ? 0u : 1u);
  }
  static std::vector<port> with_stamp(std::vector<port> ports) {
    ports.push_back({"shardkit::decode_ring", dtype_of<std::uint64_t>, 1, 1, port_rows::fixed});
    return ports;
  }
  template <class Hop>
  auto stamp_of(Hop& carrier) {
    return carrier.template matrix<std::uint64_t>(stamp_port_);
  }
  bool announced_to_go_on(const turn& now, const hop_type& in) {
    const std::uint64_t found = stamp_of(in)(0, 0);
    if (found >> 1 != stamp(now, true) >> 1)
      throw mismatch_error("stage " + std::to_string(index()) + " is at step " + std::to_string(now.step) +
                           " of group " + std::to_string(now.group) + ", and stage " + std::to_string(index() - 1) +
                           " passed on step " + std::to_string(found >> 32) + " of group " +
                           std::to_string((found & 0xffffffffu) >> 1) +
                           "; pass the same number of active groups on every stage");
    return (found & 1u) == 0;
  }

  static std::size_t index_of(const turn& now) noexcept { return static_cast<std::size_t>(now.group); }

  std::size_t stamp_port_;
  stage<Communicator> stage_;
  std::size_t feedback_rows_ = 0;
  std::vector<detail::hop_slot<space>> feedback_;  // one for each group, on the first and the last stage
  std::vector<detail::hop_slot<space>> nothing_;   // one, that carries nothing
  std::vector<char> ended_;
};

}  // namespace shardkit
