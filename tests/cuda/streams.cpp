// Streams, events, their pools, the two streams of a started call, and the one wait of the library.
#include "fixture.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/checked.hpp>

#include <chrono>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using shardkit::at;
using shardkit::buffer;
using shardkit::cuda_event;
using shardkit::cuda_event_pool;
using shardkit::cuda_event_view;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::in_place;
using shardkit::pinned_space;
using shardkit::request;
using shardkit::sum;
using namespace cuda_tests;

namespace {

constexpr double for_ever = std::numeric_limits<double>::infinity();

// Writes, on a device and two streams, what a training step does: gradients on one, their reduction on the other.
struct two_streams {
  cuda_stream compute, communication;
  one_rank backend;
  shardkit::communicator<one_rank> comm{backend};
  buffer<unsigned char, cuda_space> gradients{1000}, reduced{1000}, used{1000};

  void backward() { cuda_space::fill_bytes(gradients.data(), 5, 1000, compute); }
  request reduce() { return comm.all_reduce_async(gradients, reduced, sum, shardkit::fork{compute, communication}); }
  request step() {
    backward();
    return reduce();
  }
  void use() { cuda_space::copy(used.data(), reduced.data(), 1000, compute); }
};

// Enqueues what it has started only when it has been asked about it a few times, as a backend does that first has to
// hear from its peers.
class hesitant_rank : public one_rank {
 public:
  template <class Call>
  request start(const Call& call) {
    return request(new held([*this, call]() mutable { perform(call); }));
  }
  hesitant_rank split(int, int, const shardkit::call_site&) { return {}; }

 private:
  class held final : public shardkit::pending_call {
   public:
    explicit held(std::function<void()> enqueue) : enqueue_(std::move(enqueue)) {}
    virtual ~held() = default;

    bool test() override {
      if (++asked_ == 3) enqueue_();
      return asked_ >= 3;
    }
    void wait() override {
      while (!test()) {
      }
    }
    double deadline() const noexcept override { return for_ever; }
    [[noreturn]] void expire() override { throw shardkit::timeout_error("a call that hesitates"); }
    void release() noexcept override { delete this; }

