// What the tests of the CUDA double share: a session that must end without a report, and expectations about reports.
#pragma once

#include <doctest/doctest.h>
#include <double/control.hpp>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <vector>

namespace cuda_double_test {

using shardkit_double::report_kind;

// Deliberate races on memory that the host can reach are ThreadSanitizer's too.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool thread_sanitizer_watches = true;
#elif defined(__has_feature)
inline constexpr bool thread_sanitizer_watches = __has_feature(thread_sanitizer);
#else
inline constexpr bool thread_sanitizer_watches = false;
#endif

#define OK(call) CHECK((call) == cudaSuccess)

/// Begins with a fresh double and checks at its end that nothing was found that the test did not expect.
class session {
 public:
  session() { shardkit_double::reset(); }
  ~session() {
    std::string text;
    for (const shardkit_double::report& r : shardkit_double::reset())
      text += std::string(to_string(r.kind)) + ": " + r.text + "\n";
    CHECK_MESSAGE(text.empty(), text);
  }
  session(const session&) = delete;
  session& operator=(const session&) = delete;
};

/// Checks that exactly one thing was found, of this kind, with all these words in its text, and forgets it.
inline void expect_report(report_kind kind, const std::vector<std::string>& words = {}) {
  const std::string text = shardkit_double::report_text();
  INFO(text);
  const auto found = shardkit_double::reports();
  CHECK(found.size() == 1);
  if (!found.empty()) {
    CHECK(to_string(found[0].kind) == std::string(to_string(kind)));
    for (const std::string& word : words) CHECK_MESSAGE(found[0].text.find(word) != std::string::npos, word);
  }
  shardkit_double::clear_reports();
}

inline void expect_no_report() {
  const std::string text = shardkit_double::report_text();
  CHECK_MESSAGE(text.empty(), text);
  shardkit_double::clear_reports();
}

template <class T = float>
T* device_memory(std::size_t count) {
  void* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, count * sizeof(T)) == cudaSuccess);
  return static_cast<T*>(memory);
}

template <class T = float>
T* pinned_memory(std::size_t count) {
  void* memory = nullptr;
  REQUIRE(cudaMallocHost(&memory, count * sizeof(T)) == cudaSuccess);
  return static_cast<T*>(memory);
}

inline cudaStream_t new_stream(unsigned flags = cudaStreamNonBlocking) {
  cudaStream_t stream = nullptr;
  REQUIRE(cudaStreamCreateWithFlags(&stream, flags) == cudaSuccess);
  return stream;
}

inline cudaEvent_t new_event() {
  cudaEvent_t event = nullptr;
  REQUIRE(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  return event;
}

/// Streams, events and memory that a test needs again and again: a is written by the first stream and read by the
/// second, on device 0.
struct two_streams {
  static constexpr std::size_t count = 64;
  static constexpr std::size_t bytes = count * sizeof(float);

  explicit two_streams(unsigned flags = cudaStreamNonBlocking) : first(new_stream(flags)), second(new_stream(flags)) {}
  ~two_streams() {
    OK(cudaDeviceSynchronize());
    OK(cudaFree(a));
    OK(cudaFree(b));
    OK(cudaEventDestroy(event));
    OK(cudaStreamDestroy(first));
    OK(cudaStreamDestroy(second));
  }
  two_streams(const two_streams&) = delete;
  two_streams& operator=(const two_streams&) = delete;

  void write(cudaStream_t stream) { OK(cudaMemsetAsync(a, 0, bytes, stream)); }
  void read(cudaStream_t stream) { OK(cudaMemcpyAsync(b, a, bytes, cudaMemcpyDeviceToDevice, stream)); }

  float* a = device_memory(count);
  float* b = device_memory(count);
  cudaEvent_t event = new_event();
  cudaStream_t first;
  cudaStream_t second;
};

}  // namespace cuda_double_test
