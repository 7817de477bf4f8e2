// Decorators: none lets a verb slip past it, and each does what it is for.
#include "on_threads.hpp"

#include "failing_launch.hpp"
#include "recording_backend.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/comm/blobs.hpp>
#include <shardkit/comm/checked.hpp>
#include <shardkit/comm/faulty.hpp>
#include <shardkit/comm/mesh.hpp>
#include <shardkit/comm/overlay.hpp>
#include <shardkit/comm/subset.hpp>
#include <shardkit/comm/traced.hpp>

#include <array>
#include <atomic>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using any_host = shardkit::any_communicator<shardkit::host_space>;
using shardkit::communicator;
using shardkit::dtype;
using shardkit::fault_kind;
using shardkit::fault_plan;
using shardkit::in_place;
using shardkit::operation;
using shardkit::operation_state;
using shardkit::partition;
using shardkit::reduction;
using shardkit::sum;
using shardkit::view;

// ---- Every call of the list through every decorator ---------------------------------------------------------------

/// What the fields of any call point to.
struct arguments {
  float in[4] = {1, 2, 3, 4}, out[4] = {};
  partition layout = partition::balanced(4, 1);
};

// Sets each field that the call has, by name; what a call lacks is skipped.
#define SET_FIELD(field, value)                                                 \
  template <class Call>                                                         \
  auto set_##field(Call& call, arguments& a, int)->decltype(void(call.field)) { \
    (void)a;                                                                    \
    call.field = value;                                                         \
  }                                                                             \
  template <class Call>                                                         \
  void set_##field(Call&, arguments&, long) {}
SET_FIELD(in, a.in)
SET_FIELD(out, a.out)
SET_FIELD(data, a.out)
SET_FIELD(count, 4)
SET_FIELD(send_count, 3)
SET_FIELD(recv_count, 3)
SET_FIELD(layout, &a.layout)
SET_FIELD(send_layout, &a.layout)
SET_FIELD(receive_layout, &a.layout)
SET_FIELD(type, dtype::f32)
SET_FIELD(op, shardkit::maximum)
#undef SET_FIELD

template <class Call>
Call example_of(arguments& a, int line) {
  Call call{};
  set_in(call, a, 0), set_out(call, a, 0), set_data(call, a, 0), set_count(call, a, 0), set_send_count(call, a, 0);
  set_recv_count(call, a, 0), set_layout(call, a, 0), set_send_layout(call, a, 0), set_receive_layout(call, a, 0);
  set_type(call, a, 0), set_op(call, a, 0);
  call.site = {"example.cpp", "test", line};
  return call;
}

/// A plug-in with every reducing verb.
struct recording_plugin : recording_backend {
  using recording_backend::recording_backend;
  recording_plugin split(int, int, const call_site&) { return *this; }
};

// Not a template: it is compiled once.
void check_arrival(const std::vector<arrival>& log, std::size_t verb, const std::string& text, int line, bool start) {
  CAPTURE(text);
  CAPTURE(start);
  REQUIRE(log.size() == 1);
  CHECK(log[0].verb == verb);
  CHECK(log[0].text == text);
  CHECK(log[0].line == line);
  if (start) CHECK(log[0].started);
}

template <class Backend, class... Calls>
void send_all(Backend& backend, std::vector<arrival>& log, shardkit::call_list<Calls...>) {
  arguments a;
  std::size_t verb = 0;
  int line = 100;
  const auto both = [&](const auto& call) {
    const std::string text = shardkit::describe(call);
    log.clear();
    backend.perform(call);
    check_arrival(log, verb, text, line, false);
    log.clear();
    backend.start(call).wait();
    check_arrival(log, verb, text, line, true);
    ++verb;
  };
  (both(example_of<Calls>(a, ++line)), ...);
  const std::vector<shardkit::any_call> group{example_of<shardkit::all_reduce_call>(a, 1),
                                              example_of<shardkit::send_call>(a, 2)};
  ++line;
  both(shardkit::group_call{group.data(), group.size(), nullptr, {"example.cpp", "test", line}});
}

/// decorate(communicator) is handed every call, twice: as it is, and by a child of split.
template <class Decorate>
void every_verb_passes(const char* name, Decorate decorate) {
  CAPTURE(std::string(name));
  const auto log = std::make_shared<std::vector<arrival>>();
  auto comm = decorate(communicator<recording_backend>(recording_backend(log)), log);
  send_all(comm.backend(), *log, shardkit::all_calls{});
  auto child = comm.split(0);
  send_all(child.backend(), *log, shardkit::all_calls{});
  CHECK(comm.exchange(7) == std::vector<int>{7});
}

}  // namespace

