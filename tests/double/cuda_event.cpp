// Events, and the waiting for them.
#include <double/state.hpp>

#include <algorithm>

namespace shardkit_double {
namespace {

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

std::vector<queued_ptr> ends_of(const event& e) {
  return e.recorded ? std::vector<queued_ptr>{e.recorded} : std::vector<queued_ptr>{};
}

cudaError_t check_waitable(const event& e, const char* function) {
  if (e.captured_by == 0) return refuse_in_capture(function);
  report_found(report_kind::capture, std::string(function) + " of " + e.name + ", recorded in a capture");
  if (capture* c = capture_of(e)) break_capture(*c, function);
  return cudaErrorCapturedEvent;
}

}  // namespace

event* find_event(cudaEvent_t handle) { return all().events.find(handle); }

extern "C" {

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  return api("cudaStreamWaitEvent", [&] { return wait_for_event(handle, event_handle, flags); });
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
    return ask_all(ends_of(*e));
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return api("cudaEventSynchronize", [&] {
    event* e = find_event(handle);
    if (e == nullptr) return bad_handle(handle, "event", "cudaEventSynchronize");
    if (const cudaError_t error = check_waitable(*e, "cudaEventSynchronize"); error != cudaSuccess) return error;
    return await_all(ends_of(*e));
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
    *milliseconds = std::chrono::duration<float, std::milli>(last->recorded->ended - first->recorded->ended).count();
    return cudaSuccess;
  });
}

}  // extern "C"
}  // namespace shardkit_double
