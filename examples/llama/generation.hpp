// Greedy or sampled generation for several prompts over a pipeline of stages.
#pragma once

#include "host_communicator.hpp"
#include "model.hpp"
#include "options.hpp"
#include "printer.hpp"
#include "sampler.hpp"

#include <shardkit/data/matrix_buffer.hpp>
#include <shardkit/pipeline/decode_ring.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

namespace llama {

/// What a replica did in which time, as its first stage saw it. The first new token belongs to its prompt.
struct speed {
  std::uint64_t prompt_tokens = 0, new_tokens = 0;
  double prompt_seconds = 0, new_seconds = 0;

  double prompt_rate() const { return prompt_seconds > 0 ? static_cast<double>(prompt_tokens) / prompt_seconds : 0; }
  double new_rate() const { return new_seconds > 0 ? static_cast<double>(new_tokens) / new_seconds : 0; }
};

struct generation {
  shardkit::matrix_buffer<int> tokens;  ///< [prompts, most new tokens] on the first stage; -1 behind the last
  std::vector<float> logits;            ///< of the last prompt, where asked for, on the first stage
  speed time;
};

/// Answers prompts in waves of as many as the pipeline works on side by side.
template <class Device>
class generator {
 public:
  using shard_type = model<Device>;
  using matrix = typename shard_type::matrix;

  generator(shard_type& shard, Device& device, host_communicator& pipeline, const std::vector<token_list>& prompts,
            std::size_t first_prompt, const options& given, text_printer& printer)
      : shard_(shard),
        device_(device),
        pipeline_(pipeline),
        prompts_(prompts),
        first_prompt_(first_prompt),
        given_(given),
        steps_(std::min(given.steps, shard.config().max_positions)),
        printer_(printer),
        // One more sequence than stages keeps all of them busy.
        side_by_side_(
            std::min(prompts.size(), pipeline.size() == 1 ? 1 : static_cast<std::size_t>(pipeline.size()) + 1)),
        longest_prompt_(longest(prompts)),
        candidates_(std::min(given.top_k, shard.config().vocabulary)),
        hidden_(longest_prompt_ * shard.config().hidden),
        ring_(pipeline, Device::ports(shard.config().hidden, longest_prompt_),
              shardkit::port{"token", shardkit::dtype::i32, 1, 1}, static_cast<int>(side_by_side_)) {
    made_.tokens = shardkit::matrix_buffer<int>(prompts.size(), steps_);
    std::fill_n(made_.tokens.data(), made_.tokens.size(), -1);
    const std::size_t positions = std::min(longest_prompt_ + steps_, shard.config().max_positions);
    for (std::size_t i = 0; i < side_by_side_; ++i) sequences_.push_back(shard.make_sequence(positions));
    shard.reserve(longest_prompt_, candidates_);
  }

  generation run() {
    if (steps_ == 0 && given_.logits.empty()) return skip();
    for (std::size_t first = 0; first < prompts_.size(); first += side_by_side_) run_wave(first);
    if (!given_.logits.empty()) bring_logits_to_first_stage();
    device_.finish();
    return std::move(made_);
  }

 private:
  // Carries tokens and the order of the work; hidden states where the device's ports say so.
  using ring = shardkit::decode_ring<host_communicator>;
  using hop = ring::hop_type;

  static double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }
  static std::size_t longest(const std::vector<token_list>& prompts) {
    std::size_t most = 0;
    for (const token_list& prompt : prompts) most = std::max(most, prompt.size());
    return most;
  }

  generation skip() {
    for (std::size_t i = 0; i < prompts_.size(); ++i) printer_.finish(i);
    device_.finish();
    return std::move(made_);
  }

  void run_wave(std::size_t first) {
    first_ = first;
    const std::size_t active = std::min(side_by_side_, prompts_.size() - first);
    newest_.assign(active, 0);
    samplers_.clear();
    for (std::size_t i = 0; i < active; ++i)
      samplers_.emplace_back(given_.temperature, given_.seed, first_prompt_ + first + i);
    waiting_for_first_token_ = active;
    wave_start_ = seconds();
    ring_.run(
        static_cast<int>(active), [&](int group, int step) { return rows(group, step); },
        [&](int group, int step, const hop& in, hop& out, hop& feedback) { forward(group, step, in, out, feedback); },
        [&](int group, int step, const hop& feedback) { return accept(group, step, feedback); });
    made_.time.new_seconds += seconds() - first_tokens_at_;
  }

