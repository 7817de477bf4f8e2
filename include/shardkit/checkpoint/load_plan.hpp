// What one rank keeps of a checkpoint: which tensors or slices of them, as which type, and where in the engine's own
// arena. Building the plan checks names and shapes; loading reads only this rank's bytes.
//
//   load_plan plan(weights, comm.rank(), comm.size());
//   const auto up = plan.add("up_proj.weight", {inner, hidden}, rows(cut), dtype::f32);
//   const auto down = plan.add("down_proj.weight", {hidden, inner}, columns(cut), dtype::f32);
//   const auto qkv = plan.add_packed({{"q.weight", {q, hidden}, rows(q_cut)}, {"k.weight", {kv, hidden}, rows(kv_cut)},
//                                     {"v.weight", {kv, hidden}, rows(kv_cut)}}, dtype::f32);
//   buffer<std::byte> arena(plan.bytes()), staging(1 << 20);
//   plan.load(comm, arena, staging);
//   matrix_view<float> w = up.matrix_in<float>(arena);
//
// For memory of a GPU, see device_ring.hpp.
#pragma once

#include <shardkit/checkpoint/all_or_none.hpp>
#include <shardkit/checkpoint/archive.hpp>
#include <shardkit/checkpoint/detail/part_loader.hpp>
#include <shardkit/checkpoint/slice.hpp>
#include <shardkit/comm/in_place.hpp>
#include <shardkit/core/at.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// Where a planned tensor lies in the arena, and what it is there.
struct arena_slot {
  dtype type = dtype::u8;          ///< in the arena
  std::vector<std::size_t> shape;  ///< of this rank's part
  std::size_t offset = 0;          ///< bytes from the beginning of the arena
  std::size_t bytes = 0;           ///< of its elements

  /// Its elements. Throws usage_error where T is another type, or the arena is too small.
  template <class T, class Arena>
  auto view_in(Arena&& arena) const {
    auto bytes_of_arena = detail::as_view(arena);
    using space = typename decltype(bytes_of_arena)::space;
    if (dtype_of<T> != type)
      throw usage_error(std::string("the slot holds ") + name_of(type) + ", not " + name_of(dtype_of<T>));
    if (bytes_of_arena.bytes() < offset + bytes)
      throw usage_error("the arena has " + std::to_string(bytes_of_arena.bytes()) + " bytes, the slot ends at " +
                        std::to_string(offset + bytes));
    return view<T, space>(reinterpret_cast<T*>(bytes_of_arena.data() + offset), bytes / sizeof(T));
  }
  /// As a matrix: the first dimension by the product of the others. One dimension is one row.
  template <class T, class Arena>
  auto matrix_in(Arena&& arena) const {
    const auto elements = view_in<T>(arena);
    const std::size_t row_count = shape.size() < 2 ? 1 : shape[0];
    std::size_t columns = 1;
    for (std::size_t d = shape.size() < 2 ? 0 : 1; d < shape.size(); ++d) columns *= shape[d];
    return matrix_view<T, typename decltype(elements)::space>(elements.data(), row_count, columns);
  }
};

/// A stored tensor, the shape it must have there, and the slice of it to keep.
struct tensor_part {
  std::string name;                ///< in the archive
  std::vector<std::size_t> shape;  ///< of the whole tensor, as the engine expects it
  slice kept;                      ///< what this rank reads
};

/// One rank's part of a checkpoint; see the top of this file.
class load_plan {
 public:
  /// The least staging that load works with; 1 MiB is enough for full speed.
  static constexpr std::size_t least_staging = 4096;

  /// For `rank` of the `size` ranks among which the slices' partitions divide. Slots begin at multiples of
  /// `alignment`, a power of two.
  load_plan(archive from, int rank, int size, std::size_t alignment = host_space::alignment)
      : from_(std::move(from)), rank_(rank), size_(size), alignment_(alignment) {
    if (rank < 0 || rank >= size)
      throw usage_error("load_plan: rank " + std::to_string(rank) + " is not one of " + std::to_string(size));
    if (alignment == 0 || (alignment & (alignment - 1)) != 0)
      throw usage_error("load_plan: the alignment " + std::to_string(alignment) + " is not a power of two");
  }

