// Memory as the double remembers it: addresses, allocations, and who may touch what. Device memory is an address range
// that nobody can read, and bytes elsewhere; no address is given out twice.
#include <double/state.hpp>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <algorithm>
#include <cstdio>

namespace shardkit_double {
namespace {

constexpr std::size_t reservation = std::size_t{64} << 30;

/// Addresses without memory, given out once.
class address_range {
 public:
  std::uintptr_t take(std::size_t bytes) {
    if (ranges_.empty() || end_ - next_ < bytes) {
      const std::size_t size = std::max(reservation, round_to_pages(bytes));
      // Straight from the kernel: sanitizers need not prepare for what nobody can touch.
      const long at = syscall(SYS_mmap, nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (at == -1) return 0;
      next_ = static_cast<std::uintptr_t>(at);
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

}  // namespace

std::uintptr_t new_device_addresses(std::size_t bytes) { return device_addresses().take(bytes); }
bool was_device_address(const void* address) { return device_addresses().contains(address); }
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
  if (a == nullptr)
    return (device_addresses().contains(address) ? "dead device memory at " : "host memory at ") + std::string(hex);
  const std::size_t offset = reinterpret_cast<std::uintptr_t>(address) - a->begin;
  std::string text =
      "device " + std::to_string(a->device) + " " + kind_name(a->kind) + " #" + std::to_string(a->number);
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
    report_found(report_kind::out_of_bounds, what + ", but its " + std::to_string(memory->bytes) + " bytes end " +
                                                 std::to_string(bytes - (memory->bytes - offset)) + " before");
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

}  // namespace shardkit_double
