// Files that the writer makes are the files that the reader accepts, and appear whole or not at all.
#include "files.hpp"

#include <shardkit/checkpoint/archive.hpp>
#include <shardkit/checkpoint/safetensors_writer.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

using files::contains;
using files::message_of;
using namespace shardkit;

namespace {

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::size_t entries(const files::directory& folder) {
  const std::filesystem::directory_iterator listing(folder.path());
  return static_cast<std::size_t>(std::distance(begin(listing), end(listing)));
}

}  // namespace

TEST_CASE("what was written is read back") {
  const files::directory folder;
  const std::string path = folder / "model.safetensors";
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  const std::vector<std::int16_t> numbers = {-1, 7};
  {
    safetensors_writer out(path,
                           {{"w", dtype::f32, {2, 3}},
                            {"none", dtype::f64, {0, 5}},
                            {"\"\\\n\xc3\xa9", dtype::i16, {2}},
                            {"one", dtype::u8, {}}},
                           {{"format", "pt"}, {"quote", "\""}});
    out.write(view(weights.data(), 4));  // pieces need not be tensors
    out.write(view(weights.data() + 4, 2));
    out.write(numbers);
    out.write(std::vector<std::byte>{std::byte{9}});
    out.commit();
  }
  const std::string file = contents(path);
  const archive opened = archive::open(path);
  REQUIRE(opened.size() == 4);
  CHECK(opened.tensor("w").shape == std::vector<std::size_t>{2, 3});
  CHECK(opened.tensor("w").offset % 8 == 0);
  CHECK(std::memcmp(file.data() + opened.tensor("w").offset, weights.data(), 24) == 0);
  CHECK(std::memcmp(file.data() + opened.tensor("\"\\\n\xc3\xa9").offset, numbers.data(), 4) == 0);
  CHECK(opened.tensor("one").shape.empty());
  CHECK(file.back() == 9);
  CHECK(opened.tensor("none").bytes == 0);
  CHECK(opened.metadata() == std::vector<std::pair<std::string, std::string>>{{"format", "pt"}, {"quote", "\""}});
  CHECK(entries(folder) == 1);
}

TEST_CASE("a file without tensors, or with empty ones only, is complete at once") {
  const files::directory folder;
  safetensors_writer(folder / "a", {}).commit();
  safetensors_writer(folder / "b", {{"x", dtype::f32, {0}}, {"y", dtype::f32, {2, 0}}}).commit();
  CHECK(archive::open(folder / "a").size() == 0);
  CHECK(archive::open(folder / "b").size() == 2);
}

TEST_CASE("nothing appears before commit, and nothing is left behind without it") {
  const files::directory folder;
  const std::string path = folder.write("f", "as before");
  {
    safetensors_writer out(path, {{"x", dtype::u8, {2}}});
    CHECK(contents(path) == "as before");
    CHECK(contains(message_of<usage_error>([&] { out.commit(); }), "tensor 'x' misses 2 bytes"));
    CHECK(entries(folder) == 2);
  }
  CHECK(contents(path) == "as before");
  CHECK(entries(folder) == 1);
}

TEST_CASE("elements that do not fit the declaration are refused") {
  const files::directory folder;
  safetensors_writer out(folder / "f", {{"x", dtype::f32, {2}}, {"y", dtype::u8, {1}}});
  CHECK(
      contains(message_of<usage_error>([&] { out.write(std::vector<std::int32_t>(2)); }), "declared as f32, not i32"));
  CHECK(contains(message_of<usage_error>([&] { out.write(std::vector<float>(3)); }), "misses 8 bytes, not 12"));
  out.write(std::vector<float>(2));
  out.write(std::vector<std::uint8_t>(1));
  CHECK(contains(message_of<usage_error>([&] { out.write(std::vector<std::uint8_t>(1)); }), "all declared tensors"));
  out.commit();
}

TEST_CASE("declarations that make no valid file are refused before one is created") {
  const files::directory folder;
  const auto refused = [&](std::vector<tensor_declaration> tensors,
                           std::vector<std::pair<std::string, std::string>> metadata = {}) {
    return message_of<usage_error>([&] { safetensors_writer(folder / "f", tensors, metadata); });
  };
  CHECK(contains(refused({{"x", dtype::u8, {1}}, {"x", dtype::u8, {1}}}), "'x' occurs twice"));
  CHECK(contains(refused({}, {{"k", "1"}, {"k", "2"}}), "'k' occurs twice"));
  CHECK(contains(refused({{"__metadata__", dtype::u8, {1}}}), "no tensor may be called"));
  CHECK(contains(refused({{"\xff", dtype::u8, {1}}}), "not UTF-8"));
  CHECK(contains(refused({}, {{"k", "\xff"}}), "not UTF-8"));
  const std::size_t large = std::size_t{1} << 32;
  CHECK(contains(refused({{"x", dtype::u8, {large, large}}}), "larger than a file can be"));
  CHECK(contains(refused({{"x", dtype::u8, {large, large / 4}}, {"y", dtype::u8, {large, large / 4}}}), "larger than"));
  CHECK(entries(folder) == 0);
}

TEST_CASE("a place that cannot be written to is named") {
  const files::directory folder;
  CHECK(contains(message_of([&] { safetensors_writer(folder / "absent/f", {}); }), "cannot create"));
  std::filesystem::create_directory(folder / "taken");
  CHECK(contains(message_of([&] { safetensors_writer(folder / "taken", {}).commit(); }), "cannot rename"));
  CHECK(entries(folder) == 1);
}
