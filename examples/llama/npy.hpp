// Writes a vector of floats as a NumPy .npy file (format 1.0: numpy.lib.format).
#pragma once

#include <string>
#include <vector>

namespace llama {

/// Shape [values.size()], float32, little endian. Throws checkpoint_error where the file cannot be written.
void write_npy(const std::string& path, const std::vector<float>& values);

}  // namespace llama