TEST_CASE("every verb reaches the wrapped backend exactly once, through every decorator and stacks of them") {
  using comm_type = communicator<recording_backend>;
  using log_type = std::shared_ptr<std::vector<arrival>>;
  const auto always = [](reduction, dtype, std::size_t) { return true; };
  every_verb_passes("erase", [](comm_type&& comm, const log_type&) { return erase(std::move(comm)); });
  every_verb_passes("checked", [](comm_type&& comm, const log_type&) { return with_checks(std::move(comm)); });
  every_verb_passes("faulty", [](comm_type&& comm, const log_type&) { return with_faults(std::move(comm), {}); });
  every_verb_passes("traced", [](comm_type&& comm, const log_type&) { return with_trace(std::move(comm)); });
  for (const bool plugged : {false, true})
    every_verb_passes("overlay", [&](comm_type&& comm, const log_type& log) {
      return with_overlay(std::move(comm), recording_plugin(log),
                          [=](reduction, dtype, std::size_t) { return plugged; });
    });
  every_verb_passes("all of them", [&](comm_type&& comm, const log_type& log) {
    return erase(
        with_checks(with_faults(with_trace(with_overlay(std::move(comm), recording_plugin(log), always)), {})));
  });
}

// ---- faulty --------------------------------------------------------------------------------------------------------

TEST_CASE("a planned error is thrown at its call, and the peers learn who failed") {
  for (int ranks : {2, 3, 5})
    for (const std::uint64_t at_call : {1u, 2u, 4u}) {
      fault_plan plan;
      plan.kind = fault_kind::error;
      plan.rank = ranks - 1;
      plan.call = at_call;
      const auto result = launch(ranks, [&](auto& world, auto& clock) {
        auto comm = with_faults(std::move(world), plan);
        auto child = comm.split(0);  // counts as call 1
        for (std::uint64_t call = 2; call < 6; ++call) {
          if (comm.rank() == plan.rank && call == plan.call) clock.strike();
          child.barrier();
        }
      });
      CHECK_THROWS_AS(std::rethrow_exception(result.thrown), shardkit::injected_fault);
      CHECK(result.reported_rank == ranks - 1);
      CHECK(result.caller.says("injected at call " + std::to_string(at_call)));
      check_peers(result, ranks - 1, "injected");
    }
}

TEST_CASE("a rank that drops out is missed by its peers, and gives up when they do") {
  fault_plan plan;
  plan.kind = fault_kind::drop_out;
  plan.rank = 1;
  plan.call = 3;
  const auto result = launch(
      3,
      [&](auto& world, auto&) {
        auto comm = with_faults(std::move(world), plan);
        for (int call = 0; call < 5; ++call) comm.all_reduce(1, sum);
      },
      0.3);
  CHECK(result.caller.how == ending::timeout);
  CHECK(result.caller.says("rank 1 did not arrive"));
  CHECK(result[1].how == ending::peer_failed);
}

TEST_CASE("a planned delay and random jitter change no result") {
  fault_plan plan;
  plan.kind = fault_kind::delay;
  plan.seconds = 0.05;
  plan.call = 2;
  plan.longest_jitter = 1e-3;
  std::atomic<double> slowest{0};
  shardkit::run_ranks(3, [&](thread_communicator& world) {
    auto comm = with_faults(std::move(world), plan);
    const double start = seconds_now();
    for (int call = 0; call < 10; ++call) CHECK(comm.all_reduce(comm.rank() + call, sum) == 3 + 3 * call);
    if (comm.is_root()) slowest = seconds_now() - start;
  });
  CHECK(slowest.load() >= 0.05);
}

