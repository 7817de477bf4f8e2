// For libFuzzer.
#include "fuzz_target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  fuzzing::one_input(data, size);
  return 0;
}