   private:
    std::function<void()> enqueue_;
    int asked_ = 0;
  };
};

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("Handles that own are destroyed once, borrowed ones never") {
  const clean_machine machine;
  cudaStream_t theirs = nullptr;
  cudaEvent_t their_event = nullptr;
  REQUIRE(cudaStreamCreate(&theirs) == cudaSuccess);
  REQUIRE(cudaEventCreate(&their_event) == cudaSuccess);
  const int streams = shardkit_double::calls("cudaStreamDestroy"), events = shardkit_double::calls("cudaEventDestroy");
  {
    const cuda_space::stream borrowed = theirs;
    const cuda_event_view event{their_event};
    buffer<char, cuda_space> memory(10);
    fill_zero(memory, borrowed);
    event.record(theirs);
    event.order_before(borrowed);
    synchronize(borrowed, deadline);
    CHECK(event.reached());
  }
  if (shardkit_double::active()) {
    CHECK(shardkit_double::calls("cudaStreamDestroy") == streams);
    CHECK(shardkit_double::calls("cudaEventDestroy") == events);
    {
      cuda_stream first, second = std::move(first);
      cuda_event one, other = std::move(one);
      second = cuda_stream();
      other = cuda_event();
    }
    CHECK(shardkit_double::calls("cudaStreamDestroy") == streams + 2);
    CHECK(shardkit_double::calls("cudaEventDestroy") == events + 2);
  }
  CHECK(cudaEventDestroy(their_event) == cudaSuccess);
  CHECK(cudaStreamDestroy(theirs) == cudaSuccess);
  static_assert(!std::is_copy_constructible_v<cuda_stream> && !std::is_copy_constructible_v<cuda_event>);
}

TEST_CASE("A native stream, an owning one, a borrowed one and none name the place of the call") {
  const auto line = [](at<cuda_space> where = {}) { return where.site.line; };
  const cuda_space::stream borrowed;
  const cudaStream_t native = nullptr;
  CHECK(line(native) == __LINE__);
  CHECK(line(borrowed) == __LINE__);
  CHECK(line(nullptr) == __LINE__);
  CHECK(line() == __LINE__);
  CHECK(cuda_space::from_native(cuda_space::native(native)).handle == native);
}

TEST_CASE("An event lets one stream wait for another, and the host ask") {
  const clean_machine machine;
  const cuda_stream first, second;
  const cuda_event event;
  buffer<unsigned char, cuda_space> a(100), b(100);
  cuda_space::fill_bytes(a.data(), 3, 100, first);
  event.record(first);
  event.order_before(second);
  cuda_space::copy(b.data(), a.data(), 100, second);
  CHECK(on_host(b, second) == std::vector<unsigned char>(100, 3));
  CHECK(event.reached());
}

TEST_CASE("A pool makes its events in advance, hands each to one holder, and makes more when it runs dry") {
  const clean_machine machine;
  const cuda_stream stream;
  const int before = shardkit_double::calls("cudaEventCreateWithFlags");
  cuda_event_pool pool(3);
  std::vector<cudaEvent_t> taken;
  for (int i = 0; i < 8; ++i) {
    taken.push_back(pool.take(stream).handle);
    for (int j = 0; j < i; ++j) CHECK(taken[static_cast<std::size_t>(j)] != taken.back());
    if (i == 2 && shardkit_double::active()) CHECK(shardkit_double::calls("cudaEventCreateWithFlags") == before + 3);
  }
  for (const cudaEvent_t event : taken) pool.give_back({event});
  const int made = shardkit_double::calls("cudaEventCreateWithFlags");
  for (int i = 0; i < 100; ++i) pool.give_back(pool.take(stream));
  CHECK(shardkit_double::calls("cudaEventCreateWithFlags") == made);
  if (shardkit::cuda_device_count() < 2) return;
  // They are events of the device that was current when the pool was made.
  std::vector<cuda_event_view> late;
  {
    const shardkit::cuda_device_guard elsewhere(1);
    while (late.size() < 20) late.push_back(pool.take(stream));
  }
  for (const auto& event : late) event.record(stream);
  synchronize(stream, deadline);
}

TEST_CASE("A guard switches the device and back, also past an exception") {
  const clean_machine machine;
  if (shardkit::cuda_device_count() < 2) return;
  CHECK(shardkit::current_cuda_device() == 0);
  try {
    const shardkit::cuda_device_guard other(1);
    CHECK(shardkit::current_cuda_device() == 1);
    const shardkit::cuda_device_guard same(1);
    throw 1;
  } catch (int) {
  }
  CHECK(shardkit::current_cuda_device() == 0);
}

TEST_CASE("A pointer that the current device cannot use is told, and what to do") {
  const clean_machine machine;
  const buffer<char, cuda_space> device(4);
  const buffer<char, pinned_space> pinned(4);
  std::vector<char> host(4);
  shardkit::require_device_pointer(device.data());
  shardkit::require_device_pointer(pinned.data());
  CHECK_THROWS_WITH_AS(shardkit::require_device_pointer(host.data()), doctest::Contains("pinned_space"),
                       shardkit::usage_error);
  if (shardkit::cuda_device_count() < 2) return;
  const shardkit::cuda_device_guard other(1);
  CHECK_THROWS_WITH_AS(shardkit::require_device_pointer(device.data()), doctest::Contains("lies on device 0"),
                       shardkit::usage_error);
}

TEST_CASE("A started call runs behind the compute stream, and its wait holds back the compute stream, not the host") {
  const clean_machine machine;
  two_streams on;
  for (int round = 0; round < 40; ++round) {
    request pending = on.step();
    pending.wait();
    on.use();
  }
  if (shardkit_double::active()) {
    CHECK(shardkit_double::calls("cudaStreamSynchronize") == 0);
    CHECK(shardkit_double::calls("cudaEventQuery") == 0);
  }
  CHECK(on_host(on.used, on.compute) == std::vector<unsigned char>(1000, 5));
  synchronize(on.communication, deadline, on.comm);
}

TEST_CASE("Calls on two streams make no events in a steady state") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  two_streams on;
  on.step().wait();
  const int before = shardkit_double::calls("cudaEventCreateWithFlags");
  for (int round = 0; round < 100; ++round) on.step().wait();
  CHECK(shardkit_double::calls("cudaEventCreateWithFlags") == before);
  synchronize(on.compute, deadline);
}

