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

void print_tokens(const int* ids, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) std::printf(i == 0 ? "%d" : ",%d", ids[i]);
  std::puts("");
}

void require_printed() {
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw shardkit::usage_error("the answers cannot be written to standard output");
}

}  // namespace llama
