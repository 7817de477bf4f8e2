// Checkpoints of one file and of several, and what is said of broken ones.
#include "files.hpp"

#include <shardkit/checkpoint/archive.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

using files::contains;
using files::counting;
using files::message_of;
using files::safetensors;
using shardkit::archive;
using shardkit::dtype;

namespace {

std::string bytes_tensor(const std::string& name, std::size_t begin, std::size_t count) {
  return "\"" + name + "\":{\"dtype\":\"U8\",\"shape\":[" + std::to_string(count) + "],\"data_offsets\":[" +
         std::to_string(begin) + "," + std::to_string(begin + count) + "]}";
}

const std::string first_shard =
    safetensors("{" + bytes_tensor("a", 0, 3) + "," + bytes_tensor("d", 3, 1) + "}", "abcd");
const std::string second_shard = safetensors("{" + bytes_tensor("b", 0, 2) + "}", "xy");
const std::string good_index =
    R"({"metadata":{"total_size":6,"x":[null,{"y":[-1,2.5,true,"z"]}]},"weight_map":{"a":"1.safetensors",)"
    R"("b":"2.safetensors","d":"1.safetensors"}})";

struct two_shards {
  files::directory folder;
  two_shards() {
    folder.write("1.safetensors", first_shard);
    folder.write("2.safetensors", second_shard);
    folder.write("model.safetensors.index.json", good_index);
  }
};

}  // namespace

TEST_CASE("one file is opened by its path or as model.safetensors of its directory") {
  const files::directory folder;
  const std::string path = folder.write("model.safetensors", first_shard);
  for (const std::string& name : {path, folder.path(), folder.path() + "/"}) {
    const archive opened = archive::open(name);
    CHECK(opened.path() == name);
    REQUIRE(opened.size() == 2);
    CHECK(opened.files() == 1);
    CHECK(opened.name(0) == "a");
    CHECK(opened.name(1) == "d");
    const auto info = opened.tensor("d");
    CHECK(info.name == "d");
    CHECK(info.type == dtype::u8);
    CHECK(info.shape == std::vector<std::size_t>{1});
    CHECK(info.bytes == 1);
    CHECK(info.offset == first_shard.size() - 1);
    CHECK(info.file == 0);
  }
}

TEST_CASE("an index is opened by its directory or by its own path") {
  const two_shards checkpoint;
  for (const std::string& name : {checkpoint.folder.path(), checkpoint.folder / "model.safetensors.index.json"}) {
    const archive opened = archive::open(name);
    REQUIRE(opened.size() == 3);
    CHECK(opened.files() == 2);
    CHECK(opened.name(0) == "a");
    CHECK(opened.name(1) == "b");
    CHECK(opened.name(2) == "d");
    CHECK(opened.file(opened.tensor("b").file) == checkpoint.folder / "2.safetensors");
    CHECK(opened.file(opened.tensor("d").file) == checkpoint.folder / "1.safetensors");
    CHECK(opened.contains("d"));
    CHECK(!opened.contains("c"));
  }
}

TEST_CASE("shards may be links, as download caches make them") {
  const two_shards checkpoint;
  const files::directory snapshot;
  for (const char* name : {"1.safetensors", "2.safetensors", "model.safetensors.index.json"})
    std::filesystem::create_symlink(checkpoint.folder / name, snapshot / name);
  CHECK(archive::open(snapshot.path()).size() == 3);
}

TEST_CASE("copies of an archive share what was read and outlive it") {
  const two_shards checkpoint;
  auto opened = std::make_unique<archive>(archive::open(checkpoint.folder.path()));
  const archive copy = *opened;
  const std::string_view name = opened->name(1);
  opened.reset();
  CHECK(name == "b");
  CHECK(copy.tensor(name).bytes == 2);
}

TEST_CASE("each broken index is refused with a message that says why") {
  struct hostile {
    std::string rule;
    std::string index;
    const char* message;
  };
  const auto map = [](const std::string& entries) { return "{\"weight_map\":{" + entries + "}}"; };
  const std::string rest = R"(,"b":"2.safetensors","d":"1.safetensors")";
  const std::vector<hostile> all = {
      {"is not empty", "", "JSON"},
      {"is an object", "[]", "array"},
      {"is JSON", "{", "JSON"},
      {"has a weight_map", "{}", "lacks weight_map"},
      {"has a weight_map beside metadata", R"({"metadata":{"weight_map":{}}})", "lacks weight_map"},
      {"has one weight_map", R"({"weight_map":{},"weight_map":{}})", "weight_map occurs twice"},
      {"the weight_map is an object", R"({"weight_map":[]})", "array"},
      {"the weight_map is not null", R"({"weight_map":null})", "null"},
      {"the weight_map is not a string", R"({"weight_map":"x"})", "string"},
      {"files are strings", map(R"("a":1)"), "number"},
      {"files are not null", map(R"("a":null)"), "null"},
      {"files are not lists", map(R"("a":["1.safetensors"])"), "array"},
      {"files are not objects", map(R"("a":{})"), "object"},
      {"tensors occur once", map(R"("a":"1.safetensors","a":"1.safetensors")" + rest), "'a' occurs twice"},
      {"tensors occur once, also in different files", map(R"("a":"1.safetensors","a":"2.safetensors")" + rest),
       "'a' occurs twice"},
      {"no absolute paths", map(R"("a":"/etc/model.safetensors")"), "not a file name within the directory"},
      {"no way up", map(R"("a":"../1.safetensors")"), "not a file name within the directory"},
      {"no way down", map(R"("a":"sub/1.safetensors")"), "not a file name within the directory"},
      {"no other system's separators", map(R"("a":"..\\1.safetensors")"), "not a file name within the directory"},
      {"no NUL that ends a name early", map(R"("a":"1.safetensors\u0000x.safetensors")"), "not a file name"},
      {"no directory", map(R"("a":"..")"), "not a .safetensors file"},
      {"no empty name", map(R"("a":"")"), "not a .safetensors file"},
      {"no name that is only the ending", map(R"("a":".safetensors")"), "not a .safetensors file"},
      {"no other format", map(R"("a":"pytorch_model.bin")"), "not a .safetensors file"},
      {"shards are present", map(R"("a":"3.safetensors")" + rest), "cannot open"},
      {"tensors are where they are said to be", map(R"("a":"2.safetensors")" + rest), "does not hold it"},
      {"tensors are somewhere", map(R"("a":"1.safetensors","c":"1.safetensors")" + rest), "does not hold it"},
      {"is UTF-8", map("\"\xff\":\"1.safetensors\""), "UTF-8"},
      {"has no NUL", std::string("{\"weight_map\":{}}\0", 18), "NUL"},
      {"has nothing behind it", "{\"weight_map\":{}} x", "JSON"}};
  const two_shards checkpoint;
  for (const hostile& each : all) {
    CAPTURE(each.rule);
    checkpoint.folder.write("model.safetensors.index.json", each.index);
    const std::string message = message_of([&] { archive::open(checkpoint.folder.path()); });
    CAPTURE(message);
    CHECK(contains(message, each.message));
    CHECK(contains(message, "model.safetensors.index.json"));
  }
}

