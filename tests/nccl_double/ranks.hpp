// Thread ranks over the NCCL double: one device, one stream and one communicator each.
#pragma once

#include <doctest/doctest.h>

#include <double/control.hpp>
#include <double/nccl_control.hpp>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace shardkit_test {

namespace doubled = shardkit_double;

struct nccl_rank {
  int rank = 0;
  int size = 1;
  ncclComm_t comm = nullptr;  ///< a body that ends it sets it to null
  cudaStream_t stream = nullptr;
};

/// Device memory that holds the given values, and is freed at the end of the scope.
template <class T>
class on_gpu {
 public:
  explicit on_gpu(const std::vector<T>& values) : count_(values.size()) {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&memory_), (count_ + 1) * sizeof(T)) == cudaSuccess);
    REQUIRE(cudaMemcpy(memory_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
    // A copy from pageable memory may return before it has arrived.
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  }
  ~on_gpu() { cudaFree(memory_); }
  on_gpu(const on_gpu&) = delete;
  on_gpu& operator=(const on_gpu&) = delete;
  T* data() { return memory_; }
  std::vector<T> values() {
    std::vector<T> host(count_);
    CHECK(cudaMemcpy(host.data(), memory_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return host;
  }

 private:
  T* memory_ = nullptr;
  std::size_t count_;
};

inline ncclUniqueId fresh_id() {
  ncclUniqueId id;
  REQUIRE(ncclGetUniqueId(&id) == ncclSuccess);
  return id;
}

/// Runs body(rank) on a thread each.
inline void on_threads(int size, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

/// Runs body on `size` ranks, each on its device with a communicator of all.
inline void on_nccl_ranks(int size, const std::function<void(nccl_rank&)>& body) {
  doubled::set_device_count(size);
  const ncclUniqueId id = fresh_id();
  on_threads(size, [&](int rank) {
    nccl_rank me{rank, size, nullptr, nullptr};
    CHECK(cudaSetDevice(rank) == cudaSuccess);
    CHECK(cudaStreamCreateWithFlags(&me.stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(ncclCommInitRank(&me.comm, size, id, rank) == ncclSuccess);
    body(me);
    if (me.comm != nullptr) CHECK(ncclCommDestroy(me.comm) == ncclSuccess);
    CHECK(cudaStreamSynchronize(me.stream) == cudaSuccess);
    CHECK(cudaStreamDestroy(me.stream) == cudaSuccess);
  });
}

/// Waits until all of `size` threads have come here as often.
class meeting_point {
 public:
  explicit meeting_point(int size) : size_(size) {}
  void wait() {
    const int mine = ++come_;
    const int goal = (mine + size_ - 1) / size_ * size_;
    while (come_ < goal) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

 private:
  std::atomic<int> come_{0};
  int size_;
};

/// True if the work of a stream ends within some milliseconds.
inline bool ends(cudaStream_t stream, int milliseconds = 60) {
  for (int i = 0; i < milliseconds; ++i) {
    if (cudaStreamQuery(stream) == cudaSuccess) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

/// Ends the test: what the double found since it began.
inline std::vector<doubled::report> found() { return doubled::reset(); }

inline int count(const std::vector<doubled::report>& reports, doubled::report_kind kind) {
  int n = 0;
  for (const doubled::report& r : reports) n += r.kind == kind ? 1 : 0;
  return n;
}

inline bool says(const std::vector<doubled::report>& reports, const std::string& text) {
  for (const doubled::report& r : reports) {
    if (r.text.find(text) != std::string::npos) return true;
  }
  return false;
}

inline std::string text_of(const std::vector<doubled::report>& reports) {
  std::string text;
  for (const doubled::report& r : reports) text += std::string(doubled::to_string(r.kind)) + ": " + r.text + '\n';
  return text;
}

/// Ends a test in which nothing may have been found.
inline void expect_nothing_found() {
  const std::vector<doubled::report> reports = found();
  CHECK_MESSAGE(reports.empty(), text_of(reports));
}

}  // namespace shardkit_test
