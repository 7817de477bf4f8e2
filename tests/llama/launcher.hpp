// The program under an MPI launcher.
#pragma once

#include "program.hpp"

#include <sstream>
#include <string>

namespace llama_test {

/// The launcher with its flags, words apart, followed by the program.
inline command_line launch(const std::string& launcher, int ranks, const std::string& flags = {},
                           const std::string& program = LLAMA_PROGRAM) {
  command_line command = {launcher};
  std::istringstream words(flags);
  for (std::string word; words >> word;) command.push_back(word);
  return command + command_line{MPIEXEC_NUMPROC_FLAG, std::to_string(ranks), program};
}

}  // namespace llama_test
