// What a run of sample.cpp is judged by.
#pragma once

#include <support/jobs.hpp>

#include <fstream>
#include <sstream>
#include <string>

namespace sample_runs {

using shardkit_test::job;
using shardkit_test::outcome;

// How often `text` stands in `where`.
inline int count(const std::string& where, const std::string& text) {
  int times = 0;
  for (std::size_t at = where.find(text); at != std::string::npos; at = where.find(text, at + text.size())) ++times;
  return times;
}

inline const std::string folder = SHARDKIT_TEST_FOLDER;

inline std::string contents(const std::string& file) {
  std::ostringstream all;
  all << std::ifstream(folder + "/" + file).rdbuf();
  return all.str();
}

// Elements that are opened and closed in order, attributes in quotes: as much as a reader of JUnit files relies on.
inline bool well_formed(const std::string& xml) {
  std::string open;
  bool any = false;
  for (std::size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at + 1)) {
    const std::size_t end = xml.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (count(tag, "\"") % 2 != 0) return false;
    if (tag.front() == '?') continue;
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag.front() == '/') {
      if (open.size() < name.size() || open.substr(open.size() - name.size()) != name) return false;
      open.resize(open.size() - name.size());
    } else if (tag.back() != '/') {
      open += "/" + name;
      any = true;
    }
  }
  return any && open.empty();
}

// The program has failed by itself: not ended by a signal or for its time.
#define CHECK_FAILED(result)     \
  INFO((result).output);         \
  CHECK((result).status != 0);   \
  CHECK((result).status != 124); \
  CHECK((result).seconds < 30)

}  // namespace sample_runs
