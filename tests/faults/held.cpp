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
using shardkit::thread_communicator;
using shardkit::view;

constexpr std::size_t page = 4096, pages = 6;
constexpr std::size_t elements = pages * page / sizeof(float);
constexpr unsigned held_for = 25000;  // microseconds, for each page

char* guarded = nullptr;  // what is held; null once it has been given back
std::atomic<int> holding{0}, too_late{0};
struct sigaction former;

void hold(int signal, siginfo_t* info, void* context) {
  char* const address = static_cast<char*>(info->si_addr);
  if (guarded == nullptr || address < guarded || address >= guarded + pages * page) {
    if (former.sa_flags & SA_SIGINFO) former.sa_sigaction(signal, info, context);
    else ::sigaction(SIGSEGV, &former, nullptr);
    return;
  }
  ++holding;
  ::usleep(held_for);
  char* const start = guarded + static_cast<std::size_t>(address - guarded) / page * page;
  // Where it has been given back meanwhile, the next signal is a crash.
  if (::mprotect(start, page, PROT_READ | PROT_WRITE) != 0) ::sigaction(SIGSEGV, &former, nullptr);
  --holding;
}

/// Memory in pages whose middle ones hold whoever touches them.
class guarded_buffer {
 public:
  guarded_buffer(std::size_t before, std::size_t after)
      : size_((before + pages + after) * page),
        base_(static_cast<char*>(::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
    guarded = base_ + before * page;
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

/// A call in which rank 0 reads or writes `elements` of rank 1's buffer that rank 1 does not touch itself.
struct call {
  std::string name;
  std::size_t before, after;  // pages of rank 1's buffer around those of rank 0
  std::function<void(thread_communicator&, float* theirs)> perform;
};

using comm_type = thread_communicator;

// `theirs` is rank 1's guarded buffer there, and null on the other ranks, which use their own.
std::vector<float>& scratch() {
  thread_local std::vector<float> memory(4 * elements);
  return memory;
}
float* or_own(float* theirs) { return theirs != nullptr ? theirs : scratch().data(); }

const std::vector<call>& calls() {
  static const std::vector<call> all{
      {"broadcast", 0, 0, [](comm_type& c, float* b) { c.broadcast(view(or_own(b), elements), 1); }},
      {"scatter", 0, pages,
       [](comm_type& c, float* b) {
         std::vector<float> out(elements);
         c.scatter(view(or_own(b), 2 * elements), out, 1);
       }},
      {"all_to_all", 0, pages,
       [](comm_type& c, float* b) {
         std::vector<float> out(2 * elements);
         c.all_to_all(view(or_own(b), 2 * elements), out);
       }},
      {"reduce_scatter", 0, pages,
       [](comm_type& c, float* b) {
         std::vector<float> out(elements);
         c.reduce_scatter(view(or_own(b), 2 * elements), out, shardkit::sum);
       }},
      {"all_reduce", 0, pages,
       [](comm_type& c, float* b) {
         std::vector<float> in(2 * elements, 1.0f);
         c.all_reduce(in, view(or_own(b), 2 * elements), shardkit::sum);
       }},
      {"send", 0, 0,
       [](comm_type& c, float* b) {
         if (c.rank() == 1) c.send(view(b, elements), 0);
         else c.recv(view(or_own(nullptr), elements), 1);
       }},
      {"send_async", 0, 0,
       [](comm_type& c, float* b) {
         if (c.rank() == 1) c.send_async(view(b, elements), 0).wait();
         else c.recv(view(or_own(nullptr), elements), 1);
       }},
  };
  return all;
}

enum class fault { times_out, third_rank_throws };

/// Whether the owner of the buffer threw: it need not where all ranks have come and the call can still succeed.
bool run_held(const call& one, fault how) {
  struct sigaction action {};
  action.sa_sigaction = hold;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  ::sigaction(SIGSEGV, &action, &former);
  too_late = 0;
  bool owner_threw = false;

  shardkit::launch_options options;
  options.limits.operation = how == fault::times_out ? 0.04 : 20;
  options.on_failure = nullptr;
  std::atomic<bool> began{false};
  try {
    shardkit::run_ranks(3, options, [&](thread_communicator& world) {
      auto pair = world.split(world.rank() / 2);
      world.barrier();
      if (world.rank() == 2) {
        if (how == fault::times_out) {
          while (!began.load()) ::usleep(1000);
          ::usleep(300000);
          return;
        }
        while (holding.load() == 0) ::usleep(100);
        throw std::runtime_error("in the middle of their copy");
      }
      if (world.rank() == 0) {
        scratch();
        one.perform(pair, nullptr);
        return;
      }
      guarded_buffer mine(one.before, one.after);
      began = true;
      try {
        one.perform(pair, mine.data());
      } catch (const shardkit::error&) {
        owner_threw = true;
        throw;
      }
      world.barrier();  // keeps the pages until all is over
    });
  } catch (const std::exception&) {
  }
  guarded = nullptr;
  ::sigaction(SIGSEGV, &former, nullptr);
  CHECK(too_late.load() == 0);
  return owner_threw;
}

void run_all(fault how) {
  int thrown = 0;
  for (const call& one : calls()) {
    CAPTURE(one.name);
    thrown += run_held(one, how);
  }
  CHECK(thrown > 0);
}

}  // namespace

TEST_CASE("a rank that times out frees its buffer while a peer was in the middle of a copy") {
  run_all(fault::times_out);
}

TEST_CASE("a rank that learns of a third one's failure frees its buffer while a peer was in the middle of a copy") {
  run_all(fault::third_rank_throws);
}
