// How much memory a hostile header and a rank's own shard take, measured as the peak of a process of their own.
#include "files.hpp"

#include <shardkit/checkpoint/load_plan.hpp>
#include <shardkit/checkpoint/safetensors_writer.hpp>
#include <shardkit/core/buffer.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

using namespace shardkit;

namespace {

constexpr std::int64_t mebibyte = 1 << 20;
// A sanitizer's own memory drowns the figures: under one, the cases only run.
constexpr bool measures = !SANITIZED;

// From /proc/self/status, in bytes.
std::int64_t status(const std::string& field) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);)
    if (line.rfind(field + ":", 0) == 0) return std::stoll(line.substr(field.size() + 1)) * 1024;
  return -1;
}

// How far the resident memory of a process rises while it runs `body`, which returns whether all went well.
std::int64_t peak_growth(const std::function<bool()>& body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const ::pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::int64_t growth = -1;
    try {
      const std::int64_t before = status("VmRSS");
      if (body()) growth = status("VmHWM") - before;
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "%s\n", failure.what());
    }
    const bool told = ::write(ends[1], &growth, sizeof growth) == static_cast<::ssize_t>(sizeof growth);
    ::_exit(told ? 0 : 1);
  }
  std::int64_t growth = -1;
  CHECK(::read(ends[0], &growth, sizeof growth) == static_cast<::ssize_t>(sizeof growth));
  ::close(ends[0]);
  ::close(ends[1]);
  int state = 0;
  CHECK(::waitpid(child, &state, 0) == child);
  CHECK(state == 0);
  REQUIRE(growth >= 0);
  return growth;
}

// Writes a file whose header is begin, the pieces that next() gives until the header has `bytes`, and end.
std::string large_header(const files::directory& folder, std::size_t bytes, const std::string& begin,
                         const std::function<std::string()>& next, const std::string& end) {
  const std::string path = folder / "large.safetensors";
  std::ofstream out(path, std::ios::binary);
  out << std::string(8, '\0') << begin;
  std::size_t size = begin.size() + end.size();
  while (size < bytes) {
    const std::string piece = next();
    out << piece;
    size += piece.size();
  }
  out << end;
  out.seekp(0);
  out << files::little_endian(size);
  REQUIRE(out.good());
  return path;
}

}  // namespace

TEST_CASE("a header of 30 MB takes less than twice its length") {
  const files::directory folder;
  constexpr std::size_t bytes = measures ? 30'000'000 : 3'000'000;
  std::size_t count = 0;
  struct kind {
    std::string what;
    std::string begin;
    std::function<std::string()> next;
    std::string end;
    bool valid;
    std::int64_t allowance;  // beyond twice the length
  };
  const auto number = [&] { return std::to_string(count++); };
  const std::string empty = R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  const std::vector<kind> kinds = {
      {"many small tensors", "{\"first" + empty, [&] { return ",\"" + number() + empty; }, "}", true, 2 * mebibyte},
      {"a shape of many extents", R"({"t":{"dtype":"U8","shape":[0)", [] { return std::string(",0"); },
       R"(],"data_offsets":[0,0]}})", true, 2 * mebibyte},
      {"long names", "{\"first" + empty, [&] { return ",\"" + std::string(10'000, 'n') + number() + empty; }, "}", true,
       2 * mebibyte},
      // The JSON library holds a string twice, and thrice while it grows.
      {"one long name", "{\"", [] { return std::string(1000, 'n'); }, empty + "}", true, 64 * mebibyte},
      {"one long metadata value", R"({"__metadata__":{"k":")", [] { return std::string(1000, 'v'); }, "\"}}", true,
       64 * mebibyte},
      {"much white space", "{", [] { return std::string(1000, ' '); }, "}", true, 64 * mebibyte},
      {"many metadata entries", R"({"__metadata__":{"k":"")", [&] { return ",\"" + number() + "\":\"\""; }, "}}", false,
       2 * mebibyte},
      {"many numbers", R"({"t":{"data_offsets":[0)", [] { return std::string(",1"); }, "]}}", false, 2 * mebibyte},
      {"deep nesting", "{\"t\":{\"shape\":", [] { return std::string(1000, '['); }, "", false, 2 * mebibyte}};
  for (const kind& each : kinds) {
    CAPTURE(each.what);
    const std::string path = large_header(folder, bytes, each.begin, each.next, each.end);
    const std::int64_t growth = peak_growth([&] {
      try {
        return archive::open(path).size() < bytes && each.valid;
      } catch (const checkpoint_error& failure) {
        if (each.valid) std::fprintf(stderr, "%s\n", failure.what());
        return !each.valid;
      }
    });
    MESSAGE(each.what << ": " << static_cast<double>(growth) / static_cast<double>(bytes) << " of the header's length");
    if (measures) CHECK(growth < 2 * static_cast<std::int64_t>(bytes) + each.allowance);
  }
}

TEST_CASE("loading takes the rank's own shard and the staging, and no more") {
  const files::directory folder;
  constexpr std::size_t rows_in_all = 4096, columns_in_all = 4096;  // 64 MiB
  {
    safetensors_writer out(folder / "f", {{"w", dtype::f32, {rows_in_all, columns_in_all}}});
    const std::vector<float> row(columns_in_all, 1.5f);
    for (std::size_t i = 0; i < rows_in_all; ++i) out.write(row);
    out.commit();
  }
  for (const dtype type : {dtype::f32, dtype::bf16})
    for (int size = 1; size <= 3; ++size)
      for (const bool by_rows : {true, false}) {
        std::int64_t shard = 0;
        const auto cut = partition::balanced(rows_in_all, size);
        const auto run = [&](bool load) {
          load_plan plan(archive::open(folder / "f"), size - 1, size);
          plan.add("w", {rows_in_all, columns_in_all}, by_rows ? rows(cut) : columns(cut), type);
          shard = static_cast<std::int64_t>(plan.bytes());
          if (!load) return true;
          buffer<std::byte> arena(plan.bytes()), staging(1 << 20);
          return plan.load(arena, staging).bytes_loaded == plan.bytes();
        };
        run(false);
        const std::int64_t growth = peak_growth([&] { return run(true); });
        if (!measures) continue;
        CHECK(growth > shard * 9 / 10);  // or the measurement means nothing
        CHECK(growth < shard + 3 * mebibyte);
      }
}
