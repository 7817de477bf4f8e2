// Chooses the next token among candidates. Every tensor rank holds the same candidates and draws the same number, so
// the choice needs no communication.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>

namespace llama {

class sampler {
 public:
  /// One for each prompt, numbered among all, so that its text does not depend on what is generated beside it or where.
  sampler(float temperature, std::uint64_t seed, std::size_t prompt)
      : temperature_(temperature), random_(seed + prompt) {}

  /// Index of a candidate, drawn with probability softmax(logits / temperature). `logits` descend.
  std::size_t choose(const float* logits, std::size_t count);

 private:
  float temperature_;
  std::mt19937_64 random_;
};

}  // namespace llama
