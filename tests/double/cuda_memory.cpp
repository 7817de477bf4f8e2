// Memory: device memory is an address range that nobody can read and bytes elsewhere; pinned and managed memory ends
// at a page that nobody can read. Addresses are never given out twice. Everything starts as NaN.
#include <double/state.hpp>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace shardkit_double {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t alignment = 256;
constexpr std::size_t reservation = std::size_t{64} << 30;
constexpr int not_a_number = 0xff;  // in every floating-point format

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

/// Straight from the kernel: sanitizers need not know of it.
std::byte* map(std::size_t bytes, int protection) {
  const long at = syscall(SYS_mmap, nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == -1 ? nullptr : reinterpret_cast<std::byte*>(at);
}
void unmap(std::byte* at, std::size_t bytes) { syscall(SYS_munmap, at, bytes); }

/// Addresses without memory, given out once.
class address_range {
 public:
  std::uintptr_t take(std::size_t bytes) {
    if (ranges_.empty() || end_ - next_ < bytes) {
      const std::size_t size = std::max(reservation, round_up(bytes, page));
      std::byte* at = map(size, PROT_NONE);
      if (at == nullptr) return 0;
      next_ = reinterpret_cast<std::uintptr_t>(at);
      end_ = next_ + size;
      ranges_.push_back({next_, end_});
    }
    const std::uintptr_t taken = next_;
    next_ += bytes;
    return taken;
  }
  bool contains(const void* address) const {
    const auto a = reinterpret_cast<std::uintptr_t>(address);
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& r) { return a >= r.first && a < r.second; });
  }

 private:
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> ranges_;
  std::uintptr_t next_ = 0;
  std::uintptr_t end_ = 0;
};

address_range& device_addresses() {
  static auto& range = *new address_range;
  return range;
}
address_range& handle_addresses() {
  static auto& range = *new address_range;
  return range;
}

const char* kind_name(memory_kind kind) {
  switch (kind) {
    case memory_kind::device: return "allocation";
    case memory_kind::pinned: return "pinned allocation";
    case memory_kind::managed: return "managed allocation";
    case memory_kind::registered: return "registered range";
  }
  return "memory";
}

allocation& add(memory_kind kind, int device, std::uintptr_t begin, std::size_t bytes) {
  allocation& a = all().memory[begin];
  a = {};
  a.begin = begin;
  a.bytes = bytes;
  a.kind = kind;
  a.device = device;
  a.number = ++device_state(device).allocations;
  return a;
}

cudaError_t allocate_device(void** pointer, std::size_t bytes) {
  if (pointer == nullptr) return cudaErrorInvalidValue;
  if (bytes == 0) {
    *pointer = nullptr;
    return cudaSuccess;
  }
  const int device = this_thread().device;
  shardkit_double::device& home = device_state(device);
  if (bytes > all().device_memory - home.used) return cudaErrorMemoryAllocation;
  const std::size_t whole = round_up(bytes, page);
  std::byte* storage = map(whole, PROT_READ | PROT_WRITE);
  const std::uintptr_t begin = storage == nullptr ? 0 : device_addresses().take(whole + page);
  if (begin == 0) return cudaErrorMemoryAllocation;
  std::memset(storage, not_a_number, bytes);
  home.used += bytes;
  allocation& a = add(memory_kind::device, device, begin, bytes);
  a.storage = storage;
  a.mapping_bytes = whole;
  *pointer = reinterpret_cast<void*>(begin);
  return cudaSuccess;
}

/// Memory that the host can use too; its end lies against a page that it cannot.
cudaError_t allocate_host(void** pointer, std::size_t bytes, memory_kind kind, unsigned flags) {
  if (pointer == nullptr) return cudaErrorInvalidValue;
  if (bytes == 0) {
    *pointer = nullptr;
    return kind == memory_kind::managed ? cudaErrorInvalidValue : cudaSuccess;
  }
  const std::size_t whole = round_up(bytes, page);
  std::byte* mapping = map(whole + page, PROT_READ | PROT_WRITE);
  if (mapping == nullptr) return cudaErrorMemoryAllocation;
  syscall(SYS_mprotect, mapping + whole, page, PROT_NONE);
  std::byte* memory = mapping + whole - round_up(bytes, alignment);
  std::memset(memory, not_a_number, bytes);
  allocation& a = add(kind, this_thread().device, reinterpret_cast<std::uintptr_t>(memory), bytes);
  a.storage = memory;
  a.mapping = mapping;
  a.mapping_bytes = whole + page;
  a.flags = flags;
  *pointer = memory;
  return cudaSuccess;
}

