// What every call of the API passes: the lock, counting, faults, the state of the machine, the last error.
#include <double/state.hpp>

namespace shardkit_double {
namespace {

std::set<thread_state*>& living_threads() {
  static auto& threads = *new std::set<thread_state*>;
  return threads;
}

}  // namespace

thread_state& this_thread() {
  static thread_local thread_state mine;
  return mine;
}

thread_state::~thread_state() {
  under_lock guard;
  if (generation == all().generation) all().host_seen.join(seen);
  living_threads().erase(this);
}

entry::entry(const char* function, const void* caller) : function_(function) {
  unseen::begin();
  state& d = all();
  d.lock.lock();
  thread_state& t = this_thread();
  if (t.generation != d.generation) {
    // The first call since the last reset. Where threads are strict, what started this one is taken to have told it
    // what the others knew then.
    t.generation = d.generation;
    t.device = 0;
    t.last_error = cudaSuccess;
    t.capture_mode = cudaStreamCaptureModeGlobal;
    t.streams.clear();
    t.seen = {};
    living_threads().insert(&t);
    for (const thread_state* other : living_threads())
      if (other->generation == d.generation) t.seen.join(other->seen);
  }
  outer_ = t.inside;
  outer_caller_ = t.caller;
  if (outer_ == nullptr) {
    t.caller = caller;
    ++d.calls[function][t.device];
    for (auto f = d.faults.begin(); f != d.faults.end(); ++f) {
      if (f->function != function || (f->device >= 0 && f->device != t.device)) continue;
      if (f->remaining > 1) {
        --f->remaining;
        continue;
      }
      injected_ = true;
      code_ = f->code;
      if (f->remaining == 1) d.faults.erase(f);
      break;
    }
  }
  t.inside = this;
}

entry::~entry() {
  thread_state& t = this_thread();
  t.inside = outer_;
  t.caller = outer_caller_;
  all().lock.unlock();
  unseen::end();
}

cudaError_t machine_missing() {
  if (all().driver_missing) return cudaErrorInsufficientDriver;
  return all().device_count == 0 ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t machine_error() {
  const cudaError_t missing = machine_missing();
  return missing != cudaSuccess ? missing : static_cast<cudaError_t>(device_state(this_thread().device).error);
}

void break_device(int number, int code) {
  device_state(number).error = code;
  if (code != 0) device_state(number).was_broken = true;
}

cudaError_t remember(cudaError_t code) {
  if (code != cudaSuccess && code != cudaErrorNotReady) this_thread().last_error = code;
  return code;
}

cudaError_t refuse_in_host_function(const char* function) {
  if (!this_thread().in_host_function) return cudaSuccess;
  report_found(report_kind::bad_argument, std::string(function) +
                                              " is called in a host function of a stream, where "
                                              "no CUDA call is allowed");
  return cudaErrorNotPermitted;
}

vector_clock& host_clock() {
  state& d = all();
  if (!d.strict_threads) return d.host_seen;
  // What threads that ended knew, those know that joined them.
  this_thread().seen.join(d.host_seen);
  return this_thread().seen;
}

void report_found(report_kind kind, std::string text) {
  state& d = all();
  d.found.push_back({kind, std::move(text)});
  d.found_unread = true;
}

void at_reset(std::function<void()> forget) {
  under_lock guard;
  all().forget.push_back(std::move(forget));
}

void release_token(const void* token) {
  if (!watched()) return;
  AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  __tsan_release(const_cast<void*>(token));
  AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
}

void acquire_token(const void* token) {
  if (!watched()) return;
  AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  __tsan_acquire(const_cast<void*>(token));
  AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
}

}  // namespace shardkit_double