  /// Plans one tensor, or a slice of it; kept as `type`, or as stored. Throws checkpoint_error where the checkpoint
  /// lacks it or holds another shape, usage_error where the slice does not fit.
  arena_slot add(std::string name, std::vector<std::size_t> shape, slice kept = {}, std::optional<dtype> type = {},
                 call_site site = call_site::current()) {
    return add_packed({{std::move(name), std::move(shape), std::move(kept)}}, type, site);
  }

  /// Plans several tensors one after the other in one slot, concatenated along the first dimension; the others must
  /// agree once sliced. Without `type`, all must be stored alike.
  arena_slot add_packed(const std::vector<tensor_part>& parts, std::optional<dtype> type = {},
                        call_site site = call_site::current()) {
    try {
      return place(parts, type);
    } catch (error& failure) {
      failure.attach({rank_, size_, {}, "load_plan::add", 0, site});
      throw;
    }
  }

  /// Bytes of arena that the slots take, padding between them included.
  std::size_t bytes() const noexcept { return end_; }

  /// Reads everything planned into `arena` (at least bytes() bytes, aligned as promised). `staging` (at least
  /// least_staging bytes, contents lost) serves conversions and short strided runs; nothing of the tensors' size is
  /// allocated. Throws usage_error before anything is read, or checkpoint_error where a file changed or a read
  /// failed; the arena's contents are then unspecified.
  template <class Arena, class Staging>
  load_report load(Arena&& arena, Staging&& staging, const load_options& options = {}) const {
    const view<std::byte> to = detail::output_of<host_space>(std::forward<Arena>(arena));
    const view<std::byte> through = detail::output_of<host_space>(staging);
    require_arena(to);
    if (to.data() < through.end() && through.data() < to.end()) refuse("the staging buffer overlaps the arena");
    detail::arena_destination destination(to.data());
    return run(destination, through, options);
  }

  /// The same into the memory of a device, through a ring of pinned memory (checkpoint/device_ring.hpp): the next piece
  /// is read while the former is copied. On return everything has been enqueued on the stream, and nothing more is read
  /// from files; what follows on the stream sees the arena loaded.
  template <class Arena, class Ring>
  load_report load(Arena&& arena, Ring& ring, at<typename Ring::device_space> where,
                   const load_options& options = {}) const {
    const auto to = detail::output_of<typename Ring::device_space>(std::forward<Arena>(arena));
    require_arena(to);
    return ring.fill(to.data(), where, [&, this](auto& destination, view<std::byte> staging) {
      return this->run(destination, staging, options);
    });
  }

  /// Collective: every rank loads its own plan. Where any fails, all throw checkpoint_error with the same text, which
  /// names the ranks and causes.
  template <class Communicator, class Arena, class Staging>
  requires requires { typename Communicator::where; }
  load_report load(Communicator& comm, Arena&& arena, Staging&& staging, const load_options& options = {},
                   call_site site = call_site::current()) const {
    return all_or_none(
        comm, "loading the checkpoint " + detail::in_quotes(from_.path()),
        [&, this] { return load(arena, staging, options); }, site);
  }
  /// The same into the memory of a device.
  template <class Communicator, class Arena, class Ring>
  requires requires { typename Communicator::where; }
  load_report load(Communicator& comm, Arena&& arena, Ring& ring, at<typename Ring::device_space> where,
                   const load_options& options = {}) const {
    return all_or_none(
        comm, "loading the checkpoint " + detail::in_quotes(from_.path()),
        [&, this] { return load(arena, ring, where, options); }, where.site);
  }