cudaError_t free_memory(void* pointer, bool host, const char* function) {
  if (pointer == nullptr) return cudaSuccess;
  allocation* a = find_allocation(pointer);
  const bool fits = a != nullptr && a->begin == reinterpret_cast<std::uintptr_t>(pointer) &&
                    a->kind != memory_kind::registered && (a->kind == memory_kind::pinned) == host;
  if (!fits || !a->freed_by.empty()) {
    report_found(fits ? report_kind::use_after_free : report_kind::bad_argument,
                 std::string(function) + " of " + describe(pointer) +
                     (fits ? ", which was freed before" : ", which it did not allocate"));
    return cudaErrorInvalidValue;
  }
  check_free(*a, function);
  a->freed_by = function;  // already while the device drains: nothing new may use it
  drain(a->device);
  if (a->kind == memory_kind::device) {
    release_storage(*a);
  } else {
    // The addresses stay taken, and cannot be read any more.
    syscall(SYS_mprotect, a->mapping, a->mapping_bytes, PROT_NONE);
    a->storage = nullptr;
  }
  return cudaSuccess;
}

}  // namespace

const void* new_handle() { return reinterpret_cast<const void*>(handle_addresses().take(64)); }
bool was_handle(const void* handle) { return handle_addresses().contains(handle); }

allocation* find_allocation(const void* address) {
  auto& memory = all().memory;
  const auto a = reinterpret_cast<std::uintptr_t>(address);
  auto at = memory.upper_bound(a);
  if (at == memory.begin()) return nullptr;
  --at;
  return a - at->first < at->second.bytes ? &at->second : nullptr;
}

void release_storage(allocation& a) {
  if (a.mapping != nullptr) unmap(a.mapping, a.mapping_bytes);
  else if (a.storage != nullptr && a.kind == memory_kind::device) {
    unmap(a.storage, a.mapping_bytes);
    device_state(a.device).used -= a.bytes;
  }
  a.storage = nullptr;
  a.mapping = nullptr;
}

void* storage(const void* address) {
  under_lock guard;
  allocation* a = find_allocation(address);
  if (a != nullptr)
    return a->storage == nullptr ? nullptr : a->storage + (reinterpret_cast<std::uintptr_t>(address) - a->begin);
  return device_addresses().contains(address) ? nullptr : const_cast<void*>(address);
}

int memory_device(const void* address) {
  const allocation* a = find_allocation(address);
  return a == nullptr || a->kind == memory_kind::pinned || a->kind == memory_kind::registered ? -1 : a->device;
}

std::string describe(const void* address) {
  char hex[32];
  std::snprintf(hex, sizeof hex, "%p", address);
  const allocation* a = find_allocation(address);
  if (a == nullptr) return (device_addresses().contains(address) ? "dead device memory at " : "host memory at ") +
                           std::string(hex);
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(address) - a->begin;
  std::string text = "device " + std::to_string(a->device) + " " + kind_name(a->kind) + " #" + std::to_string(a->number);
  if (offset != 0) text += " + " + std::to_string(offset);
  return text;
}

