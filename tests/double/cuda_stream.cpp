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

/// What a query or a synchronisation of a stream looks at: of the legacy stream, all that it would wait for.
std::vector<queued_ptr> ends_of(const stream& s) {
  std::vector<queued_ptr> ends;
  for (const auto& other : all().streams)
    if (other->last && (other.get() == &s || (s.legacy && other->device == s.device && other->blocking())))
      ends.push_back(other->last);
  return ends;
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
    report_found(report_kind::capture,
                 std::string(function) + " on " + s->name + ", whose capture was broken by " + s->capturing->broken);
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
  return api("cudaStreamCreateWithFlags", [&] { return create_stream(handle, flags, 0, "cudaStreamCreateWithFlags"); });
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
    return ask_all(ends_of(*find_stream(handle)));
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return api("cudaStreamSynchronize", [&] {
    if (const cudaError_t error = check_waitable(handle, "cudaStreamSynchronize"); error != cudaSuccess) return error;
    return await_all(ends_of(*find_stream(handle)));
  });
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

}  // extern "C"
}  // namespace shardkit_double
