// Which safetensors headers are accepted, and what is said of the others.
#include "files.hpp"

#include <shardkit/checkpoint/safetensors_header.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using files::contains;
using files::counting;
using files::message_of;
using files::safetensors;
using shardkit::checkpoint_error;
using shardkit::dtype;
using shardkit::safetensors_header;
using shardkit::stored_dtype;

namespace {

using shape = std::vector<std::size_t>;

const std::string two_tensors =
    R"({"__metadata__":{"format":"pt","a":""},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"shape":[5],"data_offsets":[24,34],"dtype":"BF16"}})";

std::string one(const std::string& fields) { return "{\"t\":{" + fields + "}}"; }

}  // namespace

TEST_CASE("a header tells names, types, shapes, places and metadata") {
  const files::directory folder;
  const safetensors_header header(folder.write("f", safetensors(two_tensors, counting(34))));
  REQUIRE(header.size() == 2);
  const std::size_t w = header.find("w"), b = header.find("b");
  REQUIRE(w != safetensors_header::npos);
  REQUIRE(b != safetensors_header::npos);
  CHECK(header.name(w) == "w");
  CHECK(header.type(w).as_dtype() == dtype::f32);
  CHECK(header.shape(w) == shape{2, 3});
  CHECK(header.offset(w) == 8 + two_tensors.size());
  CHECK(header.bytes(w) == 24);
  CHECK(header.type(b).as_dtype() == dtype::bf16);
  CHECK(header.shape(b) == shape{5});
  CHECK(header.offset(b) == 8 + two_tensors.size() + 24);
  CHECK(header.bytes(b) == 10);
  CHECK(header.find("") == safetensors_header::npos);
  CHECK(header.find("ww") == safetensors_header::npos);
  REQUIRE(header.metadata().size() == 2);
  CHECK(header.metadata()[0].first == "a");
  CHECK(header.metadata()[1].second == "pt");
}

TEST_CASE("every type of the format is accepted with its size and refused with another") {
  struct expectation {
    std::string name;
    unsigned bits;
  };
  const files::directory folder;
  for (const expectation& type : std::vector<expectation>{
           {"BOOL", 8}, {"U8", 8},      {"I8", 8},      {"U16", 16},    {"I16", 16},        {"U32", 32},
           {"I32", 32}, {"U64", 64},    {"I64", 64},    {"F16", 16},    {"BF16", 16},       {"F32", 32},
           {"F64", 64}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
           {"C64", 64}, {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}}) {
    CAPTURE(type.name);
    const std::size_t bytes = 8 * type.bits / 8;
    const auto file = [&](std::size_t size) {
      return folder.write("f", safetensors(one("\"dtype\":\"" + type.name + "\",\"shape\":[2,4],\"data_offsets\":[0," +
                                               std::to_string(size) + "]"),
                                           counting(size)));
    };
    const safetensors_header header(file(bytes));
    CHECK(header.type(0).name() == type.name);
    CHECK(header.bytes(0) == bytes);
    CHECK_THROWS_AS(safetensors_header(file(bytes + 1)), checkpoint_error);
    CHECK_THROWS_AS(safetensors_header(file(bytes - 1)), checkpoint_error);
  }
}

TEST_CASE("every dtype has a name in the format that leads back to it") {
  for (int i = 0; i <= static_cast<int>(dtype::boolean); ++i) {
    const auto type = static_cast<dtype>(i);
    const stored_dtype stored = stored_dtype::of(type);
    CHECK(stored.as_dtype() == type);
    CHECK(stored.bits() == 8 * shardkit::size_of(type));
    REQUIRE(stored_dtype::from_name(stored.name()).has_value());
    CHECK(stored_dtype::from_name(stored.name())->as_dtype() == type);
  }
}

