// A peer is held in the middle of a copy from, or to, this rank's buffer when the launch fails. The rank's call must
// not throw before the peer has let go: then the rank may free the buffer at once, and does.
//
// The peer is held by pages that cannot be accessed: the handler of the signal sleeps for a while and opens the page.
#include <doctest/doctest.h>
#include <shardkit/launch/run_ranks.hpp>

#include <atomic>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace {

using shardkit::in_place;
using shardkit::partition;
using shardkit::thread_communicator;
using shardkit::view;

constexpr std::size_t page = 4096, pages = 3;
// More than travels through memory of the library's own, on whatever cores.
constexpr std::size_t part_pages = 528, elements = part_pages * page / sizeof(float);
constexpr std::size_t most_parts = 9;
constexpr unsigned held_for = 20000;  // microseconds, for each page

char* guarded = nullptr;  // what is held; null once it has been given back
std::atomic<int> holding{0}, peers_held{0}, too_late{0};
thread_local bool is_owner = false;
struct sigaction former;

void hold(int signal, siginfo_t* info, void* context) {
  char* const address = static_cast<char*>(info->si_addr);
  if (guarded == nullptr || address < guarded || address >= guarded + pages * page) {
    if (former.sa_flags & SA_SIGINFO) former.sa_sigaction(signal, info, context);
    else ::sigaction(SIGSEGV, &former, nullptr);
    return;
  }
  ++holding;
  if (!is_owner) ++peers_held;
  ::usleep(held_for);
  char* const start = guarded + static_cast<std::size_t>(address - guarded) / page * page;
  // Where it has been given back meanwhile, the next signal is a crash.
  if (::mprotect(start, page, PROT_READ | PROT_WRITE) != 0) ::sigaction(SIGSEGV, &former, nullptr);
  --holding;
}

