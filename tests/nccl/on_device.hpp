// A host communicator whose calls run on device memory over another backend, so that the conformance suite, which is
// written for host memory, tells of device backends: inputs are copied to buffers of Memory before a call, outputs back
// after it. These buffers have exactly the sizes that the call documents.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include <shardkit/cuda/space.hpp>
#include <shardkit/cuda/stream.hpp>

#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace nccl_test {

using namespace shardkit;

/// The host memory that a call reads and writes.
struct host_range {
  char* first = nullptr;
  std::size_t bytes = 0;
};
struct host_ranges {
  host_range in, out;
};

template <class Call>
host_ranges ranges_of(const Call& call, int rank, int size) {
  host_ranges result;
  if constexpr (!std::is_same_v<Call, barrier_call> && !std::is_same_v<Call, group_call>) {
    const std::size_t each = size_of(call.type), ranks = static_cast<std::size_t>(size);
    const auto in = [&](const void* at, std::size_t count) {
      result.in = {static_cast<char*>(const_cast<void*>(at)), count * each};
    };
    const auto out = [&](void* at, std::size_t count) { result.out = {static_cast<char*>(at), count * each}; };
    if constexpr (std::is_same_v<Call, broadcast_call>) out(call.data, call.count);
    if constexpr (std::is_same_v<Call, all_reduce_call>) in(call.in, call.count), out(call.out, call.count);
    if constexpr (std::is_same_v<Call, reduce_call>)
      in(call.in, call.count), out(call.out, rank == call.root ? call.count : 0);
    if constexpr (std::is_same_v<Call, all_gather_call>) in(call.in, call.count), out(call.out, call.count * ranks);
    if constexpr (std::is_same_v<Call, all_gather_uneven_call>)
      in(call.in, call.layout->count(rank)), out(call.out, call.layout->total());
    if constexpr (std::is_same_v<Call, reduce_scatter_call>) in(call.in, call.count * ranks), out(call.out, call.count);
    if constexpr (std::is_same_v<Call, reduce_scatter_uneven_call>)
      in(call.in, call.layout->total()), out(call.out, call.layout->count(rank));
    if constexpr (std::is_same_v<Call, gather_call>)
      in(call.in, call.count), out(call.out, rank == call.root ? call.count * ranks : 0);
    if constexpr (std::is_same_v<Call, gather_uneven_call>)
      in(call.in, call.layout->count(rank)), out(call.out, rank == call.root ? call.layout->total() : 0);
    if constexpr (std::is_same_v<Call, scatter_call>)
      in(call.in, rank == call.root ? call.count * ranks : 0), out(call.out, call.count);
    if constexpr (std::is_same_v<Call, scatter_uneven_call>)
      in(call.in, rank == call.root ? call.layout->total() : 0), out(call.out, call.layout->count(rank));
    if constexpr (std::is_same_v<Call, all_to_all_call>)
      in(call.in, call.count * ranks), out(call.out, call.count * ranks);
    if constexpr (std::is_same_v<Call, all_to_all_uneven_call>)
      in(call.in, call.send_layout->total()), out(call.out, call.receive_layout->total());
    if constexpr (std::is_same_v<Call, send_call>) in(call.in, call.count);
    if constexpr (std::is_same_v<Call, recv_call>) out(call.out, call.count);
    if constexpr (std::is_same_v<Call, send_recv_call>) in(call.in, call.send_count), out(call.out, call.recv_count);
  }
  return result;
}

template <class Backend, class Memory = cuda_space>
class on_device {
 public:
  using space = host_space;

  explicit on_device(Backend base) : shared_(std::make_shared<shared>(std::move(base))) {}

  int rank() const noexcept { return shared_->base.rank(); }
  int size() const noexcept { return shared_->base.size(); }

  template <class Call>
  void perform(const Call& call) {
    start(call).wait();
  }
  template <class Call>
  request start(const Call& call) {
    auto pending = std::make_unique<staged>(shared_);
    const Call moved = shared_->moved(call, *pending);
    pending->begin(shared_->base.start(moved));
    return request(pending.release());
  }
  request start(const group_call& group) {
    auto pending = std::make_unique<staged>(shared_);
    std::vector<any_call> calls;
    for (std::size_t i = 0; i < group.count; ++i)
      visit([&](const auto& call) { calls.emplace_back(shared_->moved(call, *pending)); }, group.calls[i]);
    pending->begin(shared_->base.start(group_call{calls.data(), calls.size(), shared_->stream.handle(), group.site}));
    return request(pending.release());
  }

  on_device split(int colour, int key, const call_site& site) {
    return on_device(shared_->base.base().split(colour, key, site));
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    shared_->base.exchange(in, out, bytes, site);
  }
  control_lane& control() { return shared_->base.base().control(); }
  void fail(const std::string& reason) noexcept { shared_->base.fail(reason); }