TEST_CASE("random faults are the same for the same seed, and differ between seeds") {
  std::array<int, 4> kinds{};
  int different = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const fault_plan plan = shardkit::random_fault(seed, 3, 10), again = shardkit::random_fault(seed, 3, 10),
                     next = shardkit::random_fault(seed + 1, 3, 10);
    CHECK(plan.kind == again.kind);
    CHECK(plan.rank == again.rank);
    CHECK(plan.call == again.call);
    different += plan.kind != next.kind || plan.rank != next.rank || plan.call != next.call;
    CHECK(plan.rank >= 0);
    CHECK(plan.rank < 3);
    CHECK(plan.call >= 1);
    CHECK(plan.call <= 10);
    ++kinds[static_cast<std::size_t>(plan.kind)];
  }
  CHECK(kinds[0] == 0);
  for (std::size_t kind = 1; kind < kinds.size(); ++kind) CHECK(kinds[kind] > 30);
  CHECK(different > 150);
}

// ---- traced --------------------------------------------------------------------------------------------------------

TEST_CASE("an error that passes carries the last 64 operations, the latest first") {
  const auto result = launch(2, [](auto& world, auto&) {
    auto comm = with_trace(std::move(world));
    std::vector<double> x(3);
    for (int i = 0; i < 70; ++i) comm.all_reduce(in_place(x), shardkit::maximum, from_line("loop.cpp", 12));
    auto pending = comm.recv_async(x, 1 - comm.rank(), from_line("late.cpp", 5));
    if (comm.rank() == 0) comm.broadcast(x, 1, from_line("one.cpp", 3));
    else comm.barrier(from_line("other.cpp", 4));
  });
  CHECK(result.caller.how == ending::mismatch);
  for (const ending& rank : result.ranks) {
    INFO(rank.what);
    CHECK(rank.says("the latest first:\n  72 "));
    CHECK(rank.says("failed, at o"));
    CHECK(rank.says("\n  71 recv(3 x f64, rank "));
    CHECK(rank.says("started, at late.cpp:5"));
    CHECK(rank.says("\n  70 all_reduce(3 x f64, maximum), done, at loop.cpp:12"));
    CHECK(rank.says("\n  9 all_reduce"));
    CHECK(!rank.says("\n  8 all_reduce"));
    CHECK(rank.context.operation.find("latest") == std::string::npos);
  }
}

namespace {

/// Rank 0 misses the other one, which has not left: it stays until rank 0 has.
struct missed {
  missed(int rank, std::atomic<bool>& over) : rank_(rank), over_(over) {}
  ~missed() {
    if (rank_ == 0) over_ = true;
    while (!over_) shardkit::detail::sleep_seconds(0.002);
  }

 private:
  int rank_;
  std::atomic<bool>& over_;
};

struct traced_failure {
  const char* what;
  void (*make)(any_host& comm, int rank);  ///< throws on rank 0, at least
  ending::kind how;
};

const std::vector<traced_failure>& traced_failures() {
  using shardkit::control_topic;
  static const std::vector<traced_failure> all{
      {"sizes that do not fit", [](any_host& comm, int) { comm.all_reduce(std::vector<int>(2), view<int>(), sum); },
       ending::usage},
      {"a root that does not exist", [](any_host& comm, int) { comm.broadcast(view<int>(), 7); }, ending::usage},
      {"a reduction that the type lacks",
       [](any_host& comm, int) {
         std::vector<float> x(2);
         comm.all_reduce(in_place(x), shardkit::bit_and);
       },
       ending::unsupported},
      {"a group's body",
       [](any_host& comm, int) { comm.group([](auto& g) { g.send(view<const int>(nullptr, 3), 0); }); }, ending::usage},
      {"a split", [](any_host& comm, int) { (void)comm.split(-1); }, ending::usage},
      {"a subset", [](any_host& comm, int) { (void)shardkit::subset(comm, {}); }, ending::usage},
      {"a mesh",
       [](any_host& comm, int) {
         shardkit::mesh grid(comm, {{"data", 3}});
       },
       ending::usage},
      {"metadata", [](any_host& comm, int) { (void)broadcast_bytes(comm, std::string(), 2); }, ending::usage},
      {"verify_same", [](any_host& comm, int rank) { verify_same(comm, std::vector<int>(1, rank), "it"); },
       ending::mismatch},
      {"a call that nobody joins",
       [](any_host& comm, int rank) {
         if (rank == 0) comm.barrier();
       },
       ending::timeout},
      {"a request that nobody joins",
       [](any_host& comm, int rank) {
         if (rank == 0) comm.barrier_async().wait();
       },
       ending::timeout},
      {"several requests that nobody joins",
       [](any_host& comm, int rank) {
         if (rank != 0) return;
         std::vector<int> x(1);
         shardkit::request pending[] = {comm.recv_async(x, 1), comm.barrier_async()};
         wait_all(pending, 2);
       },
       ending::timeout},
      {"a control message that nobody posts",
       [](any_host& comm, int rank) {
         if (rank == 0) (void)comm.control().take(1, control_topic::user);
       },
       ending::timeout},
      {"a control message to nobody",
       [](any_host& comm, int rank) {
         if (rank == 0) comm.control().post(2, control_topic::user, {});
       },
       ending::usage},
      {"a peer that has failed",
       [](any_host& comm, int rank) {
         if (rank == 0) (void)comm.control().exchange(control_topic::user, {});
         comm.fail("tired");
       },
       ending::peer_failed},
      {"a request whose peer has failed",
       [](any_host& comm, int rank) {
         if (rank != 0) return comm.fail("tired");
         std::vector<int> x(1);
         comm.recv_async(x, 1).wait();
       },
       ending::peer_failed},
  };
  return all;
}

}  // namespace

