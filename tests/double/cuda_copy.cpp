// Copies and fills.
#include <double/state.hpp>

#include <cstring>

namespace shardkit_double {
namespace {

constexpr std::size_t longest_pitch = 0x7fffffff;

struct copy_shape {
  void* to;
  std::size_t to_stride;
  const void* from;
  std::size_t from_stride;
  std::size_t row_bytes;
  std::size_t rows;
};

bool on_device(const allocation* a) { return a != nullptr && a->kind != memory_kind::registered; }
bool on_host(const allocation* a) { return a == nullptr || a->kind != memory_kind::device; }

bool kind_fits(cudaMemcpyKind kind, const allocation* to, const allocation* from) {
  switch (kind) {
    case cudaMemcpyHostToHost: return on_host(to) && on_host(from);
    case cudaMemcpyHostToDevice: return on_device(to) && on_host(from);
    case cudaMemcpyDeviceToHost: return on_host(to) && on_device(from);
    case cudaMemcpyDeviceToDevice: return on_device(to) && on_device(from);
    case cudaMemcpyDefault: return true;
  }
  return false;
}

std::size_t extent(std::size_t stride, std::size_t row_bytes, std::size_t rows) {
  return (rows - 1) * stride + row_bytes;
}

bool overlap(const copy_shape& c) {
  const auto to = reinterpret_cast<std::uintptr_t>(c.to), from = reinterpret_cast<std::uintptr_t>(c.from);
  const std::size_t to_bytes = extent(c.to_stride, c.row_bytes, c.rows);
  const std::size_t from_bytes = extent(c.from_stride, c.row_bytes, c.rows);
  if (to + to_bytes <= from || from + from_bytes <= to) return false;
  // Columns of one matrix may lie between each other's rows.
  if (c.rows > 1 && c.to_stride == c.from_stride) {
    const std::size_t apart = (to > from ? to - from : from - to) % c.to_stride;
    return apart < c.row_bytes || c.to_stride - apart < c.row_bytes;
  }
  return true;
}

operation copy_operation(const char* name, const copy_shape& c) {
  operation op;
  op.name = name;
  op.kind = node_kind::copy;
  op.accesses = {{access_mode::read, c.from, c.row_bytes, c.rows, c.from_stride},
                 {access_mode::write, c.to, c.row_bytes, c.rows, c.to_stride}};
  op.run = [c] {
    auto* to = static_cast<std::byte*>(storage(c.to));
    const auto* from = static_cast<const std::byte*>(storage(c.from));
    if (to == nullptr || from == nullptr) return progress::done;  // freed meanwhile, which was reported
    for (std::size_t row = 0; row < c.rows; ++row)
      std::memcpy(to + row * c.to_stride, from + row * c.from_stride, c.row_bytes);
    return progress::done;
  };
  return op;
}

cudaError_t copy(const char* name, const copy_shape& c, cudaMemcpyKind kind, cudaStream_t stream, bool synchronous) {
  if (synchronous)
    if (const cudaError_t error = refuse_in_capture(name); error != cudaSuccess) return error;
  if (c.row_bytes == 0 || c.rows == 0) return check_stream(stream, name);
  if (c.rows > 1 && (c.row_bytes > c.to_stride || c.row_bytes > c.from_stride || c.to_stride > longest_pitch ||
                     c.from_stride > longest_pitch)) {
    report_found(report_kind::bad_argument, std::string(name) + " with rows of " + std::to_string(c.row_bytes) +
                                                " bytes and pitches " + std::to_string(c.to_stride) + " and " +
                                                std::to_string(c.from_stride));
    return cudaErrorInvalidPitchValue;
  }
  const allocation* to = find_allocation(c.to);
  const allocation* from = find_allocation(c.from);
  if (!kind_fits(kind, to, from)) {
    report_found(report_kind::bad_argument, std::string(name) + " from " + describe(c.from) + " to " + describe(c.to) +
                                                " with cudaMemcpyKind " + std::to_string(static_cast<int>(kind)));
    return cudaErrorInvalidValue;
  }
  if (overlap(c)) {
    report_found(report_kind::bad_argument,
                 std::string(name) + " between ranges of " + describe(c.to) + " that overlap");
    return cudaErrorInvalidValue;
  }
  if (const cudaError_t error = enqueue(stream, copy_operation(name, c)); error != cudaSuccess || !synchronous)
    return error;
  // Between devices the host does not wait. From pageable memory it waits until the source can be used again: that
  // the bytes have arrived is known to the stream alone.
  if (!on_host(to) && !on_host(from)) return cudaSuccess;
  const queued_ptr q = find_stream(stream)->last;
  wait_done(q);
  if (from == nullptr && !on_host(to)) acquire_token(&q->done_token);
  else host_saw(*q);
  return machine_error();
}

cudaError_t fill(const char* name, void* to, std::size_t stride, int value, std::size_t row_bytes, std::size_t rows,
                 cudaStream_t stream, bool synchronous) {
  if (synchronous)
    if (const cudaError_t error = refuse_in_capture(name); error != cudaSuccess) return error;
  if (row_bytes == 0 || rows == 0) return check_stream(stream, name);
  if (rows > 1 && row_bytes > stride) return cudaErrorInvalidPitchValue;
  operation op;
  op.name = name;
  op.kind = node_kind::fill;
  op.parameters = "with " + std::to_string(value & 0xff);
  op.accesses = {{access_mode::write, to, row_bytes, rows, stride}};
  op.run = [=] {
    auto* bytes = static_cast<std::byte*>(storage(to));
    if (bytes == nullptr) return progress::done;
    for (std::size_t row = 0; row < rows; ++row) std::memset(bytes + row * stride, value, row_bytes);
    return progress::done;
  };
  if (const cudaError_t error = enqueue(stream, std::move(op)); error != cudaSuccess || !synchronous) return error;
  // The host waits where the memory is the host's.
  const allocation* memory = find_allocation(to);
  if (!on_host(memory)) return cudaSuccess;
  const queued_ptr q = find_stream(stream)->last;
  wait_done(q);
  host_saw(*q);
  return machine_error();
}

copy_shape flat(void* to, const void* from, std::size_t bytes) { return {to, bytes, from, bytes, bytes, 1}; }

/// Checks the devices that a peer copy names.
cudaError_t copy_peer(const char* name, void* to, int to_device, const void* from, int from_device, std::size_t bytes,
                      cudaStream_t stream, bool synchronous) {
  const int count = all().device_count;
  if (to_device < 0 || to_device >= count || from_device < 0 || from_device >= count) {
    report_found(report_kind::wrong_device, std::string(name) + " from device " + std::to_string(from_device) +
                                                " to device " + std::to_string(to_device) + " of " +
                                                std::to_string(count) + " devices");
    return cudaErrorInvalidDevice;
  }
  if (bytes != 0 && (memory_device(to) != to_device || memory_device(from) != from_device)) {
    report_found(report_kind::wrong_device, std::string(name) + " from device " + std::to_string(from_device) +
                                                " to device " + std::to_string(to_device) + " of " + describe(from) +
                                                " and " + describe(to));
    return cudaErrorInvalidValue;
  }
  return copy(name, flat(to, from, bytes), cudaMemcpyDefault, stream, synchronous);
}

}  // namespace

extern "C" {

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return api("cudaMemcpy", [&] { return copy("cudaMemcpy", flat(to, from, bytes), kind, nullptr, true); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return api("cudaMemcpyAsync", [&] { return copy("cudaMemcpyAsync", flat(to, from, bytes), kind, stream, false); });
}
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  return api("cudaMemcpy2D", [&] {
    return copy("cudaMemcpy2D", {to, to_pitch, from, from_pitch, width, height}, kind, nullptr, true);
  });
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return api("cudaMemcpy2DAsync", [&] {
    return copy("cudaMemcpy2DAsync", {to, to_pitch, from, from_pitch, width, height}, kind, stream, false);
  });
}
cudaError_t cudaMemcpyPeer(void* to, int to_device, const void* from, int from_device, size_t bytes) {
  return api("cudaMemcpyPeer",
             [&] { return copy_peer("cudaMemcpyPeer", to, to_device, from, from_device, bytes, nullptr, true); });
}
cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes,
                                cudaStream_t stream) {
  return api("cudaMemcpyPeerAsync",
             [&] { return copy_peer("cudaMemcpyPeerAsync", to, to_device, from, from_device, bytes, stream, false); });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return api("cudaMemset", [&] { return fill("cudaMemset", to, bytes, value, bytes, 1, nullptr, true); });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return api("cudaMemsetAsync", [&] { return fill("cudaMemsetAsync", to, bytes, value, bytes, 1, stream, false); });
}
cudaError_t cudaMemset2D(void* to, size_t pitch, int value, size_t width, size_t height) {
  return api("cudaMemset2D", [&] { return fill("cudaMemset2D", to, pitch, value, width, height, nullptr, true); });
}
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return api("cudaMemset2DAsync",
             [&] { return fill("cudaMemset2DAsync", to, pitch, value, width, height, stream, false); });
}

}  // extern "C"
}  // namespace shardkit_double
