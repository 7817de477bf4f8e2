// Streams and events.
#include <double/state.hpp>

#include <algorithm>

namespace shardkit_double {
namespace {

bool is_legacy(cudaStream_t handle) { return handle == nullptr || handle == cudaStreamLegacy; }

cudaError_t create_stream(cudaStream_t* handle, unsigned flags, int priority, const char* function) {
  if (handle == nullptr) return cudaErrorInvalidValue;
  if ((flags & ~unsigned{cudaStreamNonBlocking}) != 0) {
    report_found(report_kind::bad_argument, std::string(function) + " with unknown flags " + std::to_string(flags));
    return cudaErrorInvalidValue;
  }
  const int device = this_thread().device;
  const unsigned number = ++device_state(device).streams;
  stream& s = new_stream(device, flags, std::clamp(priority, -5, 0),
                         "stream #" + std::to_string(number) + " of device " + std::to_string(device));
  s.handle = static_cast<cudaStream_t>(const_cast<void*>(new_handle()));
  all().stream_handles[s.handle] = &s;
  *handle = s.handle;
  return cudaSuccess;
}

cudaError_t create_event(cudaEvent_t* handle, unsigned flags, const char* function) {
  if (handle == nullptr) return cudaErrorInvalidValue;
  constexpr unsigned known = cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;
  if ((flags & ~known) != 0 || ((flags & cudaEventInterprocess) != 0 && (flags & cudaEventDisableTiming) == 0)) {
    report_found(report_kind::bad_argument, std::string(function) + " with unknown flags " + std::to_string(flags));
    return cudaErrorInvalidValue;
  }
  auto e = std::make_unique<event>();
  e->handle = static_cast<cudaEvent_t>(const_cast<void*>(new_handle()));
  e->device = this_thread().device;
  e->name = "event #" + std::to_string(++device_state(e->device).events) + " of device " + std::to_string(e->device);
  e->flags = flags;
  *handle = e->handle;
  all().events.add(std::move(e));
  return cudaSuccess;
}

cudaError_t record(event& e, cudaStream_t handle) {
  if (const cudaError_t error = check_stream(handle, "cudaEventRecord"); error != cudaSuccess) return error;
  stream& s = *find_stream(handle);
  if (s.device != e.device) {
    report_found(report_kind::wrong_device, "cudaEventRecord of " + e.name + " on " + s.name);
    return cudaErrorInvalidResourceHandle;
  }
  if (s.capturing != nullptr) {
    e.captured_by = s.capturing->number;
    e.captured_after = s.capture_after;
    e.recorded = nullptr;
    return cudaSuccess;
  }
  e.captured_by = 0;
  e.recorded = put(s, {"cudaEventRecord", node_kind::empty, {}, "", {}, {}}, {}, this_thread().caller);
  return cudaSuccess;
}

/// The capture in which `e` was recorded; null when it has ended.
capture* capture_of(const event& e) {
  for (const auto& [handle, c] : all().captures)
    if (c->number == e.captured_by) return c.get();
  return nullptr;
}

cudaError_t wait_captured(stream& s, const event& e) {
  capture* c = capture_of(e);
  const std::string what = "cudaStreamWaitEvent of " + s.name + " for " + e.name;
  if (c == nullptr) {
    report_found(report_kind::capture, what + ", recorded in a capture that has ended");
    return cudaErrorCapturedEvent;
  }
  if (s.capturing != nullptr && s.capturing != c) {
    report_found(report_kind::capture, what + " would merge two captures");
    break_capture(*s.capturing, "cudaStreamWaitEvent");
    break_capture(*c, "cudaStreamWaitEvent");
    return cudaErrorStreamCaptureMerge;
  }
  if (s.legacy) {
    report_found(report_kind::capture, what + ": the default stream cannot be captured");
    return cudaErrorStreamCaptureImplicit;
  }
  if (s.capturing == nullptr) {
    s.capturing = c;
    s.capture_lane = c->into->lanes++;
    s.capture_after.clear();
    c->streams.push_back(&s);
  }
  for (const std::size_t before : e.captured_after)
    if (std::find(s.capture_after.begin(), s.capture_after.end(), before) == s.capture_after.end())
      s.capture_after.push_back(before);
  return cudaSuccess;
}

cudaError_t wait_for_event(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  event* e = find_event(event_handle);
  if (e == nullptr) return bad_handle(event_handle, "event", "cudaStreamWaitEvent");
  stream* s = find_stream(handle);
  if (s == nullptr) return bad_handle(handle, "stream", "cudaStreamWaitEvent");
  if (flags != cudaEventWaitDefault) {
    report_found(report_kind::bad_argument, "cudaStreamWaitEvent with unknown flags " + std::to_string(flags));
    return cudaErrorInvalidValue;
  }
  if (e->captured_by != 0) return wait_captured(*s, *e);
  if (s->capturing != nullptr) {
    if (!e->recorded) return cudaSuccess;
    report_found(report_kind::capture, "cudaStreamWaitEvent of the capturing " + s->name + " for " + e->name +
                                           ", which was recorded outside the capture");
    break_capture(*s->capturing, "cudaStreamWaitEvent");
    return cudaErrorStreamCaptureIsolation;
  }
  // What was never recorded holds up nobody.
  if (e->recorded)
    put(*s, {"cudaStreamWaitEvent", node_kind::empty, {}, "", {}, {}}, {e->recorded}, this_thread().caller);
  return cudaSuccess;
}

/// What a query or a synchronisation of a stream looks at: of the legacy stream, all that it would wait for.
std::vector<queued_ptr> ends_of(const stream& s) {
  std::vector<queued_ptr> ends;
  for (const auto& other : all().streams)
    if (other->last && (other.get() == &s || (s.legacy && other->device == s.device && other->blocking())))
      ends.push_back(other->last);
  return ends;
}

cudaError_t query(const std::vector<queued_ptr>& ends) {
  for (const queued_ptr& end : ends) {
    if (!end->done) step_on_query(end.get());
    if (!end->done) return cudaErrorNotReady;
  }
  for (const queued_ptr& end : ends) host_saw(*end);
  return cudaSuccess;
}

cudaError_t synchronize(const std::vector<queued_ptr>& ends) {
  for (const queued_ptr& end : ends) wait_done(end);
  for (const queued_ptr& end : ends) host_saw(*end);
  return machine_error();
}

std::vector<queued_ptr> ends_of(const event& e) {
  return e.recorded ? std::vector<queued_ptr>{e.recorded} : std::vector<queued_ptr>{};
}

cudaError_t check_waitable(cudaStream_t handle, const char* function) {
  stream* s = find_stream(handle);
  if (s == nullptr) return bad_handle(handle, "stream", function);
  if (s->capturing != nullptr) {
    report_found(report_kind::capture, std::string(function) + " of the capturing " + s->name);
    break_capture(*s->capturing, function);
    return cudaErrorStreamCaptureUnsupported;
  }
  return refuse_in_capture(function);
}

cudaError_t check_waitable(const event& e, const char* function) {
  if (e.captured_by == 0) return refuse_in_capture(function);
  report_found(report_kind::capture, std::string(function) + " of " + e.name + ", recorded in a capture");
  if (capture* c = capture_of(e)) break_capture(*c, function);
  return cudaErrorCapturedEvent;
}

}  // namespace

device& device_state(int number) { return all().devices[number]; }

stream& new_stream(int device, unsigned flags, int priority, std::string name) {
  state& d = all();
  stream& s = *d.streams.emplace_back(std::make_unique<stream>());
  s.name = std::move(name);
  s.device = device;
  s.slot = d.slots++;
  s.flags = flags;
  s.priority = priority;
  if (watched()) {
    // Made with the synchronisation seen: a stream begins after what its creator did.
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
    s.fiber = __tsan_create_fiber(0);
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
  }
  return s;
}

stream* find_stream(cudaStream_t handle) {
  thread_state& t = this_thread();
  if (is_legacy(handle)) {
    stream*& legacy = device_state(t.device).legacy;
    if (legacy == nullptr) {
      legacy = &new_stream(t.device, cudaStreamDefault, 0, "the default stream of device " + std::to_string(t.device));
      legacy->legacy = true;
    }
    return legacy;
  }
  if (handle == cudaStreamPerThread) {
    stream*& own = t.streams[t.device];
    if (own == nullptr)
      own = &new_stream(t.device, cudaStreamDefault, 0,
                        "a per-thread default stream of device " + std::to_string(t.device));
    return own;
  }
  const auto at = all().stream_handles.find(handle);
  return at == all().stream_handles.end() ? nullptr : at->second;
}

event* find_event(cudaEvent_t handle) { return all().events.find(handle); }

cudaError_t bad_handle(const void* handle, const char* what, const char* function) {
  const bool dead = was_handle(handle);
  report_found(dead ? report_kind::use_after_free : report_kind::bad_handle,
               std::string(function) + (dead ? " with a destroyed " : " with an unknown ") + what);
  return cudaErrorInvalidResourceHandle;
}

int stream_device(cudaStream_t handle) {
  const stream* s = find_stream(handle);
  return s == nullptr ? -1 : s->device;
}

bool is_capturing(cudaStream_t handle) {
  const stream* s = find_stream(handle);
  return s != nullptr && s->capturing != nullptr;
}

cudaError_t check_stream(cudaStream_t handle, const char* function) {
  const stream* s = find_stream(handle);
  if (s == nullptr) return bad_handle(handle, "stream", function);
  if (s->device != this_thread().device) {
    report_found(report_kind::wrong_device, std::string(function) + " on " + s->name + " while device " +
                                                std::to_string(this_thread().device) +
                                                " is current: call cudaSetDevice before");
    return cudaErrorInvalidResourceHandle;
  }
  if (s->capturing != nullptr) {
    if (s->capturing->broken.empty()) return cudaSuccess;
    report_found(report_kind::capture, std::string(function) + " on " + s->name + ", whose capture was broken by " +
                                           s->capturing->broken);
    return cudaErrorStreamCaptureInvalidated;
  }
  // The legacy stream would have to wait for the streams that are being captured.
  if (s->legacy)
    for (const auto& [origin, c] : all().captures)
      for (const stream* other : c->streams)
        if (other->device == s->device && other->blocking()) {
          report_found(report_kind::capture, std::string(function) + " on " + s->name + " while " + other->name +
                                                 " is capturing, which it waits for");
          break_capture(*c, function);
          return cudaErrorStreamCaptureImplicit;
        }
  return cudaSuccess;
}

cudaError_t enqueue(cudaStream_t handle, operation op) {
  if (const cudaError_t error = check_stream(handle, op.name.c_str()); error != cudaSuccess) return error;
  stream& s = *find_stream(handle);
  if (const cudaError_t error = check_accesses(op, s.device); error != cudaSuccess) return error;
  if (s.capturing != nullptr) capture_operation(s, std::move(op), this_thread().caller);
  else put(s, std::move(op), {}, this_thread().caller);
  return cudaSuccess;
}

void drain(int device) {
  std::vector<queued_ptr> ends;
  for (const auto& s : all().streams)
    if (s->device == device && s->last) ends.push_back(s->last);
  for (const queued_ptr& end : ends) {
    wait_done(end);
    host_saw(*end);
  }
}

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* handle) {
  return api("cudaStreamCreate", [&] { return create_stream(handle, cudaStreamDefault, 0, "cudaStreamCreate"); });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
  return api("cudaStreamCreateWithFlags",
             [&] { return create_stream(handle, flags, 0, "cudaStreamCreateWithFlags"); });
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int priority) {
  return api("cudaStreamCreateWithPriority",
             [&] { return create_stream(handle, flags, priority, "cudaStreamCreateWithPriority"); });
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return api("cudaStreamDestroy", [&] {
    stream* s = find_stream(handle);
    if (s == nullptr || s->handle == nullptr) return bad_handle(handle, "stream", "cudaStreamDestroy");
    if (s->capturing != nullptr) {
      report_found(report_kind::capture, "cudaStreamDestroy of the capturing " + s->name);
      break_capture(*s->capturing, "cudaStreamDestroy");
    }
    s->destroyed = true;  // what is queued still runs
    all().stream_handles.erase(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return api("cudaStreamQuery", [&] {
    if (const cudaError_t error = check_waitable(handle, "cudaStreamQuery"); error != cudaSuccess) return error;
    return query(ends_of(*find_stream(handle)));
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return api("cudaStreamSynchronize", [&] {
    if (const cudaError_t error = check_waitable(handle, "cudaStreamSynchronize"); error != cudaSuccess) return error;
    return synchronize(ends_of(*find_stream(handle)));
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  return api("cudaStreamWaitEvent", [&] { return wait_for_event(handle, event_handle, flags); });
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  return api("cudaStreamGetFlags", [&] {
    const stream* s = find_stream(handle);
    if (s == nullptr) return bad_handle(handle, "stream", "cudaStreamGetFlags");
    *flags = s->flags;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  return api("cudaStreamGetPriority", [&] {
    const stream* s = find_stream(handle);
    if (s == nullptr) return bad_handle(handle, "stream", "cudaStreamGetPriority");
    *priority = s->priority;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamGetDevice(cudaStream_t handle, int* device) {
  return api("cudaStreamGetDevice", [&] {
    const stream* s = find_stream(handle);
    if (s == nullptr) return bad_handle(handle, "stream", "cudaStreamGetDevice");
    *device = s->device;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api("cudaDeviceSynchronize", [&] {
    const int device = this_thread().device;
    for (const auto& [origin, c] : all().captures)
      for (const stream* s : c->streams)
        if (s->device == device) {
          report_found(report_kind::capture, "cudaDeviceSynchronize while " + s->name + " is capturing");
          break_capture(*c, "cudaDeviceSynchronize");
          return cudaErrorStreamCaptureUnsupported;
        }
    if (const cudaError_t error = refuse_in_capture("cudaDeviceSynchronize"); error != cudaSuccess) return error;
    drain(device);
    return machine_error();
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* handle) {
  return api("cudaEventCreate", [&] { return create_event(handle, cudaEventDefault, "cudaEventCreate"); });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned flags) {
  return api("cudaEventCreateWithFlags", [&] { return create_event(handle, flags, "cudaEventCreateWithFlags"); });
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return api("cudaEventDestroy", [&] {
    if (find_event(handle) == nullptr) return bad_handle(handle, "event", "cudaEventDestroy");
    all().events.remove(handle);
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
  return api("cudaEventRecord", [&] {
    event* e = find_event(handle);
    return e == nullptr ? bad_handle(handle, "event", "cudaEventRecord") : record(*e, stream);
  });
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t handle, cudaStream_t stream, unsigned flags) {
  return api("cudaEventRecordWithFlags", [&] {
    event* e = find_event(handle);
    if (e == nullptr) return bad_handle(handle, "event", "cudaEventRecordWithFlags");
    if (flags == cudaEventRecordDefault) return record(*e, stream);
    report_found(report_kind::bad_argument, "cudaEventRecordWithFlags with unknown flags " + std::to_string(flags));
    return cudaErrorInvalidValue;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return api("cudaEventQuery", [&] {
    event* e = find_event(handle);
    if (e == nullptr) return bad_handle(handle, "event", "cudaEventQuery");
    if (const cudaError_t error = check_waitable(*e, "cudaEventQuery"); error != cudaSuccess) return error;
    return query(ends_of(*e));
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return api("cudaEventSynchronize", [&] {
    event* e = find_event(handle);
    if (e == nullptr) return bad_handle(handle, "event", "cudaEventSynchronize");
    if (const cudaError_t error = check_waitable(*e, "cudaEventSynchronize"); error != cudaSuccess) return error;
    return synchronize(ends_of(*e));
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return api("cudaEventElapsedTime", [&] {
    const event* first = find_event(start);
    const event* last = find_event(end);
    if (milliseconds == nullptr) return cudaErrorInvalidValue;
    if (first == nullptr) return bad_handle(start, "event", "cudaEventElapsedTime");
    if (last == nullptr) return bad_handle(end, "event", "cudaEventElapsedTime");
    if (((first->flags | last->flags) & cudaEventDisableTiming) != 0 || !first->recorded || !last->recorded ||
        first->device != last->device) {
      report_found(report_kind::bad_argument, "cudaEventElapsedTime of " + first->name + " and " + last->name +
                                                  ", which must be recorded, with timing, on one device");
      return cudaErrorInvalidResourceHandle;
    }
    if (!first->recorded->done || !last->recorded->done) return cudaErrorNotReady;
    *milliseconds =
        std::chrono::duration<float, std::milli>(last->recorded->ended - first->recorded->ended).count();
    return cudaSuccess;
  });
}

}  // extern "C"
}  // namespace shardkit_double
