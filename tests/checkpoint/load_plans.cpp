// What each rank loads, against a model that picks elements of the whole tensor one by one.
#include "files.hpp"

#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/checkpoint/safetensors_writer.hpp>
#include <shardkit/core/buffer.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

using files::contains;
using files::message_of;
using namespace shardkit;

namespace {

using shape = std::vector<std::size_t>;
using indices = std::vector<std::size_t>;

std::size_t product(const shape& extents) {
  return std::accumulate(extents.begin(), extents.end(), std::size_t{1}, std::multiplies<>());
}

// Items dealt to ranks: the first ones get the remainder.
indices share(std::size_t total, int size, int rank, std::size_t first = 0) {
  std::vector<std::size_t> counts(static_cast<std::size_t>(size), 0);
  for (std::size_t i = 0; i < total; ++i) ++counts[i % counts.size()];
  indices mine;
  std::size_t next = first;
  for (std::size_t r = 0; r < counts.size(); ++r)
    for (std::size_t i = 0; i < counts[r]; ++i, ++next)
      if (r == static_cast<std::size_t>(rank)) mine.push_back(next);
  return mine;
}

indices operator+(indices a, const indices& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Flat indices of the elements whose coordinate along `dimension` is picked, in the order of `picked`.
indices select(const shape& extents, std::size_t dimension, const indices& picked) {
  std::size_t outer = 1, inner = 1;
  for (std::size_t d = 0; d < extents.size(); ++d)
    (d < dimension ? outer : d > dimension ? inner : outer) *= d == dimension ? 1 : extents[d];
  indices flat;
  for (std::size_t o = 0; o < outer; ++o)
    for (const std::size_t i : picked)
      for (std::size_t k = 0; k < inner; ++k) flat.push_back((o * extents[dimension] + i) * inner + k);
  return flat;
}

// One tensor of numbers 0, 1, 2, ... as i32, or as bf16 with those bits.
std::string numbered(const files::directory& folder, const std::string& name, dtype type, const shape& extents) {
  const std::string path = folder / (name + ".safetensors");
  std::filesystem::remove(path);
  safetensors_writer out(path, {{name, type, extents}});
  std::vector<std::int32_t> wide(product(extents));
  std::iota(wide.begin(), wide.end(), 0);
  std::vector<bfloat16> narrow;
  for (const std::int32_t i : wide) narrow.push_back(bfloat16::from_bits(static_cast<std::uint16_t>(i % 0x7f80)));
  if (type == dtype::bf16) out.write(narrow);
  else out.write(wide);
  out.commit();
  return path;
}

buffer<std::byte> staging(std::size_t bytes = load_plan::least_staging) { return buffer<std::byte>(bytes); }

struct cut_case {
  std::string why;
  std::function<bool(const shape&)> applies;
  std::function<slice(const shape&, int size)> kept;
  std::function<std::size_t(const shape&)> dimension;
  std::function<indices(const shape&, int size, int rank)> picked;
};

const auto always = [](const shape&) { return true; };
const auto has_columns = [](const shape& s) { return s.size() >= 2; };
const auto first = [](const shape&) { return std::size_t{0}; };
const auto last = [](const shape& s) { return s.size() - 1; };

// A dimension in two segments, the first of a third of the items.
std::size_t third(std::size_t extent) { return extent / 3; }

const std::vector<cut_case> cuts = {
    {"whole", always, [](const shape&, int) { return whole(); }, first,
     [](const shape& s, int, int) { return share(s[0], 1, 0); }},
    {"rows", always, [](const shape& s, int size) { return rows(partition::balanced(s[0], size)); }, first,
     [](const shape& s, int size, int rank) { return share(s[0], size, rank); }},
    {"columns", has_columns, [](const shape& s, int size) { return columns(partition::balanced(s.back(), size)); },
     last, [](const shape& s, int size, int rank) { return share(s.back(), size, rank); }},
    {"row segments", always,
     [](const shape& s, int size) {
       return rows({partition::balanced(third(s[0]), size), partition::balanced(s[0] - third(s[0]), size)});
     },
     first,
     [](const shape& s, int size, int rank) {
       return share(third(s[0]), size, rank) + share(s[0] - third(s[0]), size, rank, third(s[0]));
     }},
    {"column segments", has_columns,
     [](const shape& s, int size) {
       return columns(
           {partition::balanced(third(s.back()), size), partition::balanced(s.back() - third(s.back()), size)});
     },
     last,
     [](const shape& s, int size, int rank) {
       return share(third(s.back()), size, rank) + share(s.back() - third(s.back()), size, rank, third(s.back()));
     }},
    {"the middle dimension", [](const shape& s) { return s.size() == 3; },
     [](const shape& s, int size) { return along(1, partition::balanced(s[1], size)); },
     [](const shape&) { return std::size_t{1}; },
     [](const shape& s, int size, int rank) { return share(s[1], size, rank); }},
    {"given rows", always, [](const shape& s, int) { return rows(s[0] / 4, s[0] / 2); }, first,
     [](const shape& s, int, int) { return share(s[0] / 2, 1, 0, s[0] / 4); }},
    {"given column ranges, the later first", has_columns,
     [](const shape& s, int) {
       const std::size_t half = s.back() / 2;
       return columns(std::vector<index_range>{{half, s.back() - half}, {0, half}});
     },
     last,
     [](const shape& s, int, int) {
       const std::size_t half = s.back() / 2;
       return share(s.back() - half, 1, 0, half) + share(half, 1, 0);
     }}};

}  // namespace

TEST_CASE("every slice of every shape holds the elements that a serial model picks, for 1 to 6 ranks") {
  const files::directory folder;
  // The last three have runs longer than the staging, gaps worth skipping, and more than one window.
  const std::vector<shape> shapes = {{0},       {1},       {7},       {0, 4},    {4, 0},     {1, 1},
                                     {5, 3},    {2, 7},    {12, 6},   {64, 1},   {1, 64},    {3, 5, 2},
                                     {2, 1, 9}, {1, 0, 3}, {4, 6, 7}, {3, 2500}, {2, 40000}, {700, 900}};
  for (const dtype stored : {dtype::i32, dtype::bf16})
    for (const shape& extents : shapes) {
      const archive opened = archive::open(numbered(folder, "t", stored, extents));
      for (const cut_case& cut : cuts) {
        if (!cut.applies(extents)) continue;
        for (int size = 1; size <= 6; ++size)
          for (int rank = 0; rank < size; ++rank) {
            CAPTURE(detail::shape_text(extents));
            CAPTURE(cut.why);
            CAPTURE(size);
            CAPTURE(rank);
            const dtype wanted = stored == dtype::bf16 ? dtype::f32 : stored;
            load_plan plan(opened, rank, size);
            const arena_slot slot = plan.add("t", extents, cut.kept(extents, size), wanted);
            const indices picked = cut.picked(extents, size, rank);
            shape local = extents;
            local[cut.dimension(extents)] = picked.size();
            CHECK(slot.shape == local);
            CHECK(slot.bytes == product(local) * 4);
            CHECK(plan.bytes() == slot.bytes);

            buffer<std::byte> arena(plan.bytes());
            const load_report report = plan.load(arena, staging());
            CHECK(report.bytes_loaded == slot.bytes);
            const indices expected = select(extents, cut.dimension(extents), picked);
            REQUIRE(expected.size() == slot.bytes / 4);
            std::size_t wrong = 0;
            if (stored == dtype::i32) {
              const auto loaded = slot.view_in<std::int32_t>(arena);
              for (std::size_t i = 0; i < expected.size(); ++i)
                wrong += static_cast<std::size_t>(loaded[i]) != expected[i];
            } else {
              const auto loaded = slot.view_in<float>(arena);
              for (std::size_t i = 0; i < expected.size(); ++i) {
                const auto bits = static_cast<std::uint32_t>(expected[i] % 0x7f80) << 16;
                wrong += std::memcmp(&bits, &loaded[i], 4) != 0;
              }
            }
            CHECK(wrong == 0);
          }
      }
    }
}

TEST_CASE("heads that are replicated or uneven are cut as the partition says") {
  const files::directory folder;
  const std::size_t head = 4, hidden = 5;
  const archive opened = archive::open(numbered(folder, "qkv", dtype::i32, {(9 + 3 + 3) * head, hidden}));
  for (int size = 1; size <= 6; ++size) {
    const auto [heads, kv] = grouped(9, 3, size);
    for (int rank = 0; rank < size; ++rank) {
      load_plan plan(opened, rank, size);
      const auto slot =
          plan.add("qkv", {15 * head, hidden}, rows({heads.scaled(head), kv.scaled(head), kv.scaled(head)}));
      buffer<std::byte> arena(plan.bytes());
      plan.load(arena, staging());
      const auto loaded = slot.matrix_in<std::int32_t>(arena);
      std::vector<std::size_t> expected;  // first element of each row
      for (const auto& [cut, start] :
           {std::pair(heads, std::size_t{0}), std::pair(kv, std::size_t{9}), std::pair(kv, std::size_t{12})})
        for (std::size_t row = 0; row < cut.count(rank) * head; ++row)
          expected.push_back(((start + cut.offset(rank)) * head + row) * hidden);
      REQUIRE(loaded.rows() == expected.size());
      for (std::size_t row = 0; row < expected.size(); ++row)
        CHECK(static_cast<std::size_t>(loaded(row, 0)) == expected[row]);
    }
  }
}

TEST_CASE("tensors of several files and types are packed one after the other") {
  const files::directory folder;
  folder.write("model.safetensors.index.json",
               R"({"weight_map":{"q":"q.safetensors","k":"k.safetensors","v":"v.safetensors"}})");
  numbered(folder, "q", dtype::bf16, {6, 4});
  numbered(folder, "k", dtype::bf16, {3, 4});
  {
    safetensors_writer out(folder / "v.safetensors", {{"v", dtype::f32, {3, 4}}});
    out.write(std::vector<float>(12, 0.1f));
    out.commit();
  }
  const archive opened = archive::open(folder.path());
  load_plan plan(opened, 1, 2);
  const auto cut = partition::balanced(3, 2);
  const std::vector<tensor_part> parts = {
      {"q", {6, 4}, rows(cut.scaled(2))}, {"v", {3, 4}, rows(cut)}, {"k", {3, 4}, whole()}};
  const auto slot = plan.add_packed(parts, dtype::f32);
  CHECK(slot.shape == shape{2 + 1 + 3, 4});
  buffer<std::byte> arena(plan.bytes());
  plan.load(arena, staging());
  const auto loaded = slot.matrix_in<float>(arena);
  const auto number = [](unsigned bits) {
    return static_cast<float>(bfloat16::from_bits(static_cast<std::uint16_t>(bits)));
  };
  CHECK(loaded(0, 0) == number(16));
  CHECK(loaded(1, 3) == number(23));
  CHECK(loaded(2, 0) == 0.1f);
  CHECK(loaded(3, 0) == number(0));
  CHECK(loaded(5, 3) == number(11));

  CHECK(contains(message_of<usage_error>([&] { plan.add_packed(parts); }), "'v' is stored as f32"));
  CHECK(contains(message_of<usage_error>([&] { plan.add_packed({}); }), "nothing to pack"));
  CHECK(contains(message_of<usage_error>([&] {
                   plan.add_packed({{"q", {6, 4}, whole()}, {"k", {3, 4}, columns(0, 3)}});
                 }),
                 "all dimensions but the first must agree"));
}

TEST_CASE("slots are aligned, in the order of the plan, and touch nothing between them") {
  const files::directory folder;
  const archive opened = archive::open(numbered(folder, "t", dtype::i32, {7, 3}));
  for (const std::size_t alignment : std::vector<std::size_t>{1, 2, 64, 4096}) {
    load_plan plan(opened, 0, 1, alignment);
    std::vector<arena_slot> slots;
    for (std::size_t rows_kept = 0; rows_kept <= 7; ++rows_kept)
      slots.push_back(plan.add("t", {7, 3}, rows(0, rows_kept)));
    std::size_t end = 0;
    for (const arena_slot& slot : slots) {
      CHECK(slot.offset % alignment == 0);
      CHECK(slot.offset >= end);
      CHECK(slot.offset - end < alignment);
      end = slot.offset + slot.bytes;
    }
    CHECK(plan.bytes() == end);
    void* memory = nullptr;
    REQUIRE(::posix_memalign(&memory, 4096, end + 100) == 0);
    const view<std::byte> arena(static_cast<std::byte*>(memory), end + 100);
    std::memset(memory, 0x5a, arena.size());
    plan.load(arena, staging());
    std::vector<bool> written(arena.size(), false);
    for (const arena_slot& slot : slots)
      for (std::size_t i = slot.offset; i < slot.offset + slot.bytes; ++i) written[i] = true;
    std::size_t touched = 0;
    for (std::size_t i = 0; i < arena.size(); ++i) touched += !written[i] && arena[i] != std::byte{0x5a};
    CHECK(touched == 0);
    ::free(memory);
  }
}

TEST_CASE("a single number is loaded, and cannot be cut") {
  const files::directory folder;
  safetensors_writer out(folder / "f", {{"n", dtype::f64, {}}});
  out.write(std::vector<double>{0.25});
  out.commit();
  load_plan plan(archive::open(folder / "f"), 0, 1);
  const auto slot = plan.add("n", {}, whole(), dtype::f32);
  buffer<std::byte> arena(plan.bytes());
  plan.load(arena, staging());
  CHECK(slot.view_in<float>(arena)[0] == 0.25f);
  CHECK(slot.matrix_in<float>(arena).rows() == 1);
  CHECK(contains(message_of<usage_error>([&] { plan.add("n", {}, rows(0, 1)); }), "no dimension 0"));
  CHECK(contains(message_of<usage_error>([&] { plan.add("n", {}, columns(0, 1)); }), "no columns"));
}

TEST_CASE("only the rank's own bytes are read, but short gaps are read over") {
  const files::directory folder;
  const auto read = [&](const shape& extents, const slice& kept) {
    const archive opened = archive::open(numbered(folder, "t", dtype::i32, extents));
    load_plan plan(opened, 1, 4);
    plan.add("t", extents, kept);
    buffer<std::byte> arena(plan.bytes());
    return plan.load(arena, staging(1 << 20));
  };
  const load_report contiguous = read({400, 50}, rows(partition::balanced(400, 4)));
  CHECK(contiguous.bytes_read == 100 * 50 * 4);
  CHECK(contiguous.bytes_loaded == contiguous.bytes_read);
  const load_report wide = read({3, 80'000}, columns(partition::balanced(80'000, 4)));
  CHECK(wide.bytes_read == 3 * 20'000 * 4);
  const load_report narrow = read({400, 40}, columns(partition::balanced(40, 4)));
  CHECK(narrow.bytes_loaded == 400 * 10 * 4);
  CHECK(narrow.bytes_read <= 400 * 40 * 4);
  CHECK(narrow.bytes_read > narrow.bytes_loaded);
}

TEST_CASE("any staging from the least on gives the same result") {
  const files::directory folder;
  const archive opened = archive::open(numbered(folder, "t", dtype::bf16, {300, 700}));
  load_plan plan(opened, 1, 3);
  plan.add("t", {300, 700}, columns(partition::balanced(700, 3)), dtype::f32);
  plan.add("t", {300, 700}, columns(partition::balanced(700, 3)));
  buffer<std::byte> expected(plan.bytes());
  std::memset(expected.data(), 0, expected.size());  // the padding between slots is compared, too
  plan.load(expected, staging(1 << 22));
  for (const std::size_t bytes : std::vector<std::size_t>{4096, 4097, 5003, 65536, 1'000'001}) {
    buffer<std::byte> arena(plan.bytes());
    std::memset(arena.data(), 0, arena.size());
    plan.load(arena, staging(bytes));
    CHECK(std::memcmp(arena.data(), expected.data(), arena.size()) == 0);
  }
}

TEST_CASE("progress rises to the total, and may give up") {
  const files::directory folder;
  const archive opened = archive::open(numbered(folder, "t", dtype::i32, {5000, 1000}));
  load_plan plan(opened, 0, 1);
  plan.add("t", {5000, 1000});
  plan.add("t", {5000, 1000}, columns(0, 100));
  buffer<std::byte> arena(plan.bytes());
  std::uint64_t before = 0, total = 0;
  int calls = 0;
  plan.load(arena, staging(), {.progress = [&](std::uint64_t done, std::uint64_t of) {
              CHECK(done > before);
              before = done;
              total = of;
              ++calls;
            }});
  CHECK(total == 5000 * 1100 * 4);
  CHECK(before == total);
  CHECK(calls >= 3);
  struct given_up {};
  CHECK_THROWS_AS(plan.load(arena, staging(), {.progress = [](std::uint64_t, std::uint64_t) { throw given_up{}; }}),
                  given_up);
}

TEST_CASE("a transform sees every element once, in order, and decides what is stored") {
  const files::directory folder;
  const archive opened = archive::open(numbered(folder, "t", dtype::i32, {30, 70}));
  load_plan plan(opened, 1, 2);
  const auto halves = plan.add("t", {30, 70}, columns(partition::balanced(70, 2)), dtype::f32);
  buffer<std::byte> arena(plan.bytes());
  CHECK(contains(message_of<usage_error>([&] { plan.load(arena, staging()); }), "stored as i32 and wanted as f32"));
  std::size_t seen = 0;
  plan.load(arena, staging(), {.transform = [&](const element_block& block) {
              CHECK(block.tensor == "t");
              CHECK(block.stored == dtype::i32);
              CHECK(block.wanted == dtype::f32);
              for (std::size_t i = 0; i < block.count; ++i) {
                std::int32_t number = 0;
                std::memcpy(&number, block.from + 4 * i, 4);
                const float half = static_cast<float>(number) / 2;
                std::memcpy(block.to + 4 * i, &half, 4);
              }
              seen += block.count;
            }});
  CHECK(seen == 30 * 35);
  const auto loaded = halves.matrix_in<float>(arena);
  for (std::size_t row = 0; row < 30; ++row)
    for (std::size_t column = 0; column < 35; ++column)
      CHECK(loaded(row, column) == static_cast<float>(row * 70 + 35 + column) / 2);
}

TEST_CASE("what does not fit is refused with tensor, sizes and rank, before anything is read") {
  const files::directory folder;
  const archive opened = archive::open(numbered(folder, "t", dtype::i32, {6, 4}));
  load_plan plan(opened, 1, 2);
  const auto wrong_shape = message_of([&] { plan.add("t", {4, 6}); });
  CHECK(contains(wrong_shape, "tensor 't' of"));
  CHECK(contains(wrong_shape, "has shape [6, 4], expected [4, 6]"));
  CHECK(contains(wrong_shape, "rank 1 of 2"));
  CHECK(contains(wrong_shape, "load_plans.cpp:"));
  CHECK(contains(message_of([&] { plan.add("t", {24}); }), "expected [24]"));
  CHECK(contains(message_of([&] { plan.add("T", {6, 4}); }), "similar: 't'"));
  const auto refused = [&](const slice& kept) { return message_of<usage_error>([&] { plan.add("t", {6, 4}, kept); }); };
  CHECK(contains(refused(rows(partition::balanced(6, 3))), "partition over 3 ranks cuts it, the plan is for 2"));
  CHECK(contains(refused(rows(partition::balanced(5, 2))), "cover 5 of the 6 items of dimension 0"));
  CHECK(contains(refused(columns(partition::balanced(6, 2))), "cover 6 of the 4 items of dimension 1"));
  CHECK(contains(refused(rows({partition::balanced(3, 2), partition::balanced(2, 2)})), "cover 5 of the 6"));
  CHECK(contains(refused(rows(4, 3)), "3 items from 4 reach beyond the end of dimension 0"));
  CHECK(contains(refused(rows(~std::size_t{0}, 2)), "reach beyond"));
  CHECK(contains(refused(columns(1, ~std::size_t{0})), "reach beyond"));
  CHECK(contains(refused(along(2, 0, 1)), "no dimension 2"));
  CHECK(plan.bytes() == 0);  // nothing of the refused stays

  const auto slot = plan.add("t", {6, 4});
  buffer<std::byte> arena(plan.bytes()), small(plan.bytes() - 1), room(8192);
  CHECK(contains(message_of<usage_error>([&] { plan.load(small, staging()); }), "95 bytes, the plan needs 96"));
  CHECK(contains(message_of<usage_error>([&] { plan.load(view(room.data() + 1, 200), staging()); }),
                 "not aligned to 64"));
  CHECK(contains(message_of<usage_error>([&] { plan.load(arena, staging(4095)); }), "staging buffer has 4095 bytes"));
  CHECK(contains(message_of<usage_error>([&] { plan.load(view(room.data(), 96), view(room.data() + 64, 4096)); }),
                 "overlaps the arena"));
  CHECK(contains(message_of<usage_error>([&] { slot.view_in<float>(arena); }), "the slot holds i32, not f32"));
  CHECK(contains(message_of<usage_error>([&] { slot.view_in<std::int32_t>(small); }), "the slot ends at 96"));
  CHECK_THROWS_AS(load_plan(opened, 2, 2), usage_error);
  CHECK_THROWS_AS(load_plan(opened, -1, 2), usage_error);
  CHECK_THROWS_AS(load_plan(opened, 0, 1, 0), usage_error);
  CHECK_THROWS_AS(load_plan(opened, 0, 1, 48), usage_error);
}

TEST_CASE("a file that changed after it was opened is refused") {
  const files::directory folder;
  const std::string path = numbered(folder, "t", dtype::i32, {100, 100});
  const auto loading = [&](const std::function<void()>& change) {
    numbered(folder, "t", dtype::i32, {100, 100});
    load_plan plan(archive::open(path), 0, 1);
    plan.add("t", {100, 100});
    buffer<std::byte> arena(plan.bytes());
    change();
    return message_of([&] { plan.load(arena, staging()); });
  };
  const auto size = std::filesystem::file_size(path);
  for (const std::uintmax_t bytes : {std::uintmax_t{0}, std::uintmax_t{9}, size / 2, size - 1, size + 1}) {
    CAPTURE(bytes);
    CHECK(contains(loading([&] { std::filesystem::resize_file(path, bytes); }), "changed since its header was read"));
  }
  CHECK(contains(loading([&] { std::filesystem::remove(path); }), "cannot open"));
  CHECK(contains(loading([&] {
                   // Written over in place: same size, another time.
                   std::filesystem::last_write_time(
                       path, std::filesystem::file_time_type::clock::now() + std::chrono::hours(1));
                 }),
                 "changed since its header was read"));
  CHECK(contains(loading([&] {
                   std::filesystem::copy_file(path, folder / "copy");
                   std::filesystem::rename(folder / "copy", path);
                 }),
                 "changed since its header was read"));
}

TEST_CASE("a file cut short or written to while it is read is refused") {
  const files::directory folder;
  const std::string path = numbered(folder, "t", dtype::i32, {1000, 1000});
  const auto loading = [&](const std::function<void()>& change) {
    numbered(folder, "t", dtype::i32, {1000, 1000});
    load_plan plan(archive::open(path), 0, 1);
    plan.add("t", {1000, 1000});
    buffer<std::byte> arena(plan.bytes());
    bool changed = false;
    return message_of([&] {
      plan.load(arena, staging(), {.transform = [&](const element_block& block) {
                  convert_elements(block);
                  if (!changed) change();
                  changed = true;
                }});
    });
  };
  const auto size = std::filesystem::file_size(path);
  for (const std::uintmax_t bytes : {size / 4, size / 2, size - 1}) {
    CAPTURE(bytes);
    const std::string message = loading([&] { std::filesystem::resize_file(path, bytes); });
    CHECK(contains(message, "cut short while being read"));
    CHECK(contains(message, "ends at byte " + std::to_string(bytes)));
  }
  CHECK(contains(loading([&] { std::filesystem::resize_file(path, size + 1); }), "changed since its header was read"));
}
