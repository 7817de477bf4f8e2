// NCCL's functions as one table: linked, or loaded at run time, so that one binary runs on machines without NCCL and
// tests can put a double there. Headers of NCCL 2.19 or newer; functions of later versions are null where the headers
// or the library lack them.
#pragma once

#include <shardkit/core/error.hpp>

#include <dlfcn.h>
#if !__has_include(<nccl.h>)
#error "shardkit: this needs NCCL; link shardkit::nccl, or give the folder of nccl.h with -I"
#elif !__has_include(<cuda_runtime.h>)
#error "shardkit: NCCL needs the CUDA toolkit; link shardkit::nccl, or give the toolkit's include folder with -I"
#endif
#include <nccl.h>

#include <cstddef>
#include <string>
#include <type_traits>

#if NCCL_VERSION_CODE < 21900
#error "shardkit: NCCL 2.19 or newer is needed"
#endif

// What every NCCL from 2.19 on has: the name in the table, NCCL's own. (The formatter never comes to rest on it.)
// clang-format off
#define SHARDKIT_NCCL_FUNCTIONS(X) \
  X(get_version, ncclGetVersion) X(get_unique_id, ncclGetUniqueId) \
  X(comm_init_rank_config, ncclCommInitRankConfig) X(comm_finalize, ncclCommFinalize) \
  X(comm_destroy, ncclCommDestroy) X(comm_abort, ncclCommAbort) X(comm_split, ncclCommSplit) \
  X(get_error_string, ncclGetErrorString) X(get_last_error, ncclGetLastError) \
  X(comm_get_async_error, ncclCommGetAsyncError) X(comm_count, ncclCommCount) \
  X(comm_cu_device, ncclCommCuDevice) X(comm_user_rank, ncclCommUserRank) X(comm_register, ncclCommRegister) \
  X(comm_deregister, ncclCommDeregister) X(reduce, ncclReduce) X(broadcast, ncclBroadcast) \
  X(all_reduce, ncclAllReduce) X(reduce_scatter, ncclReduceScatter) X(all_gather, ncclAllGather) \
  X(send, ncclSend) X(recv, ncclRecv) X(group_start, ncclGroupStart) X(group_end, ncclGroupEnd)
// clang-format on

namespace shardkit {

/// NCCL's functions by name, so that a program may load the library at run time or put another one in its place.
struct nccl_api {
#define SHARDKIT_NCCL_ENTRY(entry, function) decltype(&::function) entry = nullptr;
  SHARDKIT_NCCL_FUNCTIONS(SHARDKIT_NCCL_ENTRY)
#undef SHARDKIT_NCCL_ENTRY

  // Of later versions, with types written out: the headers at hand may not have them.
  /// ncclGather and ncclScatter.
  using rooted_function = ncclResult_t (*)(const void* in, void* out, std::size_t count, ncclDataType_t type, int root,
                                           ncclComm_t comm, cudaStream_t stream);
  /// ncclAlltoAll.
  using all_to_all_function = ncclResult_t (*)(const void* in, void* out, std::size_t count, ncclDataType_t type,
                                               ncclComm_t comm, cudaStream_t stream);
  /// ncclCommRevoke.
  using revoke_function = ncclResult_t (*)(ncclComm_t comm, int flags);
  rooted_function gather = nullptr;          ///< 2.28
  rooted_function scatter = nullptr;         ///< 2.28
  all_to_all_function all_to_all = nullptr;  ///< 2.28
  revoke_function comm_revoke = nullptr;     ///< 2.28.9

  /// The functions that the program is linked with.
  static nccl_api linked();

  /// The functions of a shared library, which stays loaded until the program ends. Throws unsupported_error where it
  /// cannot be loaded, is older than 2.19 or lacks a function.
  static nccl_api load(const std::string& library = "libnccl.so.2");

  /// What nccl_options take by default: the linked functions, or the loaded ones where the whole program is compiled
  /// with SHARDKIT_NCCL_LOAD.
  static nccl_api of_program() {
#ifdef SHARDKIT_NCCL_LOAD
    return load();
#else
    return linked();
#endif
  }

  /// NCCL_VERSION_CODE of the library: 22809 is 2.28.9. 0 where it does not say.
  int version() const {
    int code = 0;
    return get_version != nullptr && get_version(&code) == ncclSuccess ? code : 0;
  }
};

namespace detail {

inline std::string nccl_version_text(int code) {
  return std::to_string(code / 10000) + "." + std::to_string(code / 100 % 100) + "." + std::to_string(code % 100);
}

}  // namespace detail

inline nccl_api nccl_api::linked() {
  nccl_api api;
#define SHARDKIT_NCCL_LINKED(entry, function) api.entry = &::function;
  SHARDKIT_NCCL_FUNCTIONS(SHARDKIT_NCCL_LINKED)
#undef SHARDKIT_NCCL_LINKED
#if NCCL_VERSION_CODE >= 22800
  api.gather = &::ncclGather;
  api.scatter = &::ncclScatter;
  api.all_to_all = &::ncclAlltoAll;
#endif
#if NCCL_VERSION_CODE >= 22809
  api.comm_revoke = &::ncclCommRevoke;
#endif
  return api;
}

inline nccl_api nccl_api::load(const std::string& library) {
  void* const handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* const reason = ::dlerror();
    throw unsupported_error("NCCL cannot be loaded: " + std::string(reason != nullptr ? reason : library.c_str()) +
                            "; install NCCL 2.19 or newer, or put its folder into LD_LIBRARY_PATH");
  }
  nccl_api api;
  const auto find = [&](auto& entry, const char* name) {
    entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(::dlsym(handle, name));
    return entry != nullptr;
  };
  const auto need = [&](auto& entry, const char* name) {
    if (!find(entry, name)) throw unsupported_error(library + " has no " + name + "; NCCL 2.19 or newer is needed");
  };
  need(api.get_version, "ncclGetVersion");
  if (const int found = api.version(); found < 21900)
    throw unsupported_error(library + " is NCCL " + detail::nccl_version_text(found) + "; 2.19 or newer is needed");
#define SHARDKIT_NCCL_FOUND(entry, function) need(api.entry, #function);
  SHARDKIT_NCCL_FUNCTIONS(SHARDKIT_NCCL_FOUND)
#undef SHARDKIT_NCCL_FOUND
  (void)find(api.gather, "ncclGather");
  (void)find(api.scatter, "ncclScatter");
  (void)find(api.all_to_all, "ncclAlltoAll");
  (void)find(api.comm_revoke, "ncclCommRevoke");
  return api;
}

}  // namespace shardkit

#undef SHARDKIT_NCCL_FUNCTIONS