 private:
  arena_slot place(const std::vector<tensor_part>& parts, std::optional<dtype> type) {
    if (parts.empty()) throw usage_error("nothing to pack: name at least one tensor");
    std::vector<detail::plan_part> placed;
    arena_slot slot;
    for (const tensor_part& part : parts) {
      const tensor_info stored = from_.tensor(part.name);
      if (stored.shape != part.shape)
        throw checkpoint_error("tensor " + detail::in_quotes(part.name) + " of " + detail::in_quotes(from_.path()) +
                               " has shape " + detail::shape_text(stored.shape) + ", expected " +
                               detail::shape_text(part.shape));
      const slice::resolved cut = part.kept.resolve(part.name, stored.shape, rank_, size_);
      std::vector<std::size_t> shape = stored.shape;
      if (!shape.empty()) shape[cut.dimension] = 0;
      for (const index_range& range : cut.ranges) shape[cut.dimension] += range.count;
      if (placed.empty()) {
        slot.type = type.value_or(stored.type);
        slot.shape = std::move(shape);
        slot.offset = (end_ + alignment_ - 1) / alignment_ * alignment_;
      } else {
        append(slot, part.name, shape, type.value_or(stored.type));
      }
      placed.push_back({part.name, detail::source_of(stored, cut), stored.type, slot.type, slot.offset + slot.bytes});
      const std::uint64_t elements = placed.back().source.bytes() / size_of(stored.type);
      if (elements > (std::numeric_limits<std::size_t>::max() / 2 - slot.offset - slot.bytes) / size_of(slot.type))
        throw usage_error("tensor " + detail::in_quotes(part.name) + " makes the arena larger than memory can be");
      slot.bytes += elements * size_of(slot.type);
    }
    end_ = slot.offset + slot.bytes;
    loaded_bytes_ += slot.bytes;
    parts_.insert(parts_.end(), std::make_move_iterator(placed.begin()), std::make_move_iterator(placed.end()));
    return slot;
  }

  static void append(arena_slot& slot, const std::string& name, const std::vector<std::size_t>& shape, dtype type) {
    if (type != slot.type)
      throw usage_error("tensor " + detail::in_quotes(name) + " is stored as " + name_of(type) +
                        ", the one it is packed with as " + name_of(slot.type) + ": say which type to keep them as");
    const bool fits = !shape.empty() && shape.size() == slot.shape.size() &&
                      std::equal(shape.begin() + 1, shape.end(), slot.shape.begin() + 1);
    if (!fits)
      throw usage_error("tensor " + detail::in_quotes(name) + ", sliced to " + detail::shape_text(shape) +
                        ", cannot follow one of " + detail::shape_text(slot.shape) +
                        ": all dimensions but the first must agree");
    slot.shape[0] += shape[0];
  }

  [[noreturn]] void refuse(const std::string& why) const {
    usage_error wrong(why);
    wrong.attach({rank_, size_, {}, "load_plan::load", 0, {}});
    throw wrong;
  }
  template <class Space>
  void require_arena(view<std::byte, Space> arena) const {
    if (arena.size() < bytes())
      refuse("the arena has " + std::to_string(arena.size()) + " bytes, the plan needs " + std::to_string(bytes()));
    if (reinterpret_cast<std::uintptr_t>(arena.data()) % alignment_ != 0)
      refuse("the arena is not aligned to " + std::to_string(alignment_) + " bytes, as the plan was told");
  }

  template <class Destination>
  load_report run(Destination& destination, view<std::byte> staging, const load_options& options) const {
    if (staging.size() < least_staging)
      refuse("the staging buffer has " + std::to_string(staging.size()) + " bytes, it needs " +
             std::to_string(least_staging));
    if (!options.transform)  // each conversion tried on nothing, before anything is read
      for (const detail::plan_part& part : parts_)
        convert_elements({part.name, part.stored, part.wanted, 0, nullptr, nullptr});

    // In the order of the files and of their bytes, whatever the order of the slots.
    std::vector<const detail::plan_part*> order;
    for (const detail::plan_part& part : parts_) order.push_back(&part);
    std::sort(order.begin(), order.end(), [](const detail::plan_part* a, const detail::plan_part* b) {
      return a->source.file != b->source.file ? a->source.file < b->source.file : a->source.begin < b->source.begin;
    });
    detail::part_loader loader(destination, staging, options, loaded_bytes_);
    for (std::size_t first = 0, next = 0; first < order.size(); first = next) {
      const std::size_t number = order[first]->source.file;
      const detail::file from(from_.file(number), from_.identity(number));
      for (; next < order.size() && order[next]->source.file == number; ++next) loader.load(from, *order[next]);
      from.require_unchanged(from_.identity(number));
    }
    return loader.report();
  }

  archive from_;
  int rank_, size_;
  std::size_t alignment_;
  std::size_t end_ = 0;  // of the last slot
  std::uint64_t loaded_bytes_ = 0;
  std::vector<detail::plan_part> parts_;
};

}  // namespace shardkit