  const token_list& prompt(int group) const { return prompts_[first_ + static_cast<std::size_t>(group)]; }

  std::size_t rows(int group, int step) const { return step == 0 ? prompt(group).size() : 1; }

  // Every stage: the rows of one step through its layers. The last one chooses the next token.
  void forward(int group, int step, const hop& in, hop& out, hop& feedback) {
    const std::size_t count = rows(group, step);
    const matrix hidden = device_.room(out, {hidden_.data(), count, shard_.config().hidden});
    auto& sequence = sequences_[index(group)];
    if (ring_.is_first()) shard_.embed(step == 0 ? prompt(group) : token_list{newest_[index(group)]}, sequence, hidden);
    else device_.receive(in, hidden);
    const std::size_t position = step == 0 ? 0 : prompt(group).size() + static_cast<std::size_t>(step) - 1;
    shard_.forward(hidden, sequence, position);
    if (!ring_.is_last()) return device_.send(hidden);
    const auto newest = hidden.row_range(count - 1, 1);
    if (step == 0 && !given_.logits.empty()) made_.logits = shard_.logits(newest);
    feedback.template matrix<int>(0)(0, 0) = choose(group, newest);
  }

  int choose(int group, matrix hidden) {
    const auto best = shard_.candidates(hidden, candidates_);
    std::vector<float> scores;
    for (const auto& one : best) scores.push_back(one.score);
    return best[samplers_[index(group)].choose(scores.data(), scores.size())].index;
  }

  // First stage: takes a new token; whether its sequence goes on.
  bool accept(int group, int step, const hop& feedback) {
    const int token = feedback.matrix<int>(0)(0, 0);
    const std::size_t number = first_ + index(group), made = static_cast<std::size_t>(step) + 1;
    newest_[index(group)] = token;
    if (step == 0) count_prompt(prompt(group).size());
    else ++made_.time.new_tokens;
    if (steps_ != 0) {
      made_.tokens.matrix()(number, made - 1) = token;
      printer_.token(number, token);
    }
    const bool goes_on =
        made < steps_ && !shard_.config().ends(token) && prompt(group).size() + made < shard_.config().max_positions;
    if (!goes_on) printer_.finish(number);
    return goes_on;
  }

  void count_prompt(std::size_t tokens) {
    made_.time.prompt_tokens += tokens;
    if (--waiting_for_first_token_ != 0) return;
    first_tokens_at_ = seconds();
    made_.time.prompt_seconds += first_tokens_at_ - wave_start_;
  }

  void bring_logits_to_first_stage() {
    if (pipeline_.size() == 1) return;
    made_.logits.resize(shard_.config().vocabulary);
    if (pipeline_.is_last()) pipeline_.send(made_.logits, 0);
    if (pipeline_.is_root()) pipeline_.recv(made_.logits, pipeline_.size() - 1);
  }

  static std::size_t index(int group) noexcept { return static_cast<std::size_t>(group); }

  shard_type& shard_;
  Device& device_;
  host_communicator& pipeline_;
  const std::vector<token_list>& prompts_;
  std::size_t first_prompt_;
  const options& given_;
  std::size_t steps_;  // no more than the model has positions
  text_printer& printer_;
  std::size_t side_by_side_, longest_prompt_;
  std::size_t candidates_;
  shardkit::buffer<float, typename Device::space> hidden_;  // of stages that leave it in no hop
  ring ring_;
  std::vector<typename shard_type::sequence> sequences_;  // one for each place side by side

  // Of the wave under way:
  std::size_t first_ = 0, waiting_for_first_token_ = 0;
  std::vector<int> newest_;
  std::vector<sampler> samplers_;
  double wave_start_ = 0, first_tokens_at_ = 0;

  generation made_;
};

/// Collective over the stages, which `pipeline` connects on the host, and their tensor ranks. `prompts` are this
/// replica's; the first of them is number `first_prompt` of all, which tells its random numbers. Tokens are handed to
/// `printer` as they come.
template <class Device>
generation generate(model<Device>& shard, Device& device, host_communicator& pipeline,
                    const std::vector<token_list>& prompts, std::size_t first_prompt, const options& given,
                    text_printer& printer) {
  return generator<Device>(shard, device, pipeline, prompts, first_prompt, given, printer).run();
}

}  // namespace llama
