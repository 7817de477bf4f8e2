// What tests say to the double and hear from it.
#include <double/state.hpp>

#include <unistd.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace shardkit_double {
namespace {

schedule schedule_of_environment() {
  const char* text = std::getenv("SHARDKIT_DOUBLE_SCHEDULE");
  if (text == nullptr || *text == '\0' || std::strcmp(text, "eager") == 0) return {};
  if (std::strcmp(text, "late") == 0) return {order::late, 0};
  if (std::strncmp(text, "jitter:", 7) == 0) return {order::jitter, std::strtoull(text + 7, nullptr, 10)};
  std::fprintf(stderr, "SHARDKIT_DOUBLE_SCHEDULE is \"%s\"; it can be eager, late or jitter:SEED\n", text);
  std::_Exit(76);
}

void set_defaults(state& d) {
  const char* count = std::getenv("SHARDKIT_DOUBLE_DEVICES");
  d.device_count = count == nullptr ? 2 : std::atoi(count);
  d.driver_missing = false;
  d.device_memory = std::size_t{4} << 30;
  d.compute_capability = 90;
  d.peers_impossible.clear();
  d.when = schedule_of_environment();
  d.random = d.when.seed;
  d.idle_seconds = 0;
  d.strict_threads = false;
  d.mismatch = mismatch_mode::diagnose;
  d.faults.clear();
  d.operation_faults.clear();
  d.calls.clear();
}

/// What was not freed, but for what a broken device would not let the program free.
void report_leaks() {
  state& d = all();
  bool all_healthy = true;
  for (const auto& [number, device] : d.devices) all_healthy = all_healthy && !device.was_broken;
  const auto leaks = [&d](int device, const std::string& what) {
    if (!d.devices[device].was_broken) report_found(report_kind::leak, what);
  };
  for (const auto& [origin, c] : d.captures)
    leaks(c->origin->device, "the capture of " + c->origin->name + " was not ended with cudaStreamEndCapture");
  for (const auto& [begin, a] : d.memory)
    if (a.freed_by.empty() && a.kind != memory_kind::registered)
      leaks(a.device, std::to_string(a.bytes) + " bytes of " + describe(reinterpret_cast<const void*>(begin)) +
                          " were not freed");
  for (const auto& [handle, s] : d.stream_handles) leaks(s->device, s->name + " was not destroyed");
  for (const auto& [handle, e] : d.events.all()) leaks(e->device, e->name + " was not destroyed");
  if (!all_healthy) return;
  for (const auto& [handle, g] : d.graphs.all())
    report_found(report_kind::leak, "a graph of " + std::to_string(g->nodes.size()) + " nodes was not destroyed");
  for (const auto& [handle, g] : d.executables.all())
    report_found(report_kind::leak,
                 "an executable graph of " + std::to_string(g->nodes.size()) + " nodes was not destroyed");
}

void forget_everything() {
  state& d = all();
  for (auto& [begin, a] : d.memory) release_storage(a);
  if (watched())
    for (const auto& s : d.streams) __tsan_destroy_fiber(s->fiber);
  d.captures.clear();
  d.memory.clear();
  d.events.clear();
  d.graphs.clear();
  d.executables.clear();
  d.stream_handles.clear();
  d.streams.clear();
  d.devices.clear();
  d.slots = 0;
  d.host_seen = {};
  d.names.clear();
  d.found.clear();
  d.found_unread = false;
  ++d.generation;
}

/// The last word of a program in which nobody looked at what was found.
void tell_unread() {
  {
    unseen quiet;
    if (!all().found_unread) return;
    std::fprintf(stderr, "The CUDA double found what this program has not asked for:\n%s", report_text().c_str());
    std::fflush(nullptr);
  }
  _exit(76);
}

}  // namespace

state& all() {
  static state& only = [&]() -> state& {
    state& made = *new state;
    set_defaults(made);
    std::atexit(tell_unread);
    return made;
  }();
  return only;
}

bool active() { return true; }

