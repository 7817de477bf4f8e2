#include "printer.hpp"

#include <shardkit/core/error.hpp>

#include <cstdio>
#include <utility>

namespace llama {

text_printer::text_printer(const vocabulary& words, bool enabled, std::size_t prompts)
    : words_(words), enabled_(enabled), held_(prompts) {}

void text_printer::token(std::size_t prompt, int id) {
  if (!enabled_) return;
  if (prompt == current_) write(id);
  else held_[prompt].push_back(id);
}

void text_printer::finish(std::size_t prompt) {
  if (!enabled_) return;
  finished_.insert(prompt);
  while (finished_.count(current_) != 0) {
    std::puts("");
    if (++current_ == held_.size()) break;
    for (int id : std::exchange(held_[current_], {})) write(id);
  }
  std::fflush(stdout);
}

void text_printer::write(int id) const {
  if (!words_.available()) {
    std::printf("%d ", id);
  } else {
    const std::string& piece = words_.text(id);
    std::fwrite(piece.data(), 1, piece.size(), stdout);
  }
  std::fflush(stdout);
}

void print_answers(shardkit::matrix_view<const int> answers) {
  for (std::size_t i = 0; i < answers.rows(); ++i) {
    const char* before = "";
    for (int id : answers.row(i)) {
      if (id < 0) break;
      std::printf("%s%d", std::exchange(before, ","), id);
    }
    std::puts("");
  }
}

void print_text(shardkit::matrix_view<const int> answers, std::size_t first, text_printer& printer) {
  for (std::size_t i = first; i < answers.rows(); ++i) {
    for (int id : answers.row(i)) {
      if (id < 0) break;
      printer.token(i, id);
    }
    printer.finish(i);
  }
}

void require_printed() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw shardkit::usage_error("the answers cannot be written to standard output");
}

}  // namespace llama