TEST_CASE("unusual but valid headers are accepted") {
  struct valid {
    std::string why;
    std::string header;
    std::size_t data, tensors;
  };
  const std::vector<valid> all = {
      {"no tensors", "{}", 0, 0},
      {"metadata only", R"({"__metadata__":{"k":"v"}})", 0, 0},
      {"empty metadata", R"({"__metadata__":{}})", 0, 0},
      {"spaces after the object", "{}            ", 0, 0},
      {"spaces and newlines within", "{ \n\t\"t\" : {\"dtype\":\"U8\",\"shape\":[ 1 ],\"data_offsets\":[0 , 1]}\r\n}",
       1, 1},
      {"a single number", one(R"("dtype":"F64","shape":[],"data_offsets":[0,8])"), 8, 1},
      {"an empty tensor", one(R"("dtype":"F64","shape":[0],"data_offsets":[0,0])"), 0, 1},
      {"a zero among extents", one(R"("dtype":"F64","shape":[3,0,7],"data_offsets":[0,0])"), 0, 1},
      {"an empty name", R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, 1},
      {"an escaped name", R"({"\u00e9\"\\\ud83d\ude00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, 1},
      {"many extents", one(R"("dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2],"data_offsets":[0,2])"),
       2, 1},
      {"data in another order than the names",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       3, 2},
      {"empty tensors between others",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]},)"
       R"("c":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"d":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},)"
       R"("e":{"dtype":"U8","shape":[0],"data_offsets":[3,3]}})",
       3, 5},
      {"offsets that are not aligned",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}})",
       9, 2}};
  const files::directory folder;
  for (const valid& each : all) {
    CAPTURE(each.why);
    const safetensors_header header(folder.write("f", safetensors(each.header, counting(each.data))));
    CHECK(header.size() == each.tensors);
  }
}

TEST_CASE("extents of any size come back as they were written") {
  const files::directory folder;
  for (const std::size_t extent : {std::size_t{1}, std::size_t{127}, std::size_t{128}, std::size_t{16383},
                                   std::size_t{16384}, std::size_t{4294967295}, ~std::size_t{0} / 8}) {
    const safetensors_header header(folder.write(
        "f", safetensors(one("\"dtype\":\"U8\",\"shape\":[1," + std::to_string(extent) + ",0],\"data_offsets\":[0,0]"),
                         "")));
    CHECK(header.shape(0) == shape{1, extent, 0});
  }
}

TEST_CASE("a name is found by its text, not by its escapes") {
  const files::directory folder;
  const safetensors_header header(
      folder.write("f", safetensors(R"({"\u0061\/\n":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", counting(1))));
  CHECK(header.find("a/\n") == 0);
}