TEST_CASE("every kind of error of a traced communicator prints what came before, also below other decorators") {
  for (const traced_failure& one : traced_failures())
    for (const bool checks : {false, true}) {
      CAPTURE(std::string(one.what));
      CAPTURE(checks);
      std::atomic<bool> over{false};
      const auto result = launch(
          2,
          [&](auto& world, auto&) {
            const int rank = world.rank();
            auto traced = with_trace(std::move(world));
            any_host comm = checks ? erase(with_checks(std::move(traced))) : erase(std::move(traced));
            (void)comm.exchange(1, from_line("before.cpp", 7));
            const missed at_end(rank, over);
            one.make(comm, rank);
          },
          0.3);
      INFO(result[0].what);
      CHECK(result[0].how == one.how);
      CHECK(result[0].says("the latest first:\n"));
      CHECK(result[0].says("exchange(4 x u8), done, at before.cpp:7"));
      CHECK(result[0].context.rank == 0);
      CHECK(result[0].context.size == 2);
      CHECK(!result[0].context.operation.empty());
      CHECK(result[0].context.site.known());
    }
}

namespace {

/// What a hook was told, one line for each operation that ended.
struct told {
  int begun = 0, ended = 0;
  std::vector<std::string> lines;

  shardkit::operation_hook hook() {
    shardkit::operation_hook result;
    result.begin = [](void* context, const operation& what) noexcept {
      CHECK(what.state == operation_state::begun);
      ++static_cast<told*>(context)->begun;
    };
    result.end = [](void* context, const operation& what) noexcept {
      told& me = *static_cast<told*>(context);
      ++me.ended;
      me.lines.push_back(std::to_string(what.communicator) + ": " + describe(what) + " " +
                         std::to_string(what.bytes()));
    };
    result.context = this;
    return result;
  }
};

}  // namespace

TEST_CASE("the hook is told of each operation as it begins and as it ends") {
  told notes;
  shardkit::run_ranks(2, [&](thread_communicator& world) {
    const auto hook = world.rank() == 0 ? notes.hook() : shardkit::operation_hook{};
    auto comm = with_trace(std::move(world), hook);
    const auto here = from_line("a.cpp", 1);
    std::vector<float> x(4), y(4);
    const partition cut = partition::balanced(4, 2);
    const int peer = 1 - comm.rank();
    auto child = comm.split(0, 0, "", here);
    child.all_reduce(in_place(x), by_rank(sum), here);
    comm.all_gather(in_place(x), cut, here);
    auto receive = comm.recv_async(y, peer, here);
    comm.send(x, peer, here);
    receive.wait();
    comm.send_recv(x, peer, y, peer, here);
    (void)comm.exchange(std::int16_t{1}, here);
    comm.group([&](auto& g) { g.broadcast(x, 1); }, here);
  });
  CHECK(notes.begun == notes.ended);
  CHECK(notes.lines ==
        std::vector<std::string>{
            "0: 1 split(), done, at a.cpp:1 0", "1: 1 all_reduce(4 x f32, by_rank sum), done, at a.cpp:1 16",
            "0: 2 all_gather(4 x f32), done, at a.cpp:1 16", "0: 4 send(4 x f32, rank 1), done, at a.cpp:1 16",
            "0: 3 recv(4 x f32, rank 1), done, at a.cpp:1 16",
            "0: 5 send_recv(4 x f32, receives 4, to 1, from 1), done, at a.cpp:1 32",
            "0: 6 exchange(2 x u8), done, at a.cpp:1 2", "0: 7 group(1 calls), done, at a.cpp:1 0"});
}

