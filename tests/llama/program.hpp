// Runs the llama program as its users do: a command, what it printed, how it ended.
#pragma once

#include <doctest/doctest.h>
#include <support/temporary_folder.hpp>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

extern char** environ;

namespace llama_test {

using directory = shardkit_test::temporary_folder;

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const std::string& path, const std::string& contents) {
  std::ofstream file(path, std::ios::binary);
  file << contents;
  file.close();
  REQUIRE(file.good());
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

using command_line = std::vector<std::string>;

inline command_line operator+(command_line first, const command_line& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

struct outcome {
  int status = -1;  ///< exit status; 128 + n after signal n
  bool in_time = true;
  std::string output, errors;  ///< standard output and standard error
};

/// Starts a process whose output goes to the two files. `environment` ("NAME=value") is added to ours, without what a
/// launcher around these tests may have left there.
inline pid_t start(const command_line& command, const std::vector<std::string>& environment, const std::string& output,
                   const std::string& errors) {
  std::vector<char*> arguments, variables;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  for (char** variable = environ; *variable != nullptr; ++variable) {
    bool launcher = false;
    for (const char* name :
         {"OMPI_COMM_WORLD_SIZE=", "PMI_SIZE=", "MPI_LOCALNRANKS=", "SLURM_STEP_NUM_TASKS=", "WORLD_SIZE="})
      launcher = launcher || std::strncmp(*variable, name, std::strlen(name)) == 0;
    if (!launcher) variables.push_back(*variable);
  }
  for (const std::string& variable : environment) variables.push_back(const_cast<char*>(variable.c_str()));
  variables.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&files, 2, errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // so that all of it can be ended
  pid_t child = -1;
  const int failure = ::posix_spawnp(&child, arguments[0], &files, &attributes, arguments.data(), variables.data());
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  INFO(command[0] << ": " << std::strerror(failure));
  REQUIRE(failure == 0);
  return child;
}

/// Runs a command to its end, or ends it after so many seconds.
inline outcome run(const command_line& command, const std::vector<std::string>& environment = {}, double seconds = 60) {
  using clock = std::chrono::steady_clock;
  const directory scratch;
  const pid_t child = start(command, environment, scratch / "output", scratch / "errors");
  outcome ended;
  int status = 0;
  const auto wait_until = [&](clock::time_point end) {
    while (true) {
      const pid_t found = ::waitpid(child, &status, WNOHANG);
      if (found == child) return true;
      REQUIRE((found == 0 || errno == EINTR));
      if (clock::now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  };
  if (!wait_until(clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(seconds)))) {
    ended.in_time = false;
    ::kill(-child, SIGTERM);  // a launcher ends its ranks
    if (!wait_until(clock::now() + std::chrono::seconds(5))) {
      ::kill(-child, SIGKILL);
      ::waitpid(child, &status, 0);
    }
  }
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  ended.output = read_file(scratch / "output");
  ended.errors = read_file(scratch / "errors");
  return ended;
}

/// The program and its arguments, for `run`.
inline command_line llama(const command_line& arguments) { return command_line{LLAMA_PROGRAM} + arguments; }

/// What it printed on standard output; a failed check where it did not end well.
inline std::string output_of(const command_line& command, double seconds = 60) {
  const outcome ended = run(command, {}, seconds);
  INFO(ended.errors);
  CHECK(ended.in_time);
  CHECK(ended.status == 0);
  return ended.output;
}

/// The one message of a program that refuses: not a signal, nothing on standard output, one line from the program.
inline std::string refusal_of(const command_line& command, const std::vector<std::string>& environment = {}) {
  const outcome ended = run(command, environment);
  INFO(ended.errors);
  CHECK(ended.in_time);
  CHECK(ended.status > 0);
  CHECK(ended.status < 128);
  CHECK(ended.output.empty());
  std::istringstream lines(ended.errors);
  std::string line;
  int own = 0;
  while (std::getline(lines, line)) own += !line.empty() && !contains(line, "Run with --help");
  CHECK(own == 1);
  return ended.errors;
}

/// T x P x D.
struct mesh {
  int tensor, pipeline, data;

  int ranks() const { return tensor * pipeline * data; }
  std::string name() const {
    return std::to_string(tensor) + "x" + std::to_string(pipeline) + "x" + std::to_string(data);
  }
  command_line arguments() const {
    return {"--tensor", std::to_string(tensor), "--pipeline", std::to_string(pipeline), "--data", std::to_string(data)};
  }
};

using token_list = std::vector<int>;

/// "1,2,3"
inline std::string text_of(const token_list& tokens) {
  std::string text;
  for (int id : tokens) {
    if (!text.empty()) text += ',';
    text += std::to_string(id);
  }
  return text;
}

/// A line for each list.
inline std::string lines_of(const std::vector<token_list>& lists) {
  std::string text;
  for (const token_list& list : lists) text += text_of(list) + "\n";
  return text;
}

}  // namespace llama_test