 private:
  struct shared;

  /// A call under way: what is to be copied back once its stream has done it.
  class staged final : public pending_call {
   public:
    explicit staged(std::shared_ptr<shared> of) : of_(std::move(of)) {}
    virtual ~staged() {
      for (auto& [bytes, memory] : blocks_) of_->idle[bytes].push_back(memory);
    }

    /// Device memory of exactly so many bytes.
    char* block(std::size_t bytes) {
      auto& idle = of_->idle[bytes];
      void* memory = nullptr;
      if (idle.empty()) memory = Memory::allocate(bytes);
      else memory = idle.back(), idle.pop_back();
      blocks_.emplace_back(bytes, memory);
      return static_cast<char*>(memory);
    }
    void bring_back(const host_range& to, const char* from) {
      if (to.bytes != 0) results_.push_back({to, from, std::vector<char>(to.bytes)});
    }
    /// What is left of the call may be nothing.
    void begin(request rest) {
      rest_ = std::move(rest);
      if (!rest_.active()) fetch();
    }
    void fetch() {
      for (result& one : results_) cuda_space::copy(one.bytes.data(), one.from, one.to.bytes, of_->stream);
      cuda_check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
      cuda_check(cudaEventRecord(done_, of_->stream.handle()), "cudaEventRecord", of_->stream.handle());
    }

    bool test() override {
      if (rest_.active()) {
        if (!rest_.test()) return false;
        fetch();
      }
      of_->base.base().throw_if_failed();
      const cudaError_t code = cudaEventQuery(done_);
      if (code == cudaErrorNotReady) return false;
      cuda_check(code, "cudaEventQuery");
      for (result& one : results_) std::memcpy(one.to.first, one.bytes.data(), one.to.bytes);
      results_.clear();
      return true;
    }
    void wait() override {
      if (detail::wait_for(
              20, deadline(), [&] { return test(); }, [] { return false; }) != detail::wait_result::ready)
        expire();
    }
    double deadline() const noexcept override { return 20; }
    [[noreturn]] void expire() override {
      of_->base.fail("a call on the device did not end");
      throw timeout_error("a call on the device did not end");
    }
    void release() noexcept override {
      rest_ = request();
      if (done_ != nullptr) (void)cudaEventDestroy(done_);
      delete this;
    }

   private:
    struct result {
      host_range to;
      const char* from;
      std::vector<char> bytes;
    };
    std::shared_ptr<shared> of_;
    request rest_;
    std::vector<std::pair<std::size_t, void*>> blocks_;
    std::vector<result> results_;
    cudaEvent_t done_ = nullptr;
  };

  struct shared {
    explicit shared(Backend of) : base(std::move(of)) {}
    shared(const shared&) = delete;
    shared& operator=(const shared&) = delete;
    ~shared() {
      (void)cudaStreamSynchronize(stream.handle());
      for (auto& [bytes, all] : idle)
        for (void* memory : all) Memory::deallocate(memory);
    }

    /// The same call on device memory that holds what the host memory holds.
    template <class Call>
    Call moved(Call call, staged& pending) {
      call.stream = stream.handle();
      const host_ranges host = ranges_of(call, base.rank(), base.size());
      char *in = nullptr, *out = nullptr;
      const bool overlap = host.in.bytes != 0 && host.out.bytes != 0 &&
                           host.in.first < host.out.first + host.out.bytes &&
                           host.out.first < host.in.first + host.in.bytes;
      if (overlap) {
        char* const first = std::min(host.in.first, host.out.first);
        char* const last = std::max(host.in.first + host.in.bytes, host.out.first + host.out.bytes);
        char* const both = put({first, static_cast<std::size_t>(last - first)}, pending);
        in = both + (host.in.first - first);
        out = both + (host.out.first - first);
      } else {
        in = put(host.in, pending);
        out = put(host.out, pending);
      }
      pending.bring_back(host.out, out);
      if constexpr (std::is_same_v<Call, broadcast_call>) call.data = out;
      else {
        if constexpr (requires { call.in; }) call.in = in;
        if constexpr (requires { call.out; }) call.out = out;
      }
      return call;
    }
    char* put(const host_range& from, staged& pending) {
      if (from.bytes == 0) return nullptr;
      char* const block = pending.block(from.bytes);
      cuda_space::copy(block, from.first, from.bytes, stream);
      return block;
    }

    complete<Backend> base;
    cuda_stream stream;
    std::map<std::size_t, std::vector<void*>> idle;  // device blocks by size: freeing would wait for the device
  };

  std::shared_ptr<shared> shared_;
};

}  // namespace nccl_test