// ---- checked, where the lane itself is wrong -----------------------------------------------------------------------

namespace {

/// A rank that has found what is wrong does not leave before the others have ended, too: they hear of it by themselves.
template <class Body>
failed_launch launch_of_stayers(int ranks, Body body, double operation = 30) {
  std::atomic<int> ended{0};
  const auto stay = [&](auto& world, auto&) {
    const int rank = world.rank();
    try {
      body(world, rank);
    } catch (...) {
      ++ended;
      for (const double start = seconds_now(); ended < ranks && seconds_now() < start + 4;)
        shardkit::detail::sleep_seconds(0.002);
      throw;
    }
  };
  return launch(ranks, stay, operation);
}

}  // namespace

TEST_CASE("a checked rank that cannot read a fingerprint tells the others, which wait for it") {
  const auto result = launch_of_stayers(3, [](auto& world, int rank) {
    auto comm = with_checks(std::move(world));
    if (rank == 1) comm.control().post(0, shardkit::control_topic::fingerprint, {'?'});
    comm.barrier();
  });
  CHECK(result[0].how == ending::other);  // transport_error
  CHECK(result[0].says("too short"));
  for (int rank = 1; rank < 3; ++rank) {
    CHECK(result[rank].how == ending::peer_failed);
    CHECK(result[rank].says("too short"));
    CHECK(result[rank].time - result.struck < promptly);
  }
}

TEST_CASE("a checked rank that gets a fingerprint out of order tells the others") {
  const auto result = launch_of_stayers(3, [](auto& world, int rank) {
    auto comm = with_checks(std::move(world));
    const shardkit::detail::call_record seventh{{shardkit::detail::call_record::kind::collective, 7, 0, 0, 0}, "?"};
    if (rank == 1) comm.control().post(0, shardkit::control_topic::fingerprint, seventh.packed());
    comm.barrier();
  });
  CHECK(result[0].how == ending::usage);
  for (int rank = 0; rank < 3; ++rank) {
    CHECK((rank == 0 || result[rank].how == ending::peer_failed));
    CHECK(result[rank].says("fingerprints come out of order"));
    CHECK(result[rank].time - result.struck < promptly);
  }
}

TEST_CASE("a rank that is checked twice is told so at once, and so are the others") {
  for (const bool hidden : {false, true}) {
    const auto result = launch_of_stayers(3, [&](auto& world, int rank) {
      auto once = with_checks(std::move(world));
      if (rank == 0 && !hidden) (void)with_checks(std::move(once), shardkit::call_site{"twice.cpp", "test", 7});
      any_host comm = erase(std::move(once));
      if (rank == 0) (void)with_checks(with_trace(std::move(comm)), shardkit::call_site{"twice.cpp", "test", 7});
      for (int call = 0; call < 3; ++call) comm.barrier();
    });
    CHECK(result[0].how == ending::usage);
    CHECK(result[0].says("is checked already: put checks around it once, on all ranks"));
    CHECK(result[0].context.rank == 0);
    CHECK(result[0].context.size == 3);
    CHECK(result[0].context.operation == "with_checks");
    CHECK(result[0].says("twice.cpp:7"));
    for (int rank = 1; rank < 3; ++rank) {
      CHECK(result[rank].how == ending::peer_failed);
      CHECK(result[rank].says("is checked already"));
      CHECK(result[rank].time - result.struck < promptly);
    }
  }
}

