// NCCL's result codes as errors of the library's hierarchy.
#pragma once

#include <shardkit/backends/nccl_api.hpp>
#include <shardkit/core/error.hpp>

#include <string>

namespace shardkit {

/// A NCCL call failed, or a communicator has failed beside the calls. what() names the call, the code's meaning, what
/// NCCL last said, and a remedy where there is a known one.
class nccl_error : public transport_error {
 public:
  nccl_error(const nccl_api& api, ncclResult_t code, ncclComm_t comm, const std::string& call)
      : transport_error(compose(api, code, comm, call)), code_(code) {}

  ncclResult_t code() const noexcept { return code_; }

 private:
  static std::string compose(const nccl_api& api, ncclResult_t code, ncclComm_t comm, const std::string& call) {
    std::string text = call + " failed: " + api.get_error_string(code);
    text += " (" + std::to_string(static_cast<int>(code)) + ")";
    const char* const last = api.get_last_error(comm);
    if (last != nullptr && *last != '\0') text += std::string(", ") + last;
    return text + remedy(code);
  }
  static const char* remedy(ncclResult_t code) noexcept {
    switch (code) {
      case ncclUnhandledCudaError:
        return "; an earlier kernel or copy may have gone wrong, or memory is short: set NCCL_DEBUG=WARN to see which "
               "CUDA call it was";
      case ncclInvalidUsage:
        return "; each rank needs a GPU of its own (cudaSetDevice before the communicator is made) and the same "
               "version of NCCL: set NCCL_DEBUG=WARN to see more";
      case ncclInvalidArgument:
        return "; the buffers have to be memory of this communicator's GPU, and the stream one of its streams";
      case ncclRemoteError: return "; another process has ended or cannot be reached";
      case ncclSystemError:
        return "; the network, shared memory (/dev/shm) or a limit of the system: set NCCL_DEBUG=WARN";
      default: return "";
    }
  }

  ncclResult_t code_;
};

}  // namespace shardkit