cudaError_t check_access(const access& a, int device, const char* function) {
  const std::size_t bytes = a.bytes == 0 || a.rows == 0 ? 0 : (a.rows - 1) * a.stride + a.bytes;
  if (bytes == 0) return cudaSuccess;
  const std::string what = std::string(function) + (a.mode == access_mode::read ? " reads " : " writes ") +
                           std::to_string(bytes) + " bytes at " + describe(a.address);
  if (a.address == nullptr) {
    report_found(report_kind::bad_argument, what + ", a null pointer");
    return cudaErrorInvalidValue;
  }
  const allocation* memory = find_allocation(a.address);
  if (memory == nullptr) {
    if (device_addresses().contains(a.address)) {
      report_found(report_kind::use_after_free, what + ", which is no allocation, or one of before the last reset");
      return cudaErrorInvalidValue;
    }
    if (device >= 0) {
      report_found(report_kind::bad_argument, what + ", pageable memory, which device " + std::to_string(device) +
                                                  " cannot access: copy it to the device, or pin it");
      return cudaErrorInvalidValue;
    }
    return cudaSuccess;
  }
  if (!memory->freed_by.empty()) {
    report_found(report_kind::use_after_free, what + ", which was freed by " + memory->freed_by);
    return cudaErrorInvalidValue;
  }
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(a.address) - memory->begin;
  if (bytes > memory->bytes - offset) {
    report_found(report_kind::out_of_bounds, what + ", but its " + std::to_string(memory->bytes) +
                                                 " bytes end " + std::to_string(bytes - (memory->bytes - offset)) +
                                                 " before");
    return cudaErrorInvalidValue;
  }
  if (device >= 0 && memory->kind == memory_kind::device && memory->device != device &&
      device_state(device).peers_enabled.count(memory->device) == 0) {
    report_found(report_kind::wrong_device, what + " on device " + std::to_string(device) +
                                                ", which cannot access it: cudaDeviceEnablePeerAccess was not called");
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

cudaError_t check_accesses(const operation& op, int device) {
  // Copies reach every memory; kernels and fills only what the device can access.
  const bool anywhere = op.kind == node_kind::copy || op.kind == node_kind::host;
  for (const access& a : op.accesses)
    if (const cudaError_t error = check_access(a, anywhere ? -1 : device, op.name.c_str()); error != cudaSuccess)
      return error;
  return cudaSuccess;
}

void check_free(allocation& a, const char* function) {
  std::string conflict;
  a.history.ended(host_clock(), [&](const stamp& earlier, access_mode mode, std::size_t, std::size_t) {
    if (conflict.empty())
      conflict = std::string(function) + " of " + describe(reinterpret_cast<const void*>(a.begin)) + " while " +
                 *earlier.name + (mode == access_mode::read ? " may still read it" : " may still write it") +
                 ": synchronise with that stream before";
  });
  if (!conflict.empty()) report_found(report_kind::free_in_flight, conflict);
}

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return api("cudaMalloc", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaMalloc"); error != cudaSuccess) return error;
    return allocate_device(pointer, bytes);
  });
}

cudaError_t cudaFree(void* pointer) {
  return api("cudaFree", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaFree"); error != cudaSuccess) return error;
    return free_memory(pointer, false, "cudaFree");
  });
}

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return api("cudaMallocAsync", [&] {
    if (const cudaError_t error = check_stream(stream, "cudaMallocAsync"); error != cudaSuccess) return error;
    if (is_capturing(stream)) {
      report_found(report_kind::capture, "cudaMallocAsync in a capture: the double has no allocation nodes");
      return cudaErrorStreamCaptureUnsupported;
    }
    if (const cudaError_t error = allocate_device(pointer, bytes); error != cudaSuccess) return error;
    if (*pointer == nullptr) return cudaSuccess;
    return enqueue(stream, {"cudaMallocAsync", node_kind::allocation, {writes(*pointer, bytes)}, "", {}, {}});
  });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return api("cudaFreeAsync", [&] {
    if (pointer == nullptr) return cudaSuccess;
    if (const cudaError_t error = check_stream(stream, "cudaFreeAsync"); error != cudaSuccess) return error;
    if (is_capturing(stream)) {
      report_found(report_kind::capture, "cudaFreeAsync in a capture: the double has no deallocation nodes");
      return cudaErrorStreamCaptureUnsupported;
    }
    allocation* a = find_allocation(pointer);
    if (a == nullptr || a->begin != reinterpret_cast<std::uintptr_t>(pointer) || a->kind != memory_kind::device ||
        !a->freed_by.empty()) {
      report_found(a != nullptr && !a->freed_by.empty() ? report_kind::use_after_free : report_kind::bad_argument,
                   "cudaFreeAsync of " + describe(pointer) + ", which is no living device allocation");
      return cudaErrorInvalidValue;
    }
    operation op{"cudaFreeAsync", node_kind::deallocation, {writes(pointer, a->bytes)}, "", {}, {}};
    op.run = [pointer] {
      if (allocation* gone = find_allocation(pointer)) release_storage(*gone);
      return progress::done;
    };
    const cudaError_t error = enqueue(stream, std::move(op));
    if (error == cudaSuccess) a->freed_by = "cudaFreeAsync";
    return error;
  });
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return api("cudaMallocHost", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaMallocHost"); error != cudaSuccess) return error;
    return allocate_host(pointer, bytes, memory_kind::pinned, cudaHostAllocDefault);
  });
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  return api("cudaHostAlloc", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaHostAlloc"); error != cudaSuccess) return error;
    if ((flags & ~unsigned{cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined}) != 0) {
      report_found(report_kind::bad_argument, "cudaHostAlloc with unknown flags " + std::to_string(flags));
      return cudaErrorInvalidValue;
    }
    return allocate_host(pointer, bytes, memory_kind::pinned, flags);
  });
}