TEST_CASE("Each of the two orders between the streams of a started call is needed, and missed where it is dropped") {
  if (!shardkit_double::active()) return;
  for (const int dropped : {1, 2})
    for (const char* function : {"cudaStreamWaitEvent", "cudaEventRecord"}) {
      CAPTURE(dropped);
      CAPTURE(function);
      std::vector<shardkit_double::report> found;
      {
        two_streams on;
        shardkit_double::drop_call(function, dropped);
        on.step().wait();
        on.use();
        synchronize(on.compute, deadline);
        synchronize(on.communication, deadline);
        found = shardkit_double::reports();
      }
      CHECK(!found.empty());
      bool race = false;
      for (const auto& one : found) race = race || one.kind == shardkit_double::report_kind::race;
      CHECK(race);
      (void)shardkit_double::reset();
    }
}

TEST_CASE("A request that is dropped holds back the compute stream as its wait would") {
  const clean_machine machine;
  two_streams on;
  { const request dropped = on.step(); }
  on.use();
  CHECK(on_host(on.used, on.compute) == std::vector<unsigned char>(1000, 5));
  CHECK(on.backend.failure->empty());
}

TEST_CASE("Many started calls may be under way, and be waited for in any order, together, or not at all") {
  const clean_machine machine;
  two_streams on;
  std::vector<request> pending;
  on.backward();
  for (int i = 0; i < 40; ++i) pending.push_back(on.reduce());
  for (std::size_t i = 0; i < 10; ++i) pending[39 - i].wait();
  wait_all(pending.data(), 20);
  if (shardkit_double::active()) CHECK(shardkit_double::calls("cudaEventQuery") == 0);
  pending.clear();  // those that nobody waited for hold back the compute stream as well
  on.use();
  CHECK(on_host(on.used, on.compute) == std::vector<unsigned char>(1000, 5));
  CHECK(on.backend.failure->empty());
}

TEST_CASE("A call that is enqueued late holds back the compute stream, whichever way it is waited for") {
  const clean_machine machine;
  for (const int way : {0, 1, 2}) {
    CAPTURE(way);
    two_streams on;
    shardkit::communicator<hesitant_rank> comm{hesitant_rank()};
    on.backward();
    request pending[] = {comm.all_reduce_async(on.gradients, on.reduced, sum, {on.compute, on.communication})};
    switch (way) {
      case 0: pending[0].wait(); break;
      case 1: wait_all(pending, 1); break;
      default:
        while (!pending[0].test()) {
        }
    }
    on.use();
    CHECK(on_host(on.used, on.compute) == std::vector<unsigned char>(1000, 5));
  }
}

TEST_CASE("A request on a device can be tested, also without a second stream, and outlives its communicator") {
  const clean_machine machine;
  request last;
  const cuda_stream stream;
  buffer<unsigned char, cuda_space> a(1000), b(1000);
  {
    one_rank_communicator comm{one_rank()};
    fill_zero(a, stream);
    request pending = comm.all_reduce_async(a, b, sum, stream);
    while (!pending.test()) {
    }
    CHECK(!pending.active());
    last = comm.all_gather_async(b, a, {stream, stream});
  }
  while (!last.test()) {
  }
  CHECK(on_host(a, stream) == std::vector<unsigned char>(1000, 0));
}

