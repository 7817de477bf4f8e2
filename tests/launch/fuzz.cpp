// For libFuzzer. SHARDKIT_FUZZ_PLACE, a number, sends every input to that one place.
#include "fuzz_target.hpp"

#include <cstdlib>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const char* const place = std::getenv("SHARDKIT_FUZZ_PLACE");
  std::vector<unsigned char> input(data, data + size);  // of exactly this size, for AddressSanitizer
  if (place != nullptr && !input.empty()) input[0] = static_cast<unsigned char>(std::atoi(place));
  fuzzing::one_input(input.data(), input.size());
  return 0;
}
