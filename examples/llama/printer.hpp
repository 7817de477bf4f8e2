// Standard output of the first rank: text as it comes, or one line of token ids a prompt.
#pragma once

#include "options.hpp"
#include "vocabulary.hpp"

#include <shardkit/core/view.hpp>

#include <cstddef>
#include <set>
#include <vector>

namespace llama {

/// Prompts may be answered side by side; their texts appear one after the other. The text of the first unfinished
/// prompt appears token by token, what belongs to later ones is held back until it is their turn.
class text_printer {
 public:
  /// Prints only where `enabled`.
  text_printer(const vocabulary& words, bool enabled, std::size_t prompts);

  void token(std::size_t prompt, int id);
  void finish(std::size_t prompt);

 private:
  void write(int id) const;

  const vocabulary& words_;
  bool enabled_;
  std::vector<token_list> held_;
  std::set<std::size_t> finished_;
  std::size_t current_ = 0;
};

/// The prompts' answers, rows of ids with -1 behind the last: "504,3575,2" and a line end each.
void print_answers(shardkit::matrix_view<const int> answers);

/// Hands the answers from number `first` on to the printer.
void print_text(shardkit::matrix_view<const int> answers, std::size_t first, text_printer& printer);

/// Throws usage_error where standard output did not take all that was printed: a full disk, a closed file.
void require_printed();

}  // namespace llama
