// A regular file opened for reading. Contents come by pread into memory the caller owns, never by mmap: pages of a
// mapped file that is cut short read as zeros or raise SIGBUS, while a short pread is an error that can be reported.
#pragma once

#include <shardkit/checkpoint/detail/text.hpp>
#include <shardkit/core/error.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

namespace shardkit {
namespace detail {

static_assert(sizeof(std::size_t) == 8, "shardkit: checkpoints need a 64-bit address space");

inline std::string errno_text(int code) { return std::strerror(code); }

/// What tells that a path still leads to the same, unmodified contents.
struct file_identity {
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t modified_seconds = 0, modified_nanoseconds = 0;

  friend bool operator==(const file_identity& a, const file_identity& b) noexcept {
    return a.device == b.device && a.inode == b.inode && a.size == b.size && a.modified_seconds == b.modified_seconds &&
           a.modified_nanoseconds == b.modified_nanoseconds;
  }
};

class file {
 public:
  explicit file(std::string path) : path_(std::move(path)) {
    if (path_.find('\0') != std::string::npos) throw checkpoint_error("a file name contains a NUL character");
    // Without O_NONBLOCK, opening a named pipe waits for a writer for ever.
    descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0) throw checkpoint_error("cannot open " + in_quotes(path_) + ": " + errno_text(errno));
    try {
      identity_ = current_identity();
    } catch (...) {
      ::close(descriptor_);
      throw;
    }
  }
  /// The file whose header was read before: throws where the path leads to other contents by now.
  file(std::string path, const file_identity& known) : file(std::move(path)) { require_unchanged(known); }
  file(const file&) = delete;
  file& operator=(const file&) = delete;
  ~file() { ::close(descriptor_); }

  const std::string& path() const noexcept { return path_; }
  /// Bytes, when the file was opened.
  std::uint64_t size() const noexcept { return identity_.size; }
  const file_identity& identity() const noexcept { return identity_; }

  /// Reads exactly `bytes` from `offset` into `to`.
  void read(std::uint64_t offset, void* to, std::size_t bytes) const {
    std::size_t done = 0;
    while (done < bytes) {
      const ::ssize_t got =
          ::pread(descriptor_, static_cast<char*>(to) + done, bytes - done, static_cast<::off_t>(offset + done));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0)
        throw checkpoint_error("reading " + std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of " +
                               in_quotes(path_) + " failed: " + errno_text(errno));
      if (got == 0)
        throw checkpoint_error(in_quotes(path_) + " ends at byte " + std::to_string(offset + done) + ", it had " +
                               std::to_string(identity_.size) +
                               " bytes when it was opened: it was cut short while being read");
      done += static_cast<std::size_t>(got);
    }
  }

  /// Throws unless the file is, right now, the one that `known` describes.
  void require_unchanged(const file_identity& known) const {
    if (current_identity() == known) return;
    throw checkpoint_error(in_quotes(path_) + " changed since its header was read (it had " +
                           std::to_string(known.size) + " bytes, now " + std::to_string(current_identity().size) +
                           "): open the checkpoint again once nothing writes to it");
  }

 private:
  file_identity current_identity() const {
    struct ::stat found;
    if (::fstat(descriptor_, &found) != 0)
      throw checkpoint_error("cannot examine " + in_quotes(path_) + ": " + errno_text(errno));
    if (!S_ISREG(found.st_mode)) throw checkpoint_error(in_quotes(path_) + " is not a regular file");
    return {static_cast<std::uint64_t>(found.st_dev), static_cast<std::uint64_t>(found.st_ino),
            static_cast<std::uint64_t>(found.st_size), static_cast<std::int64_t>(found.st_mtim.tv_sec),
            static_cast<std::int64_t>(found.st_mtim.tv_nsec)};
  }

  std::string path_;
  int descriptor_ = -1;
  file_identity identity_;
};

}  // namespace detail
}  // namespace shardkit