cudaError_t cudaFreeHost(void* pointer) {
  return api("cudaFreeHost", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaFreeHost"); error != cudaSuccess) return error;
    return free_memory(pointer, true, "cudaFreeHost");
  });
}

cudaError_t cudaMallocManaged(void** pointer, size_t bytes, unsigned flags) {
  return api("cudaMallocManaged", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaMallocManaged"); error != cudaSuccess) return error;
    if (flags != cudaMemAttachGlobal && flags != cudaMemAttachHost) {
      report_found(report_kind::bad_argument, "cudaMallocManaged with unknown flags " + std::to_string(flags));
      return cudaErrorInvalidValue;
    }
    return allocate_host(pointer, bytes, memory_kind::managed, flags);
  });
}

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned flags) {
  return api("cudaHostRegister", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaHostRegister"); error != cudaSuccess) return error;
    if (pointer == nullptr || bytes == 0 ||
        (flags & ~unsigned{cudaHostRegisterPortable | cudaHostRegisterMapped | cudaHostRegisterReadOnly}) != 0)
      return cudaErrorInvalidValue;
    const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
    auto after = all().memory.lower_bound(begin);
    if (find_allocation(pointer) != nullptr || (after != all().memory.end() && after->first < begin + bytes))
      return cudaErrorHostMemoryAlreadyRegistered;
    allocation& a = add(memory_kind::registered, this_thread().device, begin, bytes);
    a.storage = static_cast<std::byte*>(pointer);
    a.flags = flags;
    return cudaSuccess;
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return api("cudaHostUnregister", [&] {
    if (const cudaError_t error = refuse_in_capture("cudaHostUnregister"); error != cudaSuccess) return error;
    allocation* a = find_allocation(pointer);
    if (a == nullptr || a->begin != reinterpret_cast<std::uintptr_t>(pointer) || a->kind != memory_kind::registered)
      return cudaErrorHostMemoryNotRegistered;
    check_free(*a, "cudaHostUnregister");
    all().memory.erase(a->begin);
    return cudaSuccess;
  });
}

cudaError_t cudaHostGetDevicePointer(void** device_pointer, void* host_pointer, unsigned flags) {
  return api("cudaHostGetDevicePointer", [&] {
    const allocation* a = find_allocation(host_pointer);
    if (device_pointer == nullptr || flags != 0 || a == nullptr || a->kind == memory_kind::device || !a->freed_by.empty())
      return cudaErrorInvalidValue;
    *device_pointer = host_pointer;
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return api("cudaPointerGetAttributes", [&] {
    if (attributes == nullptr) return cudaErrorInvalidValue;
    *attributes = {};
    const allocation* a = find_allocation(pointer);
    if (a == nullptr || !a->freed_by.empty()) {
      if (device_addresses().contains(pointer)) {
        report_found(report_kind::use_after_free, "cudaPointerGetAttributes of " + describe(pointer));
        return cudaErrorInvalidValue;
      }
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->device = cudaInvalidDeviceId;
      attributes->hostPointer = const_cast<void*>(pointer);
      return cudaSuccess;
    }
    attributes->type = a->kind == memory_kind::device    ? cudaMemoryTypeDevice
                       : a->kind == memory_kind::managed ? cudaMemoryTypeManaged
                                                         : cudaMemoryTypeHost;
    attributes->device = a->device;
    attributes->devicePointer = const_cast<void*>(pointer);
    attributes->hostPointer = a->kind == memory_kind::device ? nullptr : const_cast<void*>(pointer);
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  return api("cudaMemGetInfo", [&] {
    if (free_bytes == nullptr || total == nullptr) return cudaErrorInvalidValue;
    *total = all().device_memory;
    *free_bytes = *total - device_state(this_thread().device).used;
    return cudaSuccess;
  });
}

}  // extern "C"
}  // namespace shardkit_double
