// What collectives is asked for, and which verbs it knows.
#pragma once

#include <shardkit/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <vector>

namespace benchmark {

inline const std::vector<std::string> default_verbs{"barrier",        "all_reduce", "all_reduce_in_place",
                                                    "broadcast",      "reduce",     "all_gather",
                                                    "reduce_scatter", "all_to_all", "gather",
                                                    "scatter",        "send_recv"};
inline const std::vector<std::string> unequal_verbs{"all_gather_unequal", "reduce_scatter_unequal",
                                                    "all_to_all_unequal", "gather_unequal", "scatter_unequal"};

inline bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

/// Throws usage_error for what is no option or no value of one.
struct options {
  std::vector<std::string> verbs = default_verbs;
  std::vector<std::size_t> bytes{8, 64, 512, 4096, 32768, 262144, 2097152, 16777216, 134217728, 268435456};
  int rounds = 5, ranks = 2;
  bool ranks_given = false;
  double budget = 0.05;
  std::string csv;

  options(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string text = argv[i], name = text.substr(0, text.find('=') + 1), value = text.substr(name.size());
      if (name == "--verbs=") verbs = split(value);
      else if (name == "--rounds=") rounds = static_cast<int>(whole_number(text, value, 1, 1000000));
      else if (name == "--ranks=") ranks = static_cast<int>(whole_number(text, value, 1, 1024)), ranks_given = true;
      else if (name == "--budget=") budget = seconds_of(text, value);
      else if (name == "--csv=" && !value.empty()) csv = value;
      else if (name == "--bytes=") {
        bytes.clear();
        // As many floats as a raw MPI call takes.
        for (const std::string& one : split(value)) bytes.push_back(whole_number(text, one, 4, 4 * 2147483647ull));
      } else {
        throw shardkit::usage_error("unknown option " + text +
                                    "; there are --ranks= --verbs= --bytes= --rounds= --budget= --csv=");
      }
    }
    for (const std::string& verb : verbs)
      if (!contains(default_verbs, verb) && !contains(unequal_verbs, verb))
        throw shardkit::usage_error("--verbs: there is no verb " + verb + " here; there are " + all_verbs());
  }

 private:
  static std::vector<std::string> split(const std::string& list) {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at <= list.size();) {
      const std::size_t end = std::min(list.find(',', at), list.size());
      parts.push_back(list.substr(at, end - at));
      at = end + 1;
    }
    return parts;
  }
  static std::size_t whole_number(const std::string& option, const std::string& text, unsigned long long least,
                                  unsigned long long most) {
    const bool digits = !text.empty() && text.size() < 19 && text.find_first_not_of("0123456789") == std::string::npos;
    const unsigned long long value = digits ? std::strtoull(text.c_str(), nullptr, 10) : 0;
    if (!digits || value < least || value > most)
      throw shardkit::usage_error(option + ": whole numbers from " + std::to_string(least) + " to " +
                                  std::to_string(most) + " are possible");
    return static_cast<std::size_t>(value);
  }
  static double seconds_of(const std::string& option, const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(value > 0 && value <= 3600))
      throw shardkit::usage_error(option + ": seconds above 0, up to 3600, are possible");
    return value;
  }
  static std::string all_verbs() {
    std::string all;
    for (const auto* list : {&default_verbs, &unequal_verbs})
      for (const std::string& verb : *list) all += (all.empty() ? "" : " ") + verb;
    return all;
  }
};

/// How many floats a verb moves when asked for `bytes`.
inline std::size_t elements(const std::string& verb, std::size_t bytes, int ranks) {
  if (verb == "barrier") return 0;
  const std::size_t count = bytes / sizeof(float), parts = static_cast<std::size_t>(ranks);
  const bool equal_parts =
      verb == "all_gather" || verb == "reduce_scatter" || verb == "all_to_all" || verb == "gather" || verb == "scatter";
  return equal_parts ? std::max<std::size_t>(1, count / parts) * parts : count;
}

}  // namespace benchmark
