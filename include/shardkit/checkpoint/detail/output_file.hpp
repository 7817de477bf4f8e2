// A file that appears under its name when it is complete, or not at all.
#pragma once

#include <shardkit/checkpoint/detail/file.hpp>
#include <shardkit/checkpoint/detail/text.hpp>
#include <shardkit/core/error.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>

namespace shardkit {
namespace detail {

class output_file {
 public:
  /// Creates path + ".partial-" + process id, in the same directory so that it can be renamed.
  explicit output_file(std::string path)
      : path_(std::move(path)), partial_(path_ + ".partial-" + std::to_string(::getpid())) {
    descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail("cannot create", partial_);
  }
  output_file(const output_file&) = delete;
  output_file& operator=(const output_file&) = delete;
  ~output_file() {
    if (descriptor_ >= 0) ::close(descriptor_);
    if (!committed_) ::unlink(partial_.c_str());
  }

  void append(const void* data, std::size_t bytes) {
    std::size_t done = 0;
    while (done < bytes) {
      const ::ssize_t put = ::write(descriptor_, static_cast<const char*>(data) + done, bytes - done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail("cannot write", partial_);
      done += static_cast<std::size_t>(put);
    }
  }

  /// Renames to the final name, once the bytes are on the disk: after a crash the name leads to all of them, or to
  /// what it led to before.
  void commit() {
    if (::fsync(descriptor_) != 0) fail("cannot flush", partial_);
    if (::close(std::exchange(descriptor_, -1)) != 0) fail("cannot close", partial_);
    if (std::rename(partial_.c_str(), path_.c_str()) != 0) fail("cannot rename to", path_);
    committed_ = true;
  }

 private:
  [[noreturn]] static void fail(const char* what, const std::string& path) {
    const int code = errno;
    throw checkpoint_error(std::string(what) + " " + in_quotes(path) + ": " + errno_text(code));
  }

  std::string path_, partial_;
  int descriptor_ = -1;
  bool committed_ = false;
};

}  // namespace detail
}  // namespace shardkit
