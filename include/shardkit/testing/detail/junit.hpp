// What has happened in a run so far, for a JUnit file of a run that is ended in its middle: doctest's own reporter
// writes when all cases have ended, and a case that hangs keeps it from that.
#pragma once

#if !__has_include(<doctest/doctest.h>)
#error "shardkit: this needs doctest; link shardkit::testing, or install doctest-dev"
#endif
#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::testing::detail {

/// Filled by the threads that run the cases, written by the one that watches them.
class junit_record {
 public:
  void begin(const doctest::TestCaseData& which) {
    const std::lock_guard<std::mutex> lock(mutex_);
    cases_.push_back({which.m_file.c_str(), which.m_name, {}, 0});
    started_ = clock::now();
  }
  void end() {
    const std::lock_guard<std::mutex> lock(mutex_);
    cases_.back().seconds = passed();
  }
  void failed(const doctest::AssertData& one) {
    add("failure", one.m_decomp.c_str(),
        std::string(one.m_file) + ":" + std::to_string(one.m_line) + ": " + one.m_expr + "\n" +
            (one.m_threw ? one.m_exception.c_str() : one.m_decomp.c_str()));
  }
  void threw(const doctest::TestCaseException& one) { add("error", "exception", one.error_string.c_str()); }

  /// Writes all cases; the last one, or the run where there is none, has `why` as an error. To standard output where
  /// `path` is empty: doctest has begun that document.
  void write(const std::string& path, const std::string& why) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (cases_.empty()) cases_.push_back({"", "the run", {}, 0});
    if (cases_.back().seconds == 0) cases_.back().seconds = passed();
    cases_.back().problems.push_back({"error", "ended", why});
    std::size_t errors = 0, failures = 0;
    std::string text;
    for (const one_case& c : cases_) {
      text += "    <testcase classname=\"" + escaped(c.file) + "\" name=\"" + escaped(c.name) + "\" time=\"" +
              std::to_string(c.seconds) + "\" status=\"run\">\n";
      for (const problem& p : c.problems) {
        ++(p.kind == "error" ? errors : failures);
        text += "      <" + p.kind + " message=\"" + escaped(p.message) + "\">" + escaped(p.details) + "</" + p.kind +
                ">\n";
      }
      text += "    </testcase>\n";
    }
    std::FILE* const file = path.empty() ? stdout : std::fopen(path.c_str(), "w");
    if (file == nullptr) return;
    std::fprintf(file, "%s<testsuites>\n  <testsuite errors=\"%zu\" failures=\"%zu\" tests=\"%zu\">\n%s",
                 path.empty() ? "" : "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", errors, failures, cases_.size(),
                 text.c_str());
    std::fputs("  </testsuite>\n</testsuites>\n", file);
    std::fflush(file);
  }

 private:
  using clock = std::chrono::steady_clock;
  struct problem {
    std::string kind, message, details;
  };
  struct one_case {
    std::string file, name;
    std::vector<problem> problems;
    double seconds = 0;
  };

  double passed() const { return std::chrono::duration<double>(clock::now() - started_).count(); }
  void add(const char* kind, std::string message, std::string details) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!cases_.empty()) cases_.back().problems.push_back({kind, std::move(message), std::move(details)});
  }
  static std::string escaped(const std::string& text) {
    std::string result;
    for (const char c : text) {
      if (c == '&') result += "&amp;";
      else if (c == '<') result += "&lt;";
      else if (c == '>') result += "&gt;";
      else if (c == '"') result += "&quot;";
      else if (static_cast<unsigned char>(c) >= ' ' || c == '\n' || c == '\t') result += c;
      else result += '?';  // XML has no place for the rest
    }
    return result;
  }

  std::mutex mutex_;
  std::vector<one_case> cases_;
  clock::time_point started_ = clock::now();
};

}  // namespace shardkit::testing::detail
