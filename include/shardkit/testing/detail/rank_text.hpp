// What one rank's doctest prints: kept until all ranks can print in order, each line tagged with its rank.
#pragma once

#include <cstddef>
#include <cstdio>
#include <mutex>
#include <streambuf>
#include <string>

namespace shardkit::testing::detail {

class rank_text : public std::streambuf {
 public:
  explicit rank_text(int rank) : tag_("[rank " + std::to_string(rank) + "] ") {}

  /// All lines so far, tagged. They stay until `forget`.
  std::string lines() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return tag_locked();
  }
  void forget() {
    const std::lock_guard<std::mutex> lock(mutex_);
    tagged_.clear();
    text_.clear();
  }
  /// Writes what is there and all that follows to standard error: this rank is in trouble.
  void write_through() {
    const std::lock_guard<std::mutex> lock(mutex_);
    through_ = true;
    write();
  }
  /// Nothing that follows is shown.
  void mute() {
    const std::lock_guard<std::mutex> lock(mutex_);
    muted_ = true;
  }

 protected:
  int_type overflow(int_type character) override {
    const char text = traits_type::to_char_type(character);
    return xsputn(&text, 1) == 1 ? character : traits_type::eof();
  }
  std::streamsize xsputn(const char* text, std::streamsize length) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (muted_) return length;
    text_.append(text, static_cast<std::size_t>(length));
    if (through_ && text_.find('\n') != std::string::npos) write();
    return length;
  }

 private:
  const std::string& tag_locked() {
    for (std::size_t begin = 0; begin < text_.size();) {
      std::size_t end = text_.find('\n', begin);
      if (end == std::string::npos) end = text_.size();
      tagged_ += tag_ + text_.substr(begin, end - begin) + "\n";
      begin = end + 1;
    }
    text_.clear();
    return tagged_;
  }
  // In one call, so that the launcher does not mix the ranks' lines.
  void write() {
    tag_locked();
    std::fwrite(tagged_.data(), 1, tagged_.size(), stderr);
    std::fflush(stderr);
    tagged_.clear();
  }

  std::mutex mutex_;
  std::string tag_;
  std::string text_, tagged_;
  bool through_ = false, muted_ = false;
};

}  // namespace shardkit::testing::detail
