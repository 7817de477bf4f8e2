// A checkpoint on disk: one safetensors file, or a directory of them. Opening reads and checks every header, and so
// costs little; the tensors' bytes are read later, by a load_plan.
#pragma once

#include <shardkit/checkpoint/all_or_none.hpp>
#include <shardkit/checkpoint/detail/find_checkpoint.hpp>
#include <shardkit/checkpoint/detail/near_names.hpp>
#include <shardkit/checkpoint/detail/shard_index.hpp>
#include <shardkit/checkpoint/safetensors_header.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardkit {

/// Where a tensor lies and what it is.
struct tensor_info {
  std::string name;                ///< as in the file
  dtype type = dtype::u8;          ///< as stored
  std::vector<std::size_t> shape;  ///< [] for a single number
  std::size_t file = 0;            ///< index into archive::files()
  std::uint64_t offset = 0;        ///< of its first byte within the file
  std::uint64_t bytes = 0;         ///< of its elements
};

/// Copies are cheap and share what was read. No file stays open. Safe to use from several threads at once.
class archive {
 public:
  /// Opens a .safetensors file, a .safetensors.index.json, or a directory that holds model.safetensors or
  /// model.safetensors.index.json (in this order). Throws checkpoint_error where a header or the index breaks a
  /// rule, a shard is missing or lacks a tensor that the index places there, or two shards hold the same tensor.
  static archive open(const std::string& path) { return archive(path); }

  /// What was opened.
  const std::string& path() const noexcept { return contents_->path; }
  /// Number of tensors.
  std::size_t size() const noexcept { return contents_->by_name.size(); }
  /// Name of the i-th tensor; names ascend. Valid while any copy of the archive lives.
  std::string_view name(std::size_t i) const noexcept { return contents_->name(contents_->by_name[i]); }
  /// Whether any file holds a tensor of that name.
  bool contains(std::string_view name) const noexcept { return find(name) != nullptr; }

  /// Throws checkpoint_error that lists similar names where there is no such tensor, or that names the type where
  /// it has no dtype (complex, sub-byte and some 8-bit types).
  tensor_info tensor(std::string_view name) const {
    const place* found = find(name);
    if (found == nullptr)
      throw checkpoint_error(detail::in_quotes(path()) + " has no tensor " + detail::in_quotes(name) + " among its " +
                             std::to_string(size()) +
                             detail::near_names(name, size(), [&, this](std::size_t i) { return this->name(i); }));
    const safetensors_header& header = contents_->shards[found->shard].header;
    const auto type = header.type(found->index).as_dtype();
    if (!type)
      throw checkpoint_error("tensor " + detail::in_quotes(name) + " of " + detail::in_quotes(path()) +
                             " is stored as " + std::string(header.type(found->index).name()) +
                             ", which shardkit cannot load: convert it to a type of whole bytes that dtype names");
    return {std::string(name),         *type, header.shape(found->index), found->shard, header.offset(found->index),
            header.bytes(found->index)};
  }

  /// Number of safetensors files.
  std::size_t files() const noexcept { return contents_->shards.size(); }
  /// Path of the i-th of them; i < files().
  const std::string& file(std::size_t i) const noexcept { return contents_->shards[i].path; }
  /// The file's __metadata__, ordered by key.
  const std::vector<std::pair<std::string, std::string>>& metadata(std::size_t i = 0) const noexcept {
    return contents_->shards[i].header.metadata();
  }

  /// Tells a changed file from the one whose header was checked.
  const detail::file_identity& identity(std::size_t i) const noexcept { return contents_->shards[i].identity; }

 private:
  struct shard {
    explicit shard(const detail::file& from) : path(from.path()), identity(from.identity()), header(from) {
      from.require_unchanged(identity);
    }
    std::string path;
    detail::file_identity identity;
    safetensors_header header;
  };
  struct place {
    std::uint32_t shard, index;
  };
  struct contents {
    std::string path;
    std::vector<shard> shards;
    std::vector<place> by_name;

    std::string_view name(const place& of) const noexcept { return shards[of.shard].header.name(of.index); }
  };

  explicit archive(const std::string& path) : contents_(std::make_shared<contents>()) {
    contents_->path = path;
    const auto [found, is_index] = detail::find_checkpoint(path);
    if (!is_index) {
      contents_->shards.emplace_back(detail::file(found));
      list_names();
      return;
    }
    const detail::file index_file(found);
    const detail::shard_index index(index_file);
    const std::string directory = found.substr(0, found.rfind('/') + 1);
    for (const std::string& name : index.shards) open_shard(directory + name, index_file.path());
    list_names();
    for (const auto& entry : index.entries) {
      const place* found_at = find(index.name(entry));
      if (found_at == nullptr || found_at->shard != entry.shard)
        throw checkpoint_error(
            detail::in_quotes(index_file.path()) + " places tensor " + detail::in_quotes(index.name(entry)) + " in " +
            detail::in_quotes(index.shards[entry.shard]) + ", which does not hold it: fetch both again");
    }
  }

  void open_shard(const std::string& path, const std::string& index) {
    try {
      contents_->shards.emplace_back(detail::file(path));
    } catch (const checkpoint_error& cause) {
      throw checkpoint_error(cause.message() + " (a shard named by " + detail::in_quotes(index) + ")");
    }
  }

  void list_names() {
    std::vector<place>& places = contents_->by_name;
    std::size_t total = 0;
    for (const shard& each : contents_->shards) total += each.header.size();
    places.reserve(total);
    for (std::uint32_t s = 0; s < contents_->shards.size(); ++s) {
      const safetensors_header& header = contents_->shards[s].header;
      for (std::size_t i = 0; i < header.size(); ++i)
        places.push_back({s, static_cast<std::uint32_t>(header.by_name(i))});
    }
    const contents& all = *contents_;
    if (all.shards.size() > 1)
      std::sort(places.begin(), places.end(),
                [&](const place& a, const place& b) { return all.name(a) < all.name(b); });
    const auto twin = std::adjacent_find(places.begin(), places.end(),
                                         [&](const place& a, const place& b) { return all.name(a) == all.name(b); });
    if (twin != places.end())
      throw checkpoint_error("tensor " + detail::in_quotes(all.name(*twin)) + " lies in two shards, " +
                             detail::in_quotes(all.shards[twin->shard].path) + " and " +
                             detail::in_quotes(all.shards[twin[1].shard].path) + ": remove one of them");
  }

  const place* find(std::string_view name) const noexcept {
    const auto& places = contents_->by_name;
    const auto found =
        std::lower_bound(places.begin(), places.end(), name,
                         [&, this](const place& of, std::string_view wanted) { return contents_->name(of) < wanted; });
    return found == places.end() || contents_->name(*found) != name ? nullptr : &*found;
  }

  std::shared_ptr<contents> contents_;
};

/// Collective: every rank opens `path` for itself (files of different nodes may differ). Where any rank cannot, all
/// throw checkpoint_error with the same text, which names the ranks and causes; no rank is left waiting.
template <class Communicator>
archive open_archive(Communicator& comm, const std::string& path, call_site site = call_site::current()) {
  return all_or_none(
      comm, "opening the checkpoint " + detail::in_quotes(path), [&] { return archive::open(path); }, site);
}

}  // namespace shardkit
