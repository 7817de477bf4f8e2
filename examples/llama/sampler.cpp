#include "sampler.hpp"

#include <cmath>
#include <vector>

namespace llama {

std::size_t sampler::choose(const float* logits, std::size_t count) {
  std::vector<double> weights(count);
  double total = 0;
  for (std::size_t i = 0; i < count; ++i) total += weights[i] = std::exp((logits[i] - logits[0]) / temperature_);
  double left = std::generate_canonical<double, 53>(random_) * total;
  for (std::size_t i = 0; i + 1 < count; ++i)
    if ((left -= weights[i]) < 0) return i;
  return count - 1;
}

}  // namespace llama
