// From what a user names, a file or a directory, to the file that says what the checkpoint holds.
#pragma once

#include <shardkit/checkpoint/detail/text.hpp>
#include <shardkit/core/error.hpp>

#include <dirent.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

namespace shardkit {
namespace detail {

struct checkpoint_file {
  std::string path;
  bool is_index;
};

inline bool ends_with(std::string_view text, std::string_view ending) noexcept {
  return text.size() >= ending.size() && text.substr(text.size() - ending.size()) == ending;
}

/// "; it holds a.safetensors, b.safetensors: name one of them", or nothing.
inline std::string other_safetensors(const std::string& directory) {
  const auto close = [](DIR* opened) { ::closedir(opened); };
  const std::unique_ptr<DIR, decltype(close)> listing(::opendir(directory.c_str()), close);
  if (!listing) return {};
  std::string text;
  std::size_t shown = 0;
  while (const ::dirent* entry = ::readdir(listing.get()))
    if (ends_with(entry->d_name, ".safetensors") && ++shown <= 4)
      text += (shown == 1 ? "; it holds " : ", ") + in_quotes(entry->d_name);
  if (shown > 4) text += " and " + std::to_string(shown - 4) + " more";
  return shown == 0 ? text : text + ": open one of them by its own path";
}

inline checkpoint_file find_checkpoint(const std::string& path) {
  struct ::stat found;
  if (::stat(path.c_str(), &found) != 0)
    throw checkpoint_error("cannot open " + in_quotes(path) + ": " + std::strerror(errno));
  if (!S_ISDIR(found.st_mode)) return {path, ends_with(path, ".json")};
  const std::string single = path + "/model.safetensors", index = single + ".index.json";
  if (::stat(single.c_str(), &found) == 0) return {single, false};
  if (::stat(index.c_str(), &found) == 0) return {index, true};
  throw checkpoint_error("directory " + in_quotes(path) +
                         " holds neither model.safetensors nor model.safetensors.index.json" + other_safetensors(path));
}

}  // namespace detail
}  // namespace shardkit
