// The command line options that the test mains add to doctest's own.
#pragma once

#include <shardkit/core/error.hpp>

#include <cstdlib>
#include <initializer_list>
#include <string>

namespace shardkit::testing::detail {

inline constexpr const char* options_help =
    "Options beside those of doctest:\n"
    "  --ranks=N             threads: run on N ranks (default 4); MPI: the launcher was told to start N\n"
    "  --case-deadline=S     seconds until a test case that has not ended fails the run (default 60;\n"
    "                        a case states a longer one by * doctest::timeout(S))\n"
    "  --deadline=S          seconds until the whole run fails (default: none)\n"
    "  --allow-fewer-ranks   leave out cases that need more ranks than there are, instead of failing\n";

struct options {
  int ranks = 0;  ///< 0: not given
  double case_deadline = 60;
  double deadline = 0;  ///< 0: none
  bool allow_fewer_ranks = false;
  std::string out;          ///< doctest's --out
  bool structured = false;  ///< a reporter for machines: its text is not to be tagged line by line
  bool junit = false;       ///< doctest's JUnit reporter

  /// Throws usage_error where a value is not a number in its range.
  options(int argc, const char* const* argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      std::string value;
      if (matches(argument, {"--ranks="}, value)) ranks = static_cast<int>(number(argument, value, 1, 1 << 20));
      if (matches(argument, {"--case-deadline="}, value)) case_deadline = number(argument, value, 0.001, 1e9);
      if (matches(argument, {"--deadline="}, value)) deadline = number(argument, value, 0.001, 1e9);
      if (argument == "--allow-fewer-ranks") allow_fewer_ranks = true;
      matches(argument, {"--out=", "-o=", "--dt-out=", "-dt-o="}, out);
      if (matches(argument, {"--reporters=", "-r=", "--dt-reporters=", "-dt-r="}, value)) {
        junit = value.find("junit") != std::string::npos;
        structured = junit || value.find("xml") != std::string::npos;
      }
      if (matches(argument, {"--abort-after=", "-aa=", "--dt-abort-after=", "-dt-aa="}, value)) abort_after_ = value;
    }
  }

  /// Ranks count their failures apart, so one would stop where the others wait for it.
  void refuse_what_separates_ranks() const {
    if (!abort_after_.empty() && abort_after_ != "0")
      throw usage_error("--abort-after=" + abort_after_ + " would stop the ranks at different cases; leave it out");
  }

 private:
  static bool matches(const std::string& argument, std::initializer_list<const char*> prefixes, std::string& value) {
    for (const std::string prefix : prefixes)
      if (argument.compare(0, prefix.size(), prefix) == 0) {
        value = argument.substr(prefix.size());
        return true;
      }
    return false;
  }
  static double number(const std::string& argument, const std::string& text, double least, double most) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0' || !(value >= least && value <= most))
      throw usage_error("the option " + argument + " needs a number that makes sense");
    return value;
  }

  std::string abort_after_;
};

}  // namespace shardkit::testing::detail