TEST_CASE("A group, a checked communicator and an erased one take a fork as well") {
  const clean_machine machine;
  two_streams on;
  on.backward();
  request pending = on.comm.group_async([&](auto& g) { g.all_reduce(on.gradients, on.reduced, sum); },
                                        shardkit::fork{on.compute, on.communication});
  pending.wait();
  on.use();
  shardkit::any_communicator<cuda_space> any = erase(std::move(on.comm));
  any.all_reduce_async(on.used, on.reduced, sum, {on.compute, on.communication}).wait();
  on.use();
  CHECK(on_host(on.used, on.compute) == std::vector<unsigned char>(1000, 5));
  synchronize(on.compute, deadline, any);
}

TEST_CASE("synchronize returns after the stream's work") {
  const clean_machine machine;
  const cuda_stream stream;
  one_rank_communicator comm{one_rank()};
  buffer<unsigned char, cuda_space> device(1 << 20);
  buffer<unsigned char, pinned_space> host(1 << 20);
  cuda_space::fill_bytes(device.data(), 9, 1 << 20, stream);
  copy(host, device, stream);
  synchronize(stream, for_ever, comm, comm);
  CHECK(host[(1 << 20) - 1] == 9);
}

TEST_CASE("synchronize ends at its deadline, and every communicator given has failed") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  {
    const cuda_stream stream;
    one_rank backends[2];
    one_rank_communicator first{backends[0]}, second{backends[1], "tensor"};
    buffer<char, cuda_space> memory(10);
    shardkit_double::set_stalled(0, true);
    fill_zero(memory, stream);
    const double took = seconds_of([&] {
      CHECK_THROWS_WITH_AS(synchronize(stream, 0.2, second, first), doctest::Contains("0.2"), shardkit::timeout_error);
    });
    CHECK(took >= 0.2);
    CHECK(took < deadline);
    for (const one_rank& backend : backends) CHECK(backend.failure->find("0.2") != std::string::npos);
    shardkit_double::set_stalled(0, false);
    synchronize(stream, deadline);
  }
}

TEST_CASE("synchronize ends when a communicator has failed, also where the stream went on") {
  const clean_machine machine;
  for (const bool stalled : {false, true}) {
    if (stalled && !shardkit_double::active()) continue;
    const cuda_stream stream;
    one_rank backend;
    one_rank_communicator comm{backend};
    buffer<char, cuda_space> memory(10);
    if (stalled) shardkit_double::set_stalled(0, true);
    fill_zero(memory, stream);
    *backend.looks = stalled ? 3 : 1;
    try {
      synchronize(stream, for_ever, comm);
      FAIL("nothing was thrown");
    } catch (const shardkit::peer_failed& failure) {
      CHECK(failure.culprit() == 1);
      CHECK(failure.context().operation == "synchronize");
      CHECK(std::string(failure.context().site.file).find("streams.cpp") != std::string::npos);
    }
    CHECK(!backend.failure->empty());
    if (stalled) shardkit_double::set_stalled(0, false);
    synchronize(stream, deadline);
  }
}

TEST_CASE("synchronize reports a kernel that crashed, to the peers as well") {
  if (!shardkit_double::active()) return;
  {
    const cuda_stream stream;
    one_rank backend;
    one_rank_communicator comm{backend};
    shardkit_double::set_device_error(0, cudaErrorIllegalAddress);
    try {
      synchronize(stream, deadline, comm);
      FAIL("nothing was thrown");
    } catch (const shardkit::cuda_error& failure) {
      CHECK(failure.code() == cudaErrorIllegalAddress);
      CHECK(failure.message().find("compute-sanitizer") != std::string::npos);
    }
    CHECK(backend.failure->find("cudaErrorIllegalAddress") != std::string::npos);
    shardkit_double::set_device_error(0, 0);
  }
  (void)shardkit_double::reset();
}

TEST_CASE("synchronize without a deadline worth the name is refused") {
  const clean_machine machine;
  const cuda_stream stream;
  for (const double seconds : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()})
    CHECK_THROWS_AS(synchronize(stream, seconds), shardkit::usage_error);
}