TEST_CASE("each broken rule is refused with a message that names it") {
  struct hostile {
    std::string rule;
    std::string header;
    std::size_t data;
    const char* message;
  };
  const auto nested = [](std::size_t depth) { return std::string(depth, '['); };
  const std::vector<hostile> all = {
      {"begins with {", " {}", 0, "does not begin with '{'"},
      {"begins with {, not a byte order mark", "\xEF\xBB\xBF{}", 0, "does not begin with '{'"},
      {"is an object", "[]", 0, "does not begin with '{'"},
      {"is not empty", "", 0, "does not begin with '{'"},
      {"is complete JSON", "{", 0, "JSON"},
      {"is JSON", "{]", 0, "JSON"},
      {"has nothing after the object", "{}x", 0, "JSON"},
      {"has no second object", "{}{}", 0, "JSON"},
      {"has no NUL after the object", std::string("{}\0\0\0", 5), 0, "NUL"},
      {"has no NUL within", std::string("{\"a\0\":{}}", 9), 0, "NUL"},
      {"has no trailing comma", R"({"__metadata__":{},})", 0, "JSON"},
      {"has no comments", "{/* */}", 0, "JSON"},
      {"is UTF-8: no stray continuation", "{\"\x80\":{}}", 0, "UTF-8"},
      {"is UTF-8: not Latin-1", "{\"caf\xe9\":{}}", 0, "UTF-8"},
      {"is UTF-8: not overlong", "{\"\xc0\xaf\":{}}", 0, "UTF-8"},
      {"is UTF-8: no surrogates", "{\"\xed\xa0\x80\":{}}", 0, "UTF-8"},
      {"is UTF-8: not beyond U+10FFFF", "{\"\xf4\x90\x80\x80\":{}}", 0, "UTF-8"},
      {"has no lone surrogate escapes", R"({"\ud800":{}})", 0, "surrogate"},
      {"has no control characters in strings", "{\"a\nb\":{}}", 0, "control character"},

      {"metadata is an object", R"({"__metadata__":[]})", 0, "__metadata__ may not hold an array"},
      {"metadata is not null", R"({"__metadata__":null})", 0, "null"},
      {"metadata values are strings, not numbers", R"({"__metadata__":{"a":1}})", 0,
       "'a', a string, may not hold a number"},
      {"metadata values are strings, not null", R"({"__metadata__":{"a":null}})", 0, "null"},
      {"metadata values are strings, not booleans", R"({"__metadata__":{"a":true}})", 0, "true or false"},
      {"metadata values are strings, not objects", R"({"__metadata__":{"a":{}}})", 0, "may not hold an object"},
      {"metadata values are strings, not arrays", R"({"__metadata__":{"a":[]}})", 0, "may not hold an array"},
      {"metadata occurs once", R"({"__metadata__":{},"__metadata__":{}})", 0, "occurs twice"},
      {"metadata keys occur once", R"({"__metadata__":{"a":"1","a":"2"}})", 0, "'a' occurs twice"},

      {"a tensor is an object, not a number", R"({"t":1})", 0, "may not hold a number"},
      {"a tensor is an object, not null", R"({"t":null})", 0, "null"},
      {"a tensor is an object, not a string", R"({"t":"x"})", 0, "may not hold the string 'x'"},
      {"a tensor is an object, not an array", R"({"t":[]})", 0, "may not hold an array"},
      {"a tensor has a dtype", one(R"("shape":[],"data_offsets":[0,8])"), 8, "lacks dtype"},
      {"a tensor has a shape", one(R"("dtype":"F64","data_offsets":[0,8])"), 8, "lacks shape"},
      {"a tensor has offsets", one(R"("dtype":"F64","shape":[])"), 8, "lacks data_offsets"},
      {"a tensor is not empty", R"({"t":{}})", 0, "lacks dtype"},
      {"a tensor has no other fields", one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1)"), 1,
       "unknown field 'x'"},
      {"fields are spelled exactly", one(R"("Dtype":"U8","shape":[1],"data_offsets":[0,1])"), 1, "unknown field"},
      {"dtype occurs once", one(R"("dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1])"), 1, "dtype twice"},
      {"shape occurs once", one(R"("dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1])"), 1, "shape twice"},
      {"offsets occur once", one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1])"), 1,
       "data_offsets twice"},
      {"names occur once",
       R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "'t' occurs twice"},
      {"names occur once, however escaped",
       R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
       R"("\u0074":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "'t' occurs twice"},

      {"the dtype is known", one(R"("dtype":"F7","shape":[1],"data_offsets":[0,1])"), 1, "unknown dtype 'F7'"},
      {"the dtype is not in lower case", one(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])"), 4, "unknown dtype"},
      {"the dtype is a string", one(R"("dtype":8,"shape":[1],"data_offsets":[0,1])"), 1, "may not hold a number"},
      {"the dtype is not null", one(R"("dtype":null,"shape":[1],"data_offsets":[0,1])"), 1, "null"},

      {"the shape is an array", one(R"("dtype":"U8","shape":1,"data_offsets":[0,1])"), 1, "may not hold a number"},
      {"extents are not negative", one(R"("dtype":"U8","shape":[-1],"data_offsets":[0,1])"), 1, "negative"},
      {"extents are not minus zero", one(R"("dtype":"U8","shape":[-0],"data_offsets":[0,0])"), 0, "negative"},
      {"extents are whole", one(R"("dtype":"U8","shape":[1.0],"data_offsets":[0,1])"), 1, "1.0 is not a 64-bit"},
      {"extents have no exponent", one(R"("dtype":"U8","shape":[1e0],"data_offsets":[0,1])"), 1, "1e0 is not a 64-bit"},
      {"extents fit 64 bits", one(R"("dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1])"), 1,
       "18446744073709551616 is not a 64-bit"},
      {"extents have no leading zeros", one(R"("dtype":"U8","shape":[01],"data_offsets":[0,1])"), 1, "JSON"},
      {"extents are no strings", one(R"("dtype":"U8","shape":["1"],"data_offsets":[0,1])"), 1, "the string '1'"},
      {"extents are not nested", one(R"("dtype":"U8","shape":[[1]],"data_offsets":[0,1])"), 1, "may not hold an array"},
      {"the product of extents fits 64 bits",
       one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0, "product exceeds 64 bits"},
      {"the product does not wrap to the span",
       one(R"("dtype":"U8","shape":[4294967297,4294967297],"data_offsets":[0,1])"), 1, "product exceeds 64 bits"},
      {"the product overflows even beside a zero",
       one(R"("dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0])"), 0, "product exceeds 64 bits"},
      {"the size in bits fits 64 bits", one(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"), 0,
       "size exceeds 64 bits"},
      {"sub-byte types fill whole bytes", one(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])"), 1, "whole bytes"},
      {"six-bit types fill whole bytes", one(R"("dtype":"F6_E2M3","shape":[2],"data_offsets":[0,1])"), 1,
       "whole bytes"},

      {"offsets are an array", one(R"("dtype":"U8","shape":[1],"data_offsets":{})"), 1, "may not hold an object"},
      {"offsets are two, not one", one(R"("dtype":"U8","shape":[1],"data_offsets":[0])"), 1, "fewer than two"},
      {"offsets are two, not none", one(R"("dtype":"U8","shape":[1],"data_offsets":[])"), 1, "fewer than two"},
      {"offsets are two, not three", one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1,2])"), 1, "more than two"},
      {"offsets are not negative", one(R"("dtype":"U8","shape":[1],"data_offsets":[-1,0])"), 1, "negative"},
      {"offsets are whole", one(R"("dtype":"U8","shape":[1],"data_offsets":[0,1.0])"), 1, "1.0 is not a 64-bit"},
      {"offsets ascend", one(R"("dtype":"U8","shape":[1],"data_offsets":[1,0])"), 1, "before it begins"},
      {"the span is not too small", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4, "needs 8 bytes"},
      {"the span is not too large", one(R"("dtype":"F32","shape":[2],"data_offsets":[0,12])"), 12, "needs 8 bytes"},
      {"the span of an empty tensor is empty", one(R"("dtype":"F32","shape":[0],"data_offsets":[0,4])"), 4,
       "needs 0 bytes"},
      {"the data begin at 0", one(R"("dtype":"U8","shape":[1],"data_offsets":[1,2])"), 2, "there is a hole"},
      {"there are no holes",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "there is a hole"},
      {"an empty tensor makes no hole",
       R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
       1, "there is a hole"},
      {"nothing overlaps",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "they overlap"},
      {"nothing lies twice",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       2, "they overlap"},
      {"an empty tensor lies between others",
       R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}})",
       2, "they overlap"},
      {"the data are complete", one(R"("dtype":"U8","shape":[2],"data_offsets":[0,2])"), 1, "is it incomplete?"},
      {"nothing follows the data", one(R"("dtype":"U8","shape":[2],"data_offsets":[0,2])"), 3, "after the header"},
      {"nothing follows a header without tensors", "{}", 1, "after the header"},
      {"offsets near the limit do not wrap",
       one(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615])"), 1,
       "size exceeds 64 bits"},

      {"nesting is shallow: objects",
       [] {
         std::string text;
         for (int i = 0; i < 100'000; ++i) text += "{\"a\":";
         return text;
       }(),
       0, "unknown field 'a'"},
      {"nesting is shallow: arrays in a shape", "{\"t\":{\"shape\":" + nested(100'000), 0, "may not hold an array"},
      {"nesting is shallow: arrays in metadata", "{\"__metadata__\":{\"a\":" + nested(100'000), 0,
       "may not hold an array"}};
  const files::directory folder;
  for (const hostile& each : all) {
    CAPTURE(each.rule);
    const std::string path = folder.write("broken.safetensors", safetensors(each.header, counting(each.data)));
    const std::string message = message_of([&] { safetensors_header{path}; });
    CAPTURE(message);
    CHECK(contains(message, each.message));
    CHECK(contains(message, path));
    CHECK(message.size() < 1000);
  }
}

TEST_CASE("a file too short for a header, or whose header is too long, is refused") {
  const files::directory folder;
  const auto refused = [&](const std::string& contents) {
    const std::string path = folder.write("f", contents);
    return message_of([&] { safetensors_header{path}; });
  };
  for (std::size_t bytes = 0; bytes < 8; ++bytes) CHECK(contains(refused(std::string(bytes, '{')), "fewer than the 8"));
  CHECK(contains(refused(files::little_endian(0)), "does not begin with '{'"));
  CHECK(contains(refused(files::little_endian(1)), "the file has only 0"));
  CHECK(contains(refused(files::little_endian(3) + "{}"), "the file has only 2"));
  CHECK(contains(refused(files::little_endian(100'000'000) + "{}"), "the file has only 2"));
  CHECK(contains(refused(files::little_endian(100'000'001) + "{}"), "more than the 100000000"));
  CHECK(contains(refused(files::little_endian(~std::uint64_t{0}) + "{}"), "more than the 100000000"));
  CHECK(contains(refused(files::little_endian(~std::uint64_t{0} - 7) + "{}"), "more than the 100000000"));
  CHECK(contains(refused(files::little_endian(std::uint64_t{1} << 63) + "{}"), "more than the 100000000"));
}

TEST_CASE("a file cut short anywhere is refused") {
  const files::directory folder;
  const std::string whole = safetensors(two_tensors, counting(34));
  CHECK(safetensors_header(folder.write("f", whole)).size() == 2);
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    CAPTURE(bytes);
    const std::string path = folder.write("f", whole.substr(0, bytes));
    CHECK_THROWS_AS(safetensors_header{path}, checkpoint_error);
  }
}

TEST_CASE("a header shorter than its own length says is refused at every length") {
  const files::directory folder;
  for (std::size_t bytes = 0; bytes < two_tensors.size(); ++bytes) {
    CAPTURE(bytes);
    // The rest of the text is taken for data.
    const std::string path = folder.write("f", files::little_endian(bytes) + two_tensors + counting(34));
    CHECK_THROWS_AS(safetensors_header{path}, checkpoint_error);
  }
}

TEST_CASE("what is not a readable file is refused") {
  const files::directory folder;
  CHECK(contains(message_of([&] { safetensors_header{folder / "absent"}; }), "cannot open"));
  CHECK(contains(message_of([&] { safetensors_header{folder.path()}; }), "not a regular file"));
  CHECK(contains(message_of([&] { safetensors_header{folder.path() + std::string("/a\0b", 4)}; }), "NUL"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);  // opening one waits, if done carelessly
  CHECK(contains(message_of([&] { safetensors_header{folder / "pipe"}; }), "not a regular file"));
}

TEST_CASE("a hostile name is shown shortened and without control characters") {
  const files::directory folder;
  const std::string path =
      folder.write("f", safetensors("{\"" + std::string(5000, 'x') + "\\u0007\":{\"dtype\":\"U8\"}}", ""));
  const std::string message = message_of([&] { safetensors_header{path}; });
  CHECK(contains(message, "xxx...'"));
  CHECK(message.size() < 600);
  const std::string bell = folder.write("g", safetensors(R"({"a\u0007b":{"dtype":"U8"}})", ""));
  CHECK(contains(message_of([&] { safetensors_header{bell}; }), "'a?b'"));
}