TEST_CASE("deep nesting in what an index need not say does no harm") {
  const two_shards checkpoint;
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  checkpoint.folder.write("model.safetensors.index.json",
                          "{\"metadata\":" + deep + "," + good_index.substr(good_index.find("\"weight_map\"")));
  CHECK(archive::open(checkpoint.folder.path()).size() == 3);
}

TEST_CASE("a tensor in two shards is refused, whichever the index names") {
  const two_shards checkpoint;
  checkpoint.folder.write(
      "2.safetensors", safetensors("{" + bytes_tensor("b", 0, 2) + "," + bytes_tensor("a", 2, 3) + "}", counting(5)));
  const std::string message = message_of([&] { archive::open(checkpoint.folder.path()); });
  CHECK(contains(message, "'a' lies in two shards"));
  CHECK(contains(message, "1.safetensors"));
  CHECK(contains(message, "2.safetensors"));
}

TEST_CASE("a broken shard is named together with the index that names it") {
  const two_shards checkpoint;
  checkpoint.folder.write("2.safetensors", second_shard.substr(0, second_shard.size() - 1));
  const std::string message = message_of([&] { archive::open(checkpoint.folder.path()); });
  CHECK(contains(message, "2.safetensors' is not a valid safetensors file"));
  CHECK(contains(message, "is it incomplete?"));
  CHECK(contains(message, "index.json"));
}

TEST_CASE("a directory without a checkpoint is refused, and what it does hold is named") {
  const files::directory folder;
  CHECK(contains(message_of([&] { archive::open(folder.path()); }), "neither model.safetensors nor"));
  CHECK(contains(message_of([&] { archive::open(folder / "absent"); }), "No such file"));
  folder.write("other.safetensors", first_shard);
  CHECK(contains(message_of([&] { archive::open(folder.path()); }), "it holds 'other.safetensors'"));
}

TEST_CASE("an absent tensor is refused with the names that come near") {
  const two_shards checkpoint;
  const files::directory folder;
  folder.write("model.safetensors",
               safetensors("{" + bytes_tensor("model.layers.0.mlp.up_proj.weight", 0, 1) + "," +
                               bytes_tensor("model.norm.weight", 1, 1) + "," + bytes_tensor("lm_head.weight", 2, 1) +
                               "," + bytes_tensor("model.embed_tokens.weight", 3, 1) + "}",
                           counting(4)));
  const archive opened = archive::open(folder.path());
  const std::string message = message_of([&] { opened.tensor("model.norm.wieght"); });
  CHECK(contains(message, "no tensor 'model.norm.wieght' among its 4; similar: 'model.norm.weight'"));
  CHECK(contains(message, folder.path()));
  CHECK(message_of([&] { opened.tensor(std::string(100'000, 'x')); }).size() < 500);
  const archive empty = archive::open(folder.write("empty.safetensors", safetensors("{}", "")));
  CHECK(contains(message_of([&] { empty.tensor("a"); }), "no tensor 'a' among its 0"));
}

TEST_CASE("a type that cannot be loaded is refused by name, and only where its tensor is asked for") {
  const files::directory folder;
  folder.write("model.safetensors", safetensors(R"({"half":{"dtype":"F4","shape":[4],"data_offsets":[0,2]},)"
                                                R"("complex":{"dtype":"C64","shape":[1],"data_offsets":[2,10]},)"
                                                R"("plain":{"dtype":"I8","shape":[2],"data_offsets":[10,12]}})",
                                                counting(12)));
  const archive opened = archive::open(folder.path());
  CHECK(opened.size() == 3);
  CHECK(opened.tensor("plain").type == dtype::i8);
  CHECK(contains(message_of([&] { opened.tensor("half"); }), "tensor 'half'"));
  CHECK(contains(message_of([&] { opened.tensor("half"); }), "stored as F4"));
  CHECK(contains(message_of([&] { opened.tensor("complex"); }), "stored as C64"));
}
