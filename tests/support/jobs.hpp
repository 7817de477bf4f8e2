// Programs run from a test and judged from outside. Several run at once, since they mostly wait.
#pragma once

#include <support/temporary_folder.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>

namespace shardkit_test {

struct outcome {
  int status = -1;  ///< of the shell: 128 and the signal where one ended the program, 124 where it did not end in 50 s
  double seconds = 0;
  std::string output;  ///< standard output and standard error

  bool says(const std::string& text) const { return output.find(text) != std::string::npos; }
};

inline outcome run_command(const std::string& command) {
  const auto start = std::chrono::steady_clock::now();
  // Open MPI's jobs put their files into a folder that all jobs of a user share; the last to leave removes it, also
  // where another is about to use it.
  const temporary_folder own;
  // Should it hang after all, it is not left behind.
  std::FILE* pipe = ::popen(("TMPDIR=" + own.path() + " timeout -k 5 50 " + command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen failed");
  std::string output;
  char text[4096];
  while (const std::size_t length = std::fread(text, 1, sizeof text, pipe)) output.append(text, length);
  const int status = ::pclose(pipe);
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), passed.count(), output};
}

/// A command that some test case of the program will ask about. All are started together, some at a time, when the
/// first one is asked for.
class job {
 public:
  explicit job(std::string command) : command_(std::move(command)) { all().push_back(this); }
  job(const job&) = delete;
  job& operator=(const job&) = delete;

  const outcome& result() {
    static const workers started;
    std::unique_lock<std::mutex> lock(mutex());
    while (!done_) {
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      lock.lock();
    }
    return result_;
  }

 private:
  static constexpr std::size_t at_once = 6;

  struct workers {
    workers() {
      for (std::size_t i = 0; i < std::min(at_once, all().size()); ++i)
        threads.emplace_back([] {
          for (;;) {
            job* next = nullptr;
            {
              const std::lock_guard<std::mutex> lock(mutex());
              if (all().empty()) return;
              next = all().front();
              all().pop_front();
            }
            outcome result = run_command(next->command_);
            const std::lock_guard<std::mutex> lock(mutex());
            next->result_ = std::move(result);
            next->done_ = true;
          }
        });
    }
    ~workers() {
      for (auto& thread : threads) thread.join();
    }
    std::vector<std::thread> threads;
  };

  static std::deque<job*>& all() {
    static std::deque<job*> jobs;
    return jobs;
  }
  static std::mutex& mutex() {
    static std::mutex only;
    return only;
  }

  const std::string command_;
  outcome result_;
  bool done_ = false;
};

}  // namespace shardkit_test
