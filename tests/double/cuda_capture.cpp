// Capture of streams into graphs, and what is refused meanwhile.
#include <double/state.hpp>

#include <algorithm>

namespace shardkit_double {
namespace {

capture* find_capture(const void* origin) {
  const auto at = all().captures.find(origin);
  return at == all().captures.end() ? nullptr : at->second.get();
}

/// Whether node `first` is among what `last` waits for, directly or not. Nodes wait for earlier ones only.
bool reaches(const graph& g, const std::vector<std::size_t>& last, std::size_t first) {
  std::vector<std::size_t> open = last;
  while (!open.empty()) {
    const std::size_t n = open.back();
    open.pop_back();
    if (n == first) return true;
    if (n > first) open.insert(open.end(), g.nodes[n].after.begin(), g.nodes[n].after.end());
  }
  return false;
}

cudaError_t begin_capture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  stream* s = find_stream(handle);
  if (s == nullptr) return bad_handle(handle, "stream", "cudaStreamBeginCapture");
  if (s->legacy) {
    report_found(report_kind::capture, "cudaStreamBeginCapture of the default stream, which cannot be captured");
    return cudaErrorStreamCaptureUnsupported;
  }
  if (s->capturing != nullptr) {
    report_found(report_kind::capture, "cudaStreamBeginCapture of " + s->name + ", which is capturing already");
    return cudaErrorIllegalState;
  }
  auto c = std::make_unique<capture>();
  c->number = ++all().capture_count;
  c->into = std::make_unique<graph>();
  c->into->lanes = 1;
  c->origin = s;
  c->mode = mode;
  c->thread = &this_thread();
  c->streams = {s};
  s->capturing = c.get();
  s->capture_lane = 0;
  s->capture_after.clear();
  all().captures[s] = std::move(c);
  return cudaSuccess;
}

cudaError_t end_capture(cudaStream_t handle, cudaGraph_t* out) {
  stream* s = find_stream(handle);
  if (s == nullptr) return bad_handle(handle, "stream", "cudaStreamEndCapture");
  if (out == nullptr) return cudaErrorInvalidValue;
  *out = nullptr;
  capture* c = find_capture(s);
  if (c == nullptr) {
    report_found(report_kind::capture, "cudaStreamEndCapture of " + s->name + ", where no capture began");
    return s->capturing == nullptr ? cudaErrorIllegalState : cudaErrorStreamCaptureUnmatched;
  }
  if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != &this_thread()) {
    report_found(report_kind::capture, "cudaStreamEndCapture of " + s->name + " by another thread than began it");
    return cudaErrorStreamCaptureWrongThread;
  }
  cudaError_t result = cudaSuccess;
  if (!c->broken.empty()) result = cudaErrorStreamCaptureInvalidated;
  for (const stream* other : c->streams)
    for (const std::size_t last : other->capture_after)
      if (result == cudaSuccess && !reaches(*c->into, s->capture_after, last)) {
        report_found(report_kind::capture, "cudaStreamEndCapture of " + s->name + " while work of " + other->name +
                                               " in the same capture is not waited for");
        result = cudaErrorStreamCaptureUnjoined;
      }
  std::unique_ptr<graph> made = std::move(c->into);
  for (stream* other : c->streams) other->capturing = nullptr;
  all().captures.erase(s);
  if (result != cudaSuccess) return result;
  made->handle = static_cast<cudaGraph_t>(const_cast<void*>(new_handle()));
  *out = made->handle;
  all().graphs.add(std::move(made));
  return cudaSuccess;
}

}  // namespace

void break_capture(capture& c, const char* function) {
  if (c.broken.empty()) c.broken = function;
}

void capture_operation(stream& s, operation op, const void* caller) {
  capture& c = *s.capturing;
  node n;
  n.op = std::move(op);
  n.after = s.capture_after;
  std::sort(n.after.begin(), n.after.end());
  n.lane = s.capture_lane;
  n.device = s.device;
  n.caller = caller;
  n.handle = static_cast<cudaGraphNode_t>(const_cast<void*>(new_handle()));
  s.capture_after = {c.into->nodes.size()};
  c.into->nodes.push_back(std::move(n));
}

cudaError_t refuse_in_capture(const char* function) {
  const thread_state& t = this_thread();
  if (t.capture_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (const auto& [origin, c] : all().captures) {
    const bool own = c->thread == &t;
    const bool forbids = own ? c->mode != cudaStreamCaptureModeRelaxed
                             : c->mode == cudaStreamCaptureModeGlobal && t.capture_mode == cudaStreamCaptureModeGlobal;
    if (!forbids) continue;
    report_found(report_kind::capture, std::string(function) + " while " + c->origin->name + " is capturing");
    break_capture(*c, function);
    return cudaErrorStreamCaptureUnsupported;
  }
  return cudaSuccess;
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return api("cudaStreamBeginCapture", [&] { return begin_capture(stream, mode); });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return api("cudaStreamEndCapture", [&] { return end_capture(stream, graph); });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return api("cudaStreamIsCapturing",
             [&] { return cudaStreamGetCaptureInfo(handle, status, nullptr, nullptr, nullptr, nullptr, nullptr); });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  return api("cudaStreamGetCaptureInfo", [&] {
    if (status == nullptr) return cudaErrorInvalidValue;
    if (graph != nullptr || dependencies != nullptr || edges != nullptr || count != nullptr) {
      report_found(report_kind::bad_argument,
                   "cudaStreamGetCaptureInfo: of a capture the double tells status and number only");
      return cudaErrorNotSupported;
    }
    const stream* s = find_stream(handle);
    if (s == nullptr) return bad_handle(handle, "stream", "cudaStreamGetCaptureInfo");
    *status = cudaStreamCaptureStatusNone;
    if (s->legacy)
      for (const auto& [origin, c] : all().captures)
        for (const stream* other : c->streams)
          if (other->device == s->device && other->blocking()) return cudaErrorStreamCaptureImplicit;
    if (s->capturing == nullptr) return cudaSuccess;
    *status = s->capturing->broken.empty() ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusInvalidated;
    if (id != nullptr) *id = s->capturing->number;
    return cudaSuccess;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return api("cudaThreadExchangeStreamCaptureMode", [&] {
    if (mode == nullptr) return cudaErrorInvalidValue;
    std::swap(*mode, this_thread().capture_mode);
    return cudaSuccess;
  });
}

}  // extern "C"
}  // namespace shardkit_double
