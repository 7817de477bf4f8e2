// Random damage to valid files: they are refused as a checkpoint_error, or what they say is consistent and loads.
#include "files.hpp"

#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/core/buffer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace shardkit;

namespace {

const std::string header = R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                           R"("e":{"dtype":"I16","shape":[0,4],"data_offsets":[24,24]},)"
                           R"("s":{"dtype":"BOOL","shape":[],"data_offsets":[24,25]},)"
                           R"("b":{"dtype":"BF16","shape":[5],"data_offsets":[25,35]}} )";

// Characters that matter to the parser come up more often than others.
char any_character(std::mt19937_64& random) {
  static const std::string likely = "{}[]\",:\\0123456789-+.eEtfn uFIBU\x01\x7f\x80\xc3\xff";
  return random() % 4 == 0 ? static_cast<char>(random() % 256) : likely[random() % likely.size()];
}

// One to three changes: replace, insert, remove, repeat a piece, cut off, a bit, a digit, a letter, a space.
std::string damaged(std::string file, std::mt19937_64& random) {
  const std::size_t data = file.size() - header.size() - 8;
  for (std::uint64_t changes = 1 + random() % 3; changes > 0 && file.size() > 8; --changes) {
    // The data bytes carry no rule, so damage goes to the header and, rarely, to its length.
    const std::size_t limit = std::min(file.size(), header.size() + 8);
    const std::size_t at = random() % 16 == 0 ? random() % 8 : 8 + random() % (limit - 8);
    switch (random() % 9) {
      case 0: file[at] = any_character(random); break;
      case 1: file.insert(at, 1, any_character(random)); break;
      case 2: file.erase(at, 1 + random() % 4); break;
      case 3: file.insert(at, file.substr(random() % file.size(), random() % 60)); break;
      case 4:
        if (random() % 4 == 0) file.resize(random() % file.size());
        break;
      case 5: file[at] = static_cast<char>(file[at] ^ (1 << (random() % 8))); break;
      case 6:
        if (const std::size_t letter = file.find_first_of("wesbpt", at); letter != std::string::npos)
          file[letter] = static_cast<char>('a' + random() % 26);
        break;
      case 7:
        if (const std::size_t mark = file.find_first_of(",:[]{}", at); mark != std::string::npos)
          file.insert(mark, random() % 5, ' ');
        break;
      default:
        if (const std::size_t digit = file.find_first_of("0123456789", at); digit != std::string::npos)
          file[digit] = static_cast<char>('0' + random() % 10);
    }
  }
  // Mostly the length follows, or nearly all files would fail for it alone.
  if (random() % 8 != 0 && file.size() > 8 + data) file.replace(0, 8, files::little_endian(file.size() - 8 - data));
  return file;
}

// Every fact of an accepted file, checked against the file again.
void require_consistent(const archive& opened, const std::string& file) {
  load_plan plan(opened, 0, 1);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
  std::vector<std::pair<arena_slot, tensor_info>> slots;
  for (std::size_t i = 0; i < opened.size(); ++i) {
    const std::string name(opened.name(i));
    CHECK(opened.contains(name));
    if (i > 0) CHECK(opened.name(i - 1) < opened.name(i));
    const safetensors_header again(opened.file(0));
    const std::size_t index = again.find(name);
    REQUIRE(index != safetensors_header::npos);
    spans.emplace_back(again.offset(index), again.offset(index) + again.bytes(index));
    if (!again.type(index).as_dtype()) continue;
    const tensor_info info = opened.tensor(name);
    std::size_t bytes = size_of(info.type);
    for (const std::size_t extent : info.shape) bytes *= extent;
    CHECK(bytes == info.bytes);
    slots.emplace_back(plan.add(name, info.shape), info);
  }
  std::sort(spans.begin(), spans.end());
  for (std::size_t i = 1; i < spans.size(); ++i) CHECK(spans[i].first == spans[i - 1].second);
  if (!spans.empty()) CHECK(spans.back().second == file.size());
  buffer<std::byte> arena(plan.bytes()), staging(load_plan::least_staging);
  plan.load(arena, staging);
  for (const auto& [slot, info] : slots)
    if (info.type != dtype::boolean && info.bytes != 0)
      CHECK(std::memcmp(arena.data() + slot.offset, file.data() + info.offset, info.bytes) == 0);
}

}  // namespace

TEST_CASE("20,000 damaged files are refused as checkpoint_error or consistent") {
  const files::directory folder;
  const std::string valid = files::safetensors(header, files::counting(35));
  require_consistent(archive::open(folder.write("valid.safetensors", valid)), valid);
  std::mt19937_64 random(20240229);
  int accepted = 0, refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string file = damaged(valid, random);
    const std::string path = folder.write("f.safetensors", file);
    try {
      const archive opened = archive::open(path);
      ++accepted;
      require_consistent(opened, file);
    } catch (const checkpoint_error& failure) {
      ++refused;
      CHECK(std::string(failure.what()).size() < 1200);
    }
  }
  MESSAGE(accepted << " accepted, " << refused << " refused");
  // Both happen, or the damage is too heavy or too light to mean anything.
  CHECK(accepted > 500);
  CHECK(refused > 5000);
}

TEST_CASE("5,000 damaged indexes are refused as checkpoint_error or consistent") {
  const files::directory folder;
  const auto shard = [](const std::string& name) {
    return files::safetensors("{\"" + name + R"(":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})", "abc");
  };
  folder.write("1.safetensors", shard("a"));
  folder.write("2.safetensors", shard("b"));
  const std::string valid =
      R"({"metadata":{"total_size":6,"x":[null,{}]},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})";
  std::mt19937_64 random(5);
  int accepted = 0, refused = 0;
  for (int i = 0; i < 5'000; ++i) {
    std::string index = valid;
    for (std::uint64_t changes = 1 + random() % 2; changes > 0 && !index.empty(); --changes) {
      const std::size_t at = random() % index.size();
      switch (random() % 4) {
        case 0: index[at] = any_character(random); break;
        case 1: index.insert(at, 1, any_character(random)); break;
        case 2: index.erase(at, 1 + random() % 20); break;
        default: index.insert(at, index.substr(random() % index.size(), random() % 40));
      }
    }
    folder.write("model.safetensors.index.json", index);
    try {
      const archive opened = archive::open(folder.path());
      ++accepted;
      CHECK(opened.size() <= 2);
      for (std::size_t t = 0; t < opened.size(); ++t) {
        const tensor_info info = opened.tensor(opened.name(t));
        CHECK(opened.file(info.file) == folder / (info.name == "a" ? "1.safetensors" : "2.safetensors"));
      }
    } catch (const checkpoint_error&) {
      ++refused;
    }
  }
  MESSAGE(accepted << " accepted, " << refused << " refused");
  CHECK(accepted > 100);
  CHECK(refused > 1000);
}