/// Memory whose pages hold whoever touches the first of them behind `before` parts.
class guarded_buffer {
 public:
  guarded_buffer(std::size_t before, std::size_t parts)
      : size_(parts * part_pages * page),
        base_(static_cast<char*>(::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    guarded = base_ + before * part_pages * page;
    ::mprotect(guarded, pages * page, PROT_NONE);
  }
  guarded_buffer(const guarded_buffer&) = delete;
  guarded_buffer& operator=(const guarded_buffer&) = delete;
  /// The owner gives its memory back at once.
  ~guarded_buffer() {
    if (holding.load() != 0) ++too_late;
    ::munmap(base_, size_);  // who comes now gets a signal that nobody handles
  }
  float* data() { return reinterpret_cast<float*>(base_); }

 private:
  std::size_t size_;
  char* base_;
};

using comm_type = thread_communicator;
using shardkit::sum;

enum : std::size_t { input, output };
/// Memory that holds nobody.
float* spare(const comm_type& comm, std::size_t which) {
  static std::vector<float> memory[4];
  std::vector<float>& mine = memory[2 * static_cast<std::size_t>(comm.rank()) + which];
  mine.resize(most_parts * elements);
  return mine.data();
}
view<float> out(const comm_type& comm, std::size_t count) { return view(spare(comm, output), count); }
view<float> parts(float* begin, std::size_t count) { return view(begin, count * elements); }

/// Twice as much of rank 1, or for it.
const partition& uneven() {
  static const partition cut = partition::from_counts({elements, 2 * elements});
  return cut;
}
std::size_t own(const comm_type& comm) { return uneven().count(comm.rank()); }
const partition& received(const comm_type& comm) {
  static const partition cuts[] = {partition::from_counts({elements, elements}),
                                   partition::from_counts({2 * elements, 2 * elements})};
  return cuts[comm.rank()];
}

/// A call in which rank 0 touches rank 1's buffer `b` from a part on that rank 1 does not touch first.
struct call {
  std::string name;
  std::size_t before, parts;  // of rank 1's buffer
  std::function<void(comm_type& c, float* b)> perform;
};

#define HELD(name, before, parts, verb, ...)                                                            \
  {name, before, parts, [](comm_type& c, float* b) { c.verb(__VA_ARGS__); }}, {                         \
    name ", started", before, parts, [](comm_type& c, float* b) { c.verb##_async(__VA_ARGS__).wait(); } \
  }
const std::vector<call>& calls() {
  static const std::vector<call> all{
      HELD("broadcast", 0, 1, broadcast, parts(b, 1), 1),
      HELD("scatter", 0, 2, scatter, parts(b, 2), out(c, elements), 1),
      HELD("uneven scatter", 0, 3, scatter, parts(b, 3), out(c, own(c)), uneven(), 1),
      HELD("gather", 0, 2, gather, parts(spare(c, input), 1), parts(b, 2), 1),
      HELD("uneven gather", 0, 3, gather, view(spare(c, input), own(c)), parts(b, 3), uneven(), 1),
      HELD("all_gather", 0, 2, all_gather, in_place(parts(b, 2))),
      HELD("uneven all_gather", 0, 3, all_gather, in_place(parts(b, 3)), uneven()),
      HELD("all_to_all", 0, 2, all_to_all, parts(b, 2), out(c, 2 * elements)),
      HELD("uneven all_to_all", 0, 3, all_to_all, parts(b, 3), uneven(), out(c, 2 * own(c)), received(c)),
      HELD("reduce", 0, 1, reduce, parts(b, 1), out(c, elements), sum, 0),
      HELD("reduce_scatter", 0, 2, reduce_scatter, parts(b, 2), out(c, elements), sum),
      HELD("uneven reduce_scatter", 0, 3, reduce_scatter, parts(b, 3), out(c, own(c)), sum, uneven()),
      HELD("all_reduce of an input", 0, most_parts, all_reduce, parts(b, most_parts), out(c, most_parts * elements),
           sum),
      HELD("all_reduce to an output", 0, most_parts, all_reduce, parts(spare(c, input), most_parts),
           parts(b, most_parts), sum),
      HELD("all_reduce in place", 0, 1, all_reduce, in_place(parts(b, 1)), sum),
      HELD("send_recv", 0, 1, send_recv, parts(b, 1), 1 - c.rank(), out(c, elements), 1 - c.rank()),
      {"send", 0, 1,
       [](comm_type& c, float* b) {
         if (c.rank() == 1) c.send(parts(b, 1), 0);
         else c.recv(parts(b, 1), 1);
       }},
      {"send, started", 0, 1,
       [](comm_type& c, float* b) {
         if (c.rank() == 1) c.send_async(parts(b, 1), 0).wait();
         else c.recv(parts(b, 1), 1);
       }},
      {"recv", 0, 1,
       [](comm_type& c, float* b) {
         if (c.rank() == 1) c.recv(parts(b, 1), 0);
         else c.send(parts(b, 1), 1);
       }},
      {"recv, started", 0, 1,
       [](comm_type& c, float* b) {
         if (c.rank() == 1) c.recv_async(parts(b, 1), 0).wait();
         else c.send(parts(b, 1), 1);
       }},
      {"group of messages", 0, 1,
       [](comm_type& c, float* b) {
         c.group([&](auto& g) {
           g.send(parts(b, 1), 1 - c.rank());
           g.recv(out(c, elements), 1 - c.rank());
         });
       }},
      {"group of collectives", 0, 3,
       [](comm_type& c, float* b) {
         c.group([&](auto& g) {
           g.barrier();
           g.all_gather(in_place(parts(b, 3)), uneven());
         });
       }},
  };
  return all;
}
#undef HELD

enum class fault { times_out, third_rank_throws };

/// However a rank ends.
struct at_end {
  std::atomic<bool>* over;
  ~at_end() {
    if (over != nullptr) *over = true;
  }
};

/// Whether rank 0 was held in rank 1's buffer, and rank 1's call threw.
bool run_held(const call& one, fault how) {
  struct sigaction action {};
  action.sa_sigaction = hold;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  ::sigaction(SIGSEGV, &action, &former);
  too_late = 0;
  peers_held = 0;

  shardkit::launch_options options;
  options.limits.operation = how == fault::times_out ? 0.03 : 20;
  options.on_failure = nullptr;
  std::atomic<bool> began{false}, over{false}, owner_threw{false};
  try {
    shardkit::run_ranks(3, options, [&](comm_type& world) {
      const at_end end{world.rank() == 1 ? &over : nullptr};
      auto pair = world.split(world.rank() / 2);
      if (world.rank() != 2) (void)spare(pair, input), (void)spare(pair, output);
      world.barrier();
      if (world.rank() == 2) {
        if (how == fault::times_out) {
          while (!over.load()) ::usleep(1000);
          return;
        }
        while (holding.load() == 0 && !over.load()) ::usleep(100);
        throw std::runtime_error("in the middle of their copy");
      }
      if (world.rank() == 0) {
        float* const mine = spare(pair, input);
        while (!began.load() && !over.load()) ::usleep(100);
        ::usleep(2000);  // who comes last begins with what comes first
        one.perform(pair, mine);
        return;
      }
      is_owner = true;
      guarded_buffer mine(one.before, one.parts);
      began = true;
      try {
        one.perform(pair, mine.data());
      } catch (const shardkit::error&) {
        owner_threw = true;
        throw;
      }
    });
  } catch (const std::exception&) {
  }
  guarded = nullptr;
  ::sigaction(SIGSEGV, &former, nullptr);
  CHECK(too_late.load() == 0);
  return owner_threw.load() && peers_held.load() > 0;
}

/// Until it happens: a machine may be too busy.
void run_all(fault how) {
  for (const call& one : calls()) {
    CAPTURE(one.name);
    bool held = false;
    for (int attempt = 0; attempt < 20 && !held; ++attempt) held = run_held(one, how);
    CHECK(held);
  }
}

}  // namespace

TEST_CASE("a rank that times out frees its buffer while a peer was in the middle of a copy") {
  run_all(fault::times_out);
}

TEST_CASE("a rank that learns of a third one's failure frees its buffer while a peer was in the middle of a copy") {
  run_all(fault::third_rank_throws);
}
