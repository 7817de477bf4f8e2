// Queues, the order in which queued work runs, and waiting.
#include <double/state.hpp>

#include <algorithm>

namespace shardkit_double {
namespace {

std::uint64_t random_number() {
  // splitmix64
  std::uint64_t z = all().random += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

bool ready(const stream& s) {
  if (s.queue.empty() || device_state(s.device).stalled) return false;
  const queued& head = *s.queue.front();
  if (head.outside) return false;
  return std::all_of(head.after.begin(), head.after.end(), [](const queued_ptr& before) { return before->done; });
}

/// The work of one operation as ThreadSanitizer sees it: the stream, and no thread, touches host memory.
void show_host_accesses(const queued& q) {
  if (!watched()) return;
  if (__tsan_func_entry != nullptr) __tsan_func_entry(const_cast<void*>(q.caller));
  for (const access& a : q.op.accesses) {
    const allocation* memory = find_allocation(a.address);
    if (memory != nullptr && memory->kind == memory_kind::device) continue;
    for (std::size_t row = 0; row < a.rows; ++row) {
      void* first = const_cast<char*>(static_cast<const char*>(a.address) + row * a.stride);
      if (a.mode == access_mode::read) __tsan_read_range(first, a.bytes);
      else __tsan_write_range(first, a.bytes);
    }
  }
  if (__tsan_func_exit != nullptr) __tsan_func_exit();
}

/// Whether this operation is the one that is to crash, which breaks its device.
bool crashes(const queued& q) {
  auto& faults = all().operation_faults;
  for (auto f = faults.begin(); f != faults.end(); ++f) {
    if (f->function != q.op.name || (f->device >= 0 && f->device != q.on->device)) continue;
    if (--f->remaining > 0) continue;
    break_device(q.on->device, f->code);
    faults.erase(f);
    return true;
  }
  return false;
}

/// Lets the head of a stream work; true when something came of it.
bool advance(stream& s) {
  const queued_ptr q = s.queue.front();
  bool done;
  {
    acting_as fiber(s.fiber);
    if (watched()) {
      __tsan_acquire(&q->queued_token);
      for (const queued_ptr& before : q->after) __tsan_acquire(&before->done_token);
    }
    {
      unseen work;
      all().running = q;
      const bool first_time = !q->begun;
      q->begun = true;
      done = (first_time && crashes(*q)) || !q->op.run || q->op.run() == progress::done;
      all().running = nullptr;
      if (q->outside) return true;
    }
    if (!done) return false;
    show_host_accesses(*q);
    if (watched()) __tsan_release(&q->done_token);
  }
  q->done = true;
  q->ended = std::chrono::steady_clock::now();
  q->after.clear();
  q->op.run = nullptr;
  q->op.on_queued = nullptr;
  s.queue.pop_front();
  ++all().steps;
  wake();
  return true;
}

/// The streams whose heads hold up `target`.
void collect_needed(const queued& target, std::vector<stream*>& visited, std::vector<stream*>& heads) {
  if (target.done) return;
  stream* s = target.on;
  if (std::find(visited.begin(), visited.end(), s) != visited.end()) return;
  visited.push_back(s);
  if (ready(*s)) heads.push_back(s);
  else
    for (const queued_ptr& before : s->queue.front()->after) collect_needed(*before, visited, heads);
}

bool advance_one_of(std::vector<stream*> candidates) {
  state& d = all();
  if (d.when.when == order::jitter) {
    for (std::size_t left = candidates.size(); left > 1; --left)
      std::swap(candidates[left - 1], candidates[random_number() % left]);
  } else {
    std::sort(candidates.begin(), candidates.end(),
              [](const stream* a, const stream* b) { return a->queue.front()->number < b->queue.front()->number; });
  }
  for (stream* s : candidates)
    if (advance(*s)) return true;
  return false;
}

std::vector<stream*> ready_streams() {
  std::vector<stream*> found;
  for (const auto& s : all().streams)
    if (ready(*s)) found.push_back(s.get());
  return found;
}

void enter_accesses(const queued& q) {
  state& d = all();
  const std::string* name = &*d.names.insert(q.op.name + " on " + q.on->name).first;
  const stamp by{q.on->slot, q.seen.at(q.on->slot), name};
  std::set<const allocation*> told;
  for (const access& a : q.op.accesses) {
    allocation* memory = find_allocation(a.address);
    if (memory == nullptr || a.bytes == 0) continue;
    std::string conflict;
    const std::size_t first = reinterpret_cast<std::uintptr_t>(a.address) - memory->begin;
    const bool dense = a.rows <= 1 || a.stride == a.bytes;
    const std::size_t rows = dense ? 1 : a.rows;
    const std::size_t bytes = dense ? a.bytes * std::max<std::size_t>(a.rows, 1) : a.bytes;
    for (std::size_t row = 0; row < rows; ++row) {
      const std::size_t begin = first + row * a.stride;
      memory->history.enter(begin, begin + bytes, a.mode, by, q.seen,
                            [&](const stamp& earlier, access_mode mode, std::size_t from, std::size_t to) {
                              if (!conflict.empty()) return;
                              conflict = *name + (a.mode == access_mode::read ? " reads" : " writes") + " bytes " +
                                         std::to_string(from) + " to " + std::to_string(to) + " of " +
                                         describe(reinterpret_cast<const void*>(memory->begin)) + ", which " +
                                         *earlier.name + (mode == access_mode::read ? " reads" : " writes") +
                                         ", and nothing orders the two: let the later stream wait for an event "
                                         "recorded after the earlier operation, or synchronise";
                            });
    }
    if (!conflict.empty() && told.insert(memory).second) report_found(report_kind::race, conflict);
  }
}

}  // namespace

bool anything_queued() {
  const auto& streams = all().streams;
  return std::any_of(streams.begin(), streams.end(), [](const auto& s) { return !s->queue.empty(); });
}

void run_everything() {
  while (step(nullptr)) {
  }
}

void wake() {
  all().changes.fetch_add(1);
  if (all().sleepers.load() != 0) wake_sleepers(all().changes);
}

void sleep_until_change(std::uint32_t seen, std::int64_t nanoseconds) {
  ++all().sleepers;  // before `changes` is looked at again, so that wake() cannot miss this thread
  sleep_while(all().changes, seen, nanoseconds);
  --all().sleepers;
}

queued_ptr put(stream& s, operation op, std::vector<queued_ptr> after, const void* caller) {
  state& d = all();
  auto q = std::make_shared<queued>();
  q->op = std::move(op);
  q->on = &s;
  q->caller = caller;
  q->number = ++d.operations;
  // The legacy stream and the blocking streams of its device wait for each other.
  device& home = device_state(s.device);
  if (s.legacy) {
    for (const auto& other : d.streams)
      if (other.get() != &s && other->device == s.device && other->blocking() && other->last)
        after.push_back(other->last);
  } else if (s.blocking() && home.legacy != nullptr && home.legacy->last) {
    after.push_back(home.legacy->last);
  }
  s.seen.join(host_clock());
  for (const queued_ptr& before : after) s.seen.join(before->seen);
  s.seen.advance(s.slot);
  q->seen = s.seen;
  // Those that are done stay in the list: the stream acquires what they released.
  q->after = std::move(after);
  enter_accesses(*q);
  s.queue.push_back(q);
  s.last = q;
  release_token(&q->queued_token);
  if (q->op.on_queued) q->op.on_queued(q->op);
  if (d.when.when == order::eager) run_everything();
  if (d.when.when == order::jitter)
    for (std::uint64_t turns = random_number() % 4; turns != 0; --turns) step(nullptr);
  if (anything_queued()) {
    start_idle_thread();
    wake();
  }
  return q;
}

bool step(const queued* target) {
  state& d = all();
  if (d.stepping) return false;  // a run function that makes others move
  d.stepping = true;
  bool moved = false;
  if (d.when.when == order::late && target != nullptr) {
    std::vector<stream*> visited, heads;
    collect_needed(*target, visited, heads);
    moved = advance_one_of(std::move(heads));
  }
  // Work that waits for others, a collective for its peers, is helped by everybody's.
  if (!moved) moved = advance_one_of(ready_streams());
  d.stepping = false;
  return moved;
}

void step_on_query(const queued* target) {
  switch (all().when.when) {
    case order::eager: run_everything(); break;
    case order::late: step(target); break;
    case order::jitter:
      if (random_number() % 2 == 0) step(target);
      break;
  }
}

namespace {

bool wait_stepping(const std::function<bool()>& condition, const queued* target, double seconds) {
  state& d = all();
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const std::uint32_t seen = d.changes.load();
    if (condition()) return true;
    if (step(target)) continue;
    if (seconds > 0 && std::chrono::steady_clock::now() - start > std::chrono::duration<double>(seconds)) return false;
    const unsigned depth = d.lock.release_all();
    sleep_until_change(seen, 500'000);
    d.lock.regain(depth);
  }
}

}  // namespace

bool wait_until(const std::function<bool()>& condition, double seconds) {
  return wait_stepping(condition, nullptr, seconds);
}

bool wait_done(const queued_ptr& target, double seconds) {
  if (!target) return true;
  return wait_stepping([&] { return target->done; }, target.get(), seconds);
}

cudaError_t ask_all(const std::vector<queued_ptr>& ends) {
  for (const queued_ptr& end : ends) {
    if (!end->done) step_on_query(end.get());
    if (!end->done) return cudaErrorNotReady;
  }
  for (const queued_ptr& end : ends) host_saw(*end);
  return cudaSuccess;
}

cudaError_t await_all(const std::vector<queued_ptr>& ends) {
  for (const queued_ptr& end : ends) wait_done(end);
  for (const queued_ptr& end : ends) host_saw(*end);
  return machine_error();
}

void host_saw(const queued& q) {
  host_clock().join(q.seen);
  acquire_token(&q.done_token);
}

}  // namespace shardkit_double
