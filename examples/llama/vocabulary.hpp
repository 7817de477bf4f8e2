// Token ids to text: only the table of a tokenizer.json is needed for that. Text to ids is left to the tokenizers
// package (tools/text.py), which is exact.
#pragma once

#include <string>
#include <vector>

namespace llama {

class vocabulary {
 public:
  /// Reads `directory`/tokenizer.json; without one, `available()` is false. Throws checkpoint_error where it is broken
  /// or not of the byte-level kind.
  explicit vocabulary(const std::string& directory);

  bool available() const noexcept { return !pieces_.empty(); }
  /// The bytes of a token; special tokens are empty. A character may span several tokens.
  const std::string& text(int id) const;

 private:
  std::vector<std::string> pieces_;
};

}  // namespace llama