TEST_CASE("a checked communicator refuses buffers that no element can begin at, before anything is sent") {
  using floats = view<float>;
  using make = void (*)(any_host & comm, floats crooked, floats straight);
  const std::pair<const char*, make> all[] = {
      {"in", [](any_host& comm, floats crooked, floats straight) { comm.all_reduce(crooked, straight, sum); }},
      {"out", [](any_host& comm, floats crooked, floats straight) { comm.all_reduce(straight, crooked, sum); }},
      {"the buffer", [](any_host& comm, floats crooked, floats) { comm.broadcast(crooked, 0); }},
      {"in", [](any_host& comm, floats crooked, floats) { comm.send(crooked, 0); }},
      {"out", [](any_host& comm, floats crooked, floats) { comm.recv_async(crooked, 0).wait(); }},
      {"out", [](any_host& comm, floats crooked,
                 floats straight) { comm.group([&](auto& g) { g.send_recv(straight, 0, crooked, 0); }); }},
  };
  for (const auto& one : all) {
    CAPTURE(one.first);
    const auto result = launch(2, [&](auto& world, auto&) {
      any_host comm = erase(with_checks(std::move(world)));
      alignas(8) unsigned char bytes[64] = {};
      comm.broadcast(view(bytes + 1, 8), 0);  // bytes begin anywhere
      if (comm.rank() == 0) return comm.barrier();
      one.second(comm, floats(reinterpret_cast<float*>(bytes + 2), 4), floats(reinterpret_cast<float*>(bytes + 32), 4));
    });
    CHECK(result[1].how == ending::usage);
    for (const ending& rank : result.ranks) {
      INFO(rank.what);
      CHECK(rank.says(std::string(one.first) + " begins at an address that is no multiple of the 4 bytes of a f32"));
      CHECK(rank.says("align the buffer"));
    }
  }
}

// ---- overlay -------------------------------------------------------------------------------------------------------

namespace {

/// Writes a number where the real result would be, so that a test can see who did it.
struct marking_plugin {
  std::vector<float> input = std::vector<float>(8);

  void perform(const shardkit::all_reduce_call& call) {
    for (std::size_t i = 0; i < call.count; ++i) static_cast<float*>(call.out)[i] = 42;
  }
  void* reduce_input(std::size_t bytes) { return bytes <= 8 * sizeof(float) ? input.data() : nullptr; }
};
struct splitting_plugin : marking_plugin {
  splitting_plugin split(int, int, const call_site&) { return {}; }
};

const auto small_sums = [](reduction op, dtype, std::size_t bytes) {
  return op.kind == shardkit::reduction_kind::sum && bytes <= 64;
};

}  // namespace

TEST_CASE("an overlay takes the reductions that its predicate chooses; all else goes to the backend below") {
  shardkit::run_ranks(2, [&](thread_communicator& world) {
    auto comm = with_overlay(std::move(world), marking_plugin{}, small_sums);
    std::vector<float> x(16, 1), y(17, 1), half(8, 1), from_group(16, 1), later(16, 1);
    comm.all_reduce(in_place(x), sum);
    CHECK(x[15] == 42);
    comm.all_reduce(in_place(y), sum);  // too many bytes
    CHECK(y[16] == 2);
    comm.all_reduce(in_place(half), shardkit::maximum);  // another reduction
    CHECK(half[0] == 1);
    comm.reduce_scatter(std::vector<float>(16, 1), half, sum);  // a verb that the plug-in lacks
    CHECK(half[0] == 2);
    comm.group([&](auto& g) { g.all_reduce(in_place(from_group), sum); });
    CHECK(from_group[0] == 2);
    comm.all_reduce_async(in_place(later), sum).wait();  // the plug-in has no start
    CHECK(later[0] == 2);

    auto child = comm.split(0);  // the plug-in cannot be split
    x.assign(16, 1);
    child.all_reduce(in_place(x), sum);
    CHECK(x[0] == 2);

    CHECK(comm.backend().reduce_input<float>(8).data() != nullptr);
    CHECK(comm.backend().reduce_input<float>(8).size() == 8);
    CHECK(comm.backend().reduce_input<float>(9).data() == nullptr);                     // none of that size
    CHECK(comm.backend().reduce_input<float>(8, shardkit::maximum).data() == nullptr);  // goes below
    CHECK(child.backend().reduce_input<float>(8).data() == nullptr);
  });
  shardkit::run_ranks(2, [&](thread_communicator& world) {
    auto child = with_overlay(std::move(world), splitting_plugin{}, small_sums).split(0);
    std::vector<float> x(16, 1);
    child.all_reduce(in_place(x), sum);
    CHECK(x[0] == 42);
  });
}

TEST_CASE("a predicate that decides by rank is refused on every rank") {
  const auto result = launch(3, [](auto& world, auto&) {
    const bool eager = world.rank() == 2;
    (void)with_overlay(std::move(world), marking_plugin{},
                       [eager](reduction, dtype, std::size_t bytes) { return eager && bytes > 1000; });
  });
  for (const ending& rank : result.ranks) {
    CHECK(rank.how == ending::mismatch);
    CHECK(rank.says("rank 0 and rank 2 decide differently"));
  }
}
