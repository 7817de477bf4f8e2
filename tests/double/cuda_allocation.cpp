// Allocation of device, pinned and managed memory, which all start as NaN; pinned and managed memory ends at a page
// that nobody can read, and cannot be read any more when freed.
#include <double/state.hpp>

#include <sys/mman.h>
#include <cstring>

namespace shardkit_double {
namespace {

constexpr std::size_t alignment = 256;
constexpr int not_a_number = 0xff;  // in every floating-point format

/// ThreadSanitizer forgets here what it knew about the addresses.
std::byte* map(std::size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
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
  const std::size_t whole = round_to_pages(bytes);
  std::byte* storage = map(whole);
  const std::uintptr_t begin = storage == nullptr ? 0 : new_device_addresses(whole + page);
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
  const std::size_t whole = round_to_pages(bytes);
  std::byte* mapping = map(whole + page);
  if (mapping == nullptr) return cudaErrorMemoryAllocation;
  mprotect(mapping + whole, page, PROT_NONE);
  std::byte* memory = mapping + whole - (bytes + alignment - 1) / alignment * alignment;
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
    mprotect(a->mapping, a->mapping_bytes, PROT_NONE);
    a->storage = nullptr;
  }
  return cudaSuccess;
}

}  // namespace

void release_storage(allocation& a) {
  if (a.mapping != nullptr) munmap(a.mapping, a.mapping_bytes);
  else if (a.storage != nullptr && a.kind == memory_kind::device) {
    munmap(a.storage, a.mapping_bytes);
    device_state(a.device).used -= a.bytes;
  }
  a.storage = nullptr;
  a.mapping = nullptr;
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
    if (device_pointer == nullptr || flags != 0) return cudaErrorInvalidValue;
    if (a == nullptr || a->kind == memory_kind::device || !a->freed_by.empty()) return cudaErrorInvalidValue;
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
      if (was_device_address(pointer)) {
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
