#include <shardkit/core/at.hpp>
#include <shardkit/core/error.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <type_traits>

namespace {

shardkit::error_context context_at(int rank, std::string operation, shardkit::call_site site = {}) {
  return {rank, 4, "tensor", std::move(operation), 7, site};
}

// As a verb and a layer above it are written: both take `at` by default and pass it on.
shardkit::call_site verb(shardkit::at<shardkit::host_space> w = {}) { return w.site; }
shardkit::call_site layer(shardkit::at<shardkit::host_space> w = {}) { return verb(w); }
template <class T>
shardkit::call_site layer_template(T, shardkit::at<shardkit::host_space> w = {}) {
  return verb(w);
}

}  // namespace

static_assert(std::is_base_of_v<std::exception, shardkit::error>);
static_assert(std::is_base_of_v<shardkit::error, shardkit::usage_error>);
static_assert(std::is_base_of_v<shardkit::error, shardkit::unsupported_error>);
static_assert(std::is_base_of_v<shardkit::error, shardkit::checkpoint_error>);
static_assert(std::is_base_of_v<shardkit::communication_error, shardkit::peer_failed>);
static_assert(std::is_base_of_v<shardkit::communication_error, shardkit::timeout_error>);
static_assert(std::is_base_of_v<shardkit::communication_error, shardkit::mismatch_error>);
static_assert(std::is_base_of_v<shardkit::communication_error, shardkit::transport_error>);

TEST_CASE("An error says its message, and then everything that was attached") {
  shardkit::usage_error wrong("out is too small");
  CHECK(std::string(wrong.what()) == "shardkit: out is too small");
  wrong.attach(context_at(2, "all_gather(5 x f32)", {"engine.cpp", "forward", 42}));
  CHECK(std::string(wrong.what()) ==
        "shardkit: out is too small [rank 2 of 4 of 'tensor', all_gather(5 x f32), call 7, "
        "at engine.cpp:42 in forward]");
  CHECK(wrong.message() == "out is too small");
}

TEST_CASE("What is not known is not said") {
  shardkit::error plain("x");
  plain.attach({0, 1, "", "", 0, {}});
  CHECK(std::string(plain.what()) == "shardkit: x [rank 0 of 1]");
}

TEST_CASE("The innermost context is the one to report") {
  shardkit::error failure("x");
  failure.attach(context_at(1, "inner"));
  failure.attach(context_at(3, "outer"));
  CHECK(failure.context().rank == 1);
  CHECK(failure.context().operation == "inner");
}

TEST_CASE("A passing error keeps its type and text while context is attached to it") {
  bool seen = false;
  try {
    try {
      throw shardkit::peer_failed(3, "out of memory");
    } catch (shardkit::error& passing) {
      passing.attach(context_at(0, "barrier()"));
      throw;
    }
  } catch (const shardkit::peer_failed& failure) {
    seen = true;
    CHECK(failure.culprit() == 3);
    CHECK(failure.message() == "rank 3 failed: out of memory");
    CHECK(failure.context().operation == "barrier()");
  }
  CHECK(seen);
}

TEST_CASE("Copies of an error carry the context") {
  shardkit::timeout_error original("too late");
  original.attach(context_at(1, "recv"));
  const shardkit::timeout_error copy = original;
  CHECK(std::string(copy.what()) == original.what());
}

TEST_CASE("Default arguments take the line of the outermost call") {
  const int line = __LINE__;
  const shardkit::call_site direct = verb();
  const shardkit::call_site nested = layer();
  const shardkit::call_site templated = layer_template(1);
  const shardkit::call_site with_stream = layer(shardkit::host_space::stream{});
  CHECK(direct.line == line + 1);
  CHECK(nested.line == line + 2);
  CHECK(templated.line == line + 3);
  CHECK(with_stream.line == line + 4);
  CHECK(std::string_view(direct.file).find("error.cpp") != std::string_view::npos);
  CHECK(direct.known());
  CHECK(!shardkit::call_site{}.known());
}