const char* to_string(report_kind kind) {
  switch (kind) {
    case report_kind::race: return "race";
    case report_kind::out_of_bounds: return "out of bounds";
    case report_kind::use_after_free: return "use after free";
    case report_kind::free_in_flight: return "free in flight";
    case report_kind::wrong_device: return "wrong device";
    case report_kind::bad_handle: return "bad handle";
    case report_kind::bad_argument: return "bad argument";
    case report_kind::capture: return "capture";
    case report_kind::mismatch: return "mismatch";
    case report_kind::communicator: return "communicator";
    case report_kind::leak: return "leak";
    case report_kind::unfinished: return "unfinished";
  }
  return "unknown";
}

std::vector<report> reports() {
  under_lock guard;
  all().found_unread = false;
  return all().found;
}

std::string report_text() {
  std::string text;
  for (const report& r : reports()) text += std::string(to_string(r.kind)) + ": " + r.text + "\n";
  return text;
}

void clear_reports() {
  under_lock guard;
  all().found.clear();
  all().found_unread = false;
}

std::vector<report> reset() {
  under_lock guard;
  state& d = all();
  for (auto& [number, device] : d.devices) device.stalled = false;
  // Work that waits for ranks that are gone does not move, however long it is given; host functions end some time.
  wait_until([] { return !anything_queued(); }, 0.2);
  const auto in_host_function = [](const auto& s) { return !s->queue.empty() && s->queue.front()->outside; };
  wait_until([&] { return std::none_of(d.streams.begin(), d.streams.end(), in_host_function); });
  for (const auto& s : d.streams)
    if (!s->queue.empty())
      report_found(report_kind::unfinished, s->queue.front()->op.name + " on " + s->name + " and " +
                                                std::to_string(s->queue.size() - 1) +
                                                " operations behind it have not ended");
  for (const auto& forget : d.forget) forget();
  report_leaks();
  std::vector<report> found = std::move(d.found);
  forget_everything();
  set_defaults(d);
  return found;
}

void set_device_count(int count) {
  under_lock guard;
  all().device_count = count;
}
void set_driver_missing(bool missing) {
  under_lock guard;
  all().driver_missing = missing;
}
void set_compute_capability(int major, int minor) {
  under_lock guard;
  all().compute_capability = 10 * major + minor;
}
void set_device_memory(std::size_t bytes) {
  under_lock guard;
  all().device_memory = bytes;
}
void set_peer_access(int from, int to, bool possible) {
  under_lock guard;
  if (possible) all().peers_impossible.erase({from, to});
  else all().peers_impossible.insert({from, to});
}
int current_device() {
  under_lock guard;
  thread_state& t = this_thread();
  return t.generation == all().generation ? t.device : 0;
}
void set_schedule(schedule s) {
  under_lock guard;
  all().when = s;
  all().random = s.seed;
}
schedule current_schedule() {
  under_lock guard;
  return all().when;
}
void set_idle_time(double seconds) {
  under_lock guard;
  all().idle_seconds = seconds;
}
void set_threads_order_by_events_only(bool strict) {
  under_lock guard;
  all().strict_threads = strict;
}

void fail_call(const std::string& function, int nth, int code, int device) {
  if (nth < 1) throw std::invalid_argument("fail_call: calls are counted from 1");
  under_lock guard;
  all().faults.push_back({function, device, nth, code});
}
void fail_operation(const std::string& operation, int nth, int code, int device) {
  if (nth < 1) throw std::invalid_argument("fail_operation: operations are counted from 1");
  under_lock guard;
  all().operation_faults.push_back({operation, device, nth, code});
}
void drop_call(const std::string& function, int nth, int device) {
  under_lock guard;
  all().faults.push_back({function, device, nth, 0});
}
int calls(const std::string& function, int device) {
  under_lock guard;
  int sum = 0;
  const auto found = all().calls.find(function);
  if (found == all().calls.end()) return 0;
  for (const auto& [of, count] : found->second)
    if (device < 0 || of == device) sum += count;
  return sum;
}
void set_device_error(int device, int code) {
  under_lock guard;
  break_device(device, code);
}
void set_stalled(int device, bool stalled) {
  under_lock guard;
  device_state(device).stalled = stalled;
  wake();
}
void set_mismatch_mode(mismatch_mode mode) {
  under_lock guard;
  all().mismatch = mode;
}
mismatch_mode current_mismatch_mode() {
  under_lock guard;
  return all().mismatch;
}
void set_stand_in(const std::string& name, stand_in function) {
  under_lock guard;
  all().stand_ins[name] = std::move(function);
}

}  // namespace shardkit_double
