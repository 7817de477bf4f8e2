// Reads the parts of a load plan from one file after another into the arena, or what leads there.
#pragma once

#include <shardkit/checkpoint/convert.hpp>
#include <shardkit/checkpoint/detail/file.hpp>
#include <shardkit/checkpoint/detail/strided_source.hpp>
#include <shardkit/core/view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <string>

namespace shardkit {

/// What load did on this rank.
struct load_report {
  std::uint64_t bytes_read = 0;    ///< from files; more than was needed where short runs were read with their gaps
  std::uint64_t bytes_loaded = 0;  ///< into the arena, without padding between slots
};

struct load_options {
  /// Called with the arena bytes loaded so far and in all, every few MiB and at the end. May throw to give up.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = {};
  /// Called in place of convert_elements for every block of every tensor, in order of its elements.
  std::function<void(const element_block&)> transform = {};
};

namespace detail {

/// A slice of one stored tensor and where it goes.
struct plan_part {
  std::string name;
  strided_source source;
  dtype stored, wanted;
  std::size_t destination;  // bytes from the beginning of the arena
};

/// The arena, in memory that the loader writes itself.
class arena_destination {
 public:
  explicit arena_destination(std::byte* arena) noexcept : arena_(arena) {}

  /// A part begins at this byte of the arena.
  void begin(std::size_t offset) noexcept { next_ = arena_ + offset; }
  /// Where its next bytes go: room for at least so many.
  view<std::byte> room(std::size_t) const noexcept { return {next_, std::numeric_limits<std::size_t>::max()}; }
  /// So many bytes have been written there.
  void written(std::size_t bytes) noexcept { next_ += bytes; }

 private:
  std::byte* arena_;
  std::byte* next_ = nullptr;
};

template <class Destination>
class part_loader {
 public:
  part_loader(Destination& to, view<std::byte> staging, const load_options& options, std::uint64_t total)
      : to_(to), staging_(staging), options_(options), total_(total) {}

  void load(const file& from, const plan_part& part) {
    const bool converts = options_.transform || part.stored != part.wanted || part.stored == dtype::boolean;
    const std::size_t element = size_of(part.stored);
    const std::uint64_t capacity = std::min<std::uint64_t>(staging_.size(), window_bytes) / element * element;
    to_.begin(part.destination);
    for (run_cursor at(part.source); !at.done();) {
      const std::uint64_t begin = at.position();
      run_cursor after = at;
      std::uint64_t end = begin;
      const std::size_t runs = extend(after, end, begin + capacity, converts ? capacity : short_run);
      if (runs == 1 && !converts) {
        const view<std::byte> to = to_.room(1);
        const std::uint64_t bytes = std::min({at.remaining(), direct_bytes, std::uint64_t{to.size()}});
        read(from, begin, to.data(), bytes);
        at.advance(bytes);
        loaded(bytes);
        continue;
      }
      read(from, begin, staging_.data(), end - begin);
      while (at.walked() < after.walked()) {
        const view<std::byte> to = to_.room(size_of(part.wanted));
        const std::uint64_t read = std::min(at.remaining(), after.walked() - at.walked()) / element;
        const std::uint64_t count = std::min<std::uint64_t>(read, to.size() / size_of(part.wanted));
        const std::byte* piece = staging_.data() + (at.position() - begin);
        const element_block block{part.name, part.stored, part.wanted, count, piece, to.data()};
        if (options_.transform) options_.transform(block);
        else convert_elements(block);
        at.advance(count * element);
        loaded(count * size_of(part.wanted));
      }
    }
  }

  const load_report& report() const noexcept { return report_; }

 private:
  // Short runs with short gaps between them are read in one piece. Measured: from a cold disk, skipping gaps of 4 to
  // 24 KiB takes two to three times as long as reading them, because it defeats read-ahead; from the page cache,
  // reading gaps is faster up to 12 KiB and little slower up to 32 KiB.
  static constexpr std::uint64_t widest_gap = 32 * 1024, short_run = 64 * 1024;
  static constexpr std::uint64_t window_bytes = 1024 * 1024;  // converted while still in the cache
  static constexpr std::uint64_t direct_bytes = 8 * 1024 * 1024;
  static constexpr std::uint64_t progress_bytes = 4 * 1024 * 1024;

  // Moves `after` past the runs that one read takes, `end` to where it ends. Returns how many runs that are.
  static std::size_t extend(run_cursor& after, std::uint64_t& end, std::uint64_t limit, std::uint64_t longest) {
    std::size_t runs = 0;
    while (!after.done()) {
      const std::uint64_t next = after.position();
      if (next >= limit) break;
      if (runs > 0 && (next < end || next - end > widest_gap || after.remaining() > longest)) break;
      const std::uint64_t whole = after.remaining(), bytes = std::min(whole, limit - next);
      ++runs;
      end = next + bytes;
      after.advance(bytes);
      if (bytes < whole || whole > longest) break;
    }
    return runs;
  }

  void read(const file& from, std::uint64_t offset, void* to, std::uint64_t bytes) {
    from.read(offset, to, static_cast<std::size_t>(bytes));
    report_.bytes_read += bytes;
  }
  void loaded(std::uint64_t bytes) {
    to_.written(static_cast<std::size_t>(bytes));
    report_.bytes_loaded += bytes;
    if (!options_.progress) return;
    if (report_.bytes_loaded - told_ < progress_bytes && report_.bytes_loaded != total_) return;
    told_ = report_.bytes_loaded;
    options_.progress(report_.bytes_loaded, total_);
  }

  Destination& to_;
  view<std::byte> staging_;
  const load_options& options_;
  std::uint64_t total_, told_ = 0;
  load_report report_;
};

}  // namespace detail
}  // namespace shardkit
