// JSON from a range of a file, event by event. Neither the text nor a tree of it is ever held as a whole: a hostile
// header may have 100 MB, and a tree would take several times that.
#pragma once

#include <shardkit/checkpoint/detail/file.hpp>

#if !__has_include(<nlohmann/json.hpp>)
#error "shardkit: this needs nlohmann-json; link shardkit::checkpoint, or install nlohmann-json3-dev"
#endif
#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

namespace shardkit {
namespace detail {

/// Bytes [offset, offset + bytes) of a file as a single-pass range of characters.
class file_text {
 public:
  class iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = char;

    explicit iterator(file_text* text) noexcept : text_(text) {}
    char operator*() const noexcept { return *text_->next_; }
    iterator& operator++() {
      if (++text_->next_ == text_->end_) text_->refill();
      return *this;
    }
    iterator operator++(int) {
      iterator before = *this;
      ++*this;
      return before;
    }
    friend bool operator==(const iterator& a, const iterator& b) noexcept { return a.at_end() == b.at_end(); }
    friend bool operator!=(const iterator& a, const iterator& b) noexcept { return !(a == b); }

   private:
    bool at_end() const noexcept { return text_ == nullptr || text_->next_ == text_->end_; }
    file_text* text_;
  };

  file_text(const file& from, std::uint64_t offset, std::uint64_t bytes)
      : from_(from), offset_(offset), left_(bytes), window_(new char[window_bytes]) {
    refill();
  }
  iterator begin() noexcept { return iterator(this); }
  iterator end() noexcept { return iterator(nullptr); }

 private:
  static constexpr std::size_t window_bytes = 64 * 1024;

  void refill() {
    const std::size_t bytes = left_ < window_bytes ? static_cast<std::size_t>(left_) : window_bytes;
    from_.read(offset_, window_.get(), bytes);
    // The JSON library takes NUL for the end of its input and would accept anything after it.
    if (bytes != 0 && std::memchr(window_.get(), 0, bytes) != nullptr)
      throw checkpoint_error(in_quotes(from_.path()) + ": the JSON text contains a NUL character");
    next_ = window_.get();
    end_ = next_ + bytes;
    offset_ += bytes;
    left_ -= bytes;
  }

  const file& from_;
  std::uint64_t offset_, left_;
  std::unique_ptr<char[]> window_;
  const char* next_ = nullptr;
  const char* end_ = nullptr;
};

/// Base of a reader of JSON events: refuses whatever the derived reader does not take. Shadow the events wanted;
/// each returns true, and throws by refuse() where the text is wrong.
class json_events {
 public:
  /// `subject` begins every message: "'model.safetensors' is not a valid safetensors file".
  explicit json_events(std::string subject) : subject_(std::move(subject)) {}

  bool null() { refuse("null where it does not belong"); }
  bool boolean(bool) { refuse("true or false where it does not belong"); }
  bool number_integer(nlohmann::json::number_integer_t) { refuse("a negative number where it does not belong"); }
  bool number_unsigned(nlohmann::json::number_unsigned_t) { refuse("a number where it does not belong"); }
  bool number_float(nlohmann::json::number_float_t, const std::string& text) {
    refuse("number " + printable(text, 40) + " is not a 64-bit unsigned integer");
  }
  bool string(std::string& text) { refuse("string " + in_quotes(text) + " where it does not belong"); }
  bool binary(nlohmann::json::binary_t&) { refuse("binary data where it does not belong"); }
  bool start_object(std::size_t) { refuse("an object where it does not belong"); }
  bool key(std::string& text) { refuse("key " + in_quotes(text) + " where it does not belong"); }
  bool end_object() { refuse("the end of an object where it does not belong"); }
  bool start_array(std::size_t) { refuse("an array where it does not belong"); }
  bool end_array() { refuse("the end of an array where it does not belong"); }
  template <class Exception>
  bool parse_error(std::size_t position, const std::string&, const Exception& cause) {
    const std::string why = printable(cause.what(), 240);
    refuse("byte " + std::to_string(position) + " of the JSON text: " + why);
  }

  [[noreturn]] void refuse(const std::string& why) const { throw checkpoint_error(subject_ + ": " + why); }

 private:
  std::string subject_;
};

/// Sends the events of the JSON text in bytes [offset, offset + bytes) to `reader`.
template <class Reader>
void read_json(const file& from, std::uint64_t offset, std::uint64_t bytes, Reader& reader) {
  file_text text(from, offset, bytes);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
}

}  // namespace detail
}  // namespace shardkit
