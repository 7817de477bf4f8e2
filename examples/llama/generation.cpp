#include "generation.hpp"

#include "sampler.hpp"

#include <shardkit/pipeline/decode_ring.hpp>

#include <algorithm>
#include <chrono>
#include <utility>

namespace llama {
namespace {

using shardkit::port;
using ring = shardkit::decode_ring<communicator>;
using hop = ring::hop_type;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Answers prompts in waves of as many as the pipeline works on side by side.
class generator {
 public:
  generator(model& shard, communicator& pipeline, const std::vector<token_list>& prompts, std::size_t first_prompt,
            const options& given, text_printer& printer)
      : shard_(shard),
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
        hidden_(longest_prompt_ * shard.config().hidden),
        ring_(pipeline, {port{"hidden", shardkit::dtype::f32, shard.config().hidden, longest_prompt_}},
              port{"token", shardkit::dtype::i32, 1, 1}, static_cast<int>(side_by_side_)) {
    made_.tokens = shardkit::matrix_buffer<int>(prompts.size(), steps_);
    std::fill_n(made_.tokens.data(), made_.tokens.size(), -1);
    const std::size_t positions = std::min(longest_prompt_ + steps_, shard.config().max_positions);
    for (std::size_t i = 0; i < side_by_side_; ++i) past_.push_back(shard.make_sequence(positions));
  }

  generation run() {
    if (steps_ == 0 && given_.logits.empty()) return skip();
    for (std::size_t first = 0; first < prompts_.size(); first += side_by_side_) run_wave(first);
    if (!given_.logits.empty()) bring_logits_to_first_stage();
    return std::move(made_);
  }

 private:
  static std::size_t longest(const std::vector<token_list>& prompts) {
    std::size_t most = 0;
    for (const token_list& prompt : prompts) most = std::max(most, prompt.size());
    return most;
  }

  generation skip() {
    for (std::size_t i = 0; i < prompts_.size(); ++i) printer_.finish(i);
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
    const std::size_t count = rows(group, step), width = shard_.config().hidden;
    const matrix hidden = ring_.is_last() ? matrix(hidden_.data(), count, width) : out.matrix<float>(0);
    if (ring_.is_first()) shard_.embed(step == 0 ? prompt(group) : token_list{newest_[index(group)]}, hidden);
    else std::copy_n(in.matrix<float>(0).data(), count * width, hidden.data());
    const std::size_t position = step == 0 ? 0 : prompt(group).size() + static_cast<std::size_t>(step) - 1;
    shard_.forward(hidden, past_[index(group)], position);
    if (!ring_.is_last()) return;
    const const_matrix newest = hidden.row_range(count - 1, 1);
    if (step == 0 && !given_.logits.empty()) made_.logits = shard_.logits(newest);
    feedback.matrix<int>(0)(0, 0) = choose(group, newest);
  }

  int choose(int group, const_matrix hidden) {
    const auto best = shard_.candidates(hidden, std::min(given_.top_k, shard_.config().vocabulary));
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

  model& shard_;
  communicator& pipeline_;
  const std::vector<token_list>& prompts_;
  std::size_t first_prompt_;
  const options& given_;
  std::size_t steps_;  // no more than the model has positions
  text_printer& printer_;
  std::size_t side_by_side_, longest_prompt_;
  std::vector<float> hidden_;  // of the last stage
  ring ring_;
  std::vector<sequence> past_;  // one for each place side by side

  // Of the wave under way:
  std::size_t first_ = 0, waiting_for_first_token_ = 0;
  std::vector<int> newest_;
  std::vector<sampler> samplers_;
  double wave_start_ = 0, first_tokens_at_ = 0;

  generation made_;
};

}  // namespace

generation generate(model& shard, communicator& pipeline, const std::vector<token_list>& prompts,
                    std::size_t first_prompt, const options& given, text_printer& printer) {
  return generator(shard, pipeline, prompts, first_prompt, given, printer).run();
}

}  // namespace llama
