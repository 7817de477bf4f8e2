// A bootstrap over a folder that all processes see: no ports, no MPI. For clusters with a shared file system, and as
// the last resort; the slowest of all.
#pragma once

#include <shardkit/comm/deadlines.hpp>
#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/launch/detail/bootstrap_errors.hpp>
#include <shardkit/launch/detail/launch_file.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace shardkit {

/// The token tells this launch from all others that use the folder: files with another token are left alone. A launch
/// that is started again needs a token of its own. What a launch has written is removed when rank 0's object goes,
/// which waits up to the abort deadline for the others to have gone.
class file_bootstrap final : public bootstrap {
 public:
  /// Collective. Throws usage_error where two processes say that they are the same rank, or where sizes or versions
  /// differ, transport_error where the folder cannot be used.
  file_bootstrap(int rank, int size, std::string folder, std::string token, const deadlines& limits = {})
      : rank_(rank), size_(size), limits_(limits), token_(std::move(token)) {
    require_valid(limits);
    detail::require_bootstrap_rank(rank, size);
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : token_) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    char name[32];
    std::snprintf(name, sizeof name, "shardkit-%016llx-", static_cast<unsigned long long>(hash));
    prefix_ = std::move(folder) + "/" + name;
    claim();
    try {
      meet(nullptr);
    } catch (...) {
      // What this launch did not become shall not be in the way of the next attempt.
      for (const std::string& file : {path("here", rank_, 0), path("claim", rank_)}) std::remove(file.c_str());
      throw;
    }
  }
  file_bootstrap(const file_bootstrap&) = delete;
  file_bootstrap& operator=(const file_bootstrap&) = delete;
  ~file_bootstrap() {
    try {
      write(path("gone", rank_), {});
      if (rank_ == 0) clean_up();
    } catch (const std::exception&) {
      // Left-over files do no harm to a launch with another token.
    }
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  blob broadcast(const blob& from_rank_0) override {
    if (rank_ == 0) detail::require_bootstrap_length(from_rank_0.size());
    return meet(&from_rank_0);
  }
  void barrier() override { meet(nullptr); }

 private:
  std::string path(const char* what, int rank) const { return prefix_ + what + "-" + std::to_string(rank); }
  std::string path(const char* what, int rank, int round) const {
    return path(what, rank) + "-" + std::to_string(round);
  }

  [[noreturn]] static void refuse(const std::string& what, const std::string& file) {
    throw transport_error("file_bootstrap: " + what + " " + file + ": " + std::strerror(errno));
  }

  /// Of two processes with the same rank only one can create this file.
  void claim() const {
    const std::string file = path("claim", rank_);
    const int descriptor = ::open(file.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (descriptor >= 0) {
      ::close(descriptor);
      return;
    }
    if (errno != EEXIST) refuse("cannot create", file);
    throw usage_error("file_bootstrap: " + file + " exists: another process says that it is rank " +
                      std::to_string(rank_) +
                      ", or an earlier launch with the same token ended badly; give each process "
                      "a rank and each launch a token of its own, or remove the file");
  }

  /// A file that is there is whole: it is written under another name first.
  void write(const std::string& file, const blob& payload) const {
    const std::string fresh = file + ".new";
    std::string bytes = detail::launch_file_header(size_, token_);
    bytes.append(payload.data(), payload.size());
    std::FILE* out = std::fopen(fresh.c_str(), "wb");
    if (out == nullptr) refuse("cannot create", fresh);
    const bool written = std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size();
    if (std::fclose(out) != 0 || !written || std::rename(fresh.c_str(), file.c_str()) != 0)
      refuse("cannot write", file);
  }

  /// False where the file is not there yet.
  bool read(const std::string& file, blob& payload) const {
    std::FILE* in = std::fopen(file.c_str(), "rb");
    if (in == nullptr) {
      if (errno == ENOENT || errno == ESTALE) return false;
      refuse("cannot read", file);
    }
    const bool good = detail::read_launch_file(in, detail::launch_file_header(size_, token_), payload);
    std::fclose(in);
    if (good) return true;
    const auto end = std::find(payload.begin(), payload.end(), '\n');
    throw usage_error("file_bootstrap: " + file + " is of another launch: it begins '" +
                      std::string(payload.begin(), end).substr(0, 60) + "', expected was version " +
                      std::to_string(detail::launch_file_version) + " and size " + std::to_string(size_) +
                      "; start all ranks with the same size, token and version of shardkit");
  }

  /// All ranks leave a file for this round and wait for everybody's; rank 0's holds the blob.
  blob meet(const blob* given) {
    const int round = round_++;
    blob result, found;
    if (rank_ == 0 && given != nullptr) result = *given;
    write(path("here", rank_, round), result);
    std::vector<int> missing;
    for (int peer = 0; peer < size_; ++peer)
      if (peer != rank_) missing.push_back(peer);
    const double end = detail::now_seconds() + limits_.init;
    for (double pause = 0.001;; pause = std::min(0.05, pause * 1.3)) {
      missing.erase(std::remove_if(missing.begin(), missing.end(),
                                   [&, this](int peer) {
                                     if (!read(path("here", peer, round), found)) return false;
                                     if (peer == 0) result = found;
                                     return true;
                                   }),
                    missing.end());
      if (missing.empty()) break;
      if (detail::now_seconds() > end) throw timeout_error(detail::absent_ranks(missing, size_, limits_.init));
      detail::sleep_seconds(pause);
    }
    // Who is here has seen everybody in the round before.
    if (round > 0) std::remove(path("here", rank_, round - 1).c_str());
    return result;
  }

  void clean_up() const {
    blob unused;
    const double end = detail::now_seconds() + limits_.abort;
    for (int peer = 1; peer < size_; ++peer)
      while (!read(path("gone", peer), unused) && detail::now_seconds() < end) detail::sleep_seconds(0.002);
    for (int peer = 0; peer < size_; ++peer) {
      for (const char* what : {"claim", "gone"}) std::remove(path(what, peer).c_str());
      for (int round = round_ - 1; round >= 0 && round >= round_ - 2; --round)
        std::remove(path("here", peer, round).c_str());
    }
  }

  const int rank_, size_;
  const deadlines limits_;
  const std::string token_;
  std::string prefix_;
  int round_ = 0;
};

}  // namespace shardkit
