// The reductions of thread ranks on CUDA memory: one kernel that reads every rank's elements where they lie and writes
// them where they belong; between GPUs that do not reach each other, by way of a workspace.
#pragma once

#include <shardkit/backends/detail/cuda_thread_streams.hpp>
#include <shardkit/core/detail/element_at.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace shardkit::detail {

class cuda_thread_reduction {
 public:
  /// Memory of a rank, of which a rank reads or writes some elements.
  struct place {
    int rank;
    void* data;  ///< inputs are only read
  };

  explicit cuda_thread_reduction(cuda_thread_streams& streams) : streams_(streams) {}

  /// Throws where such a reduction cannot be made, before anything is enqueued.
  void require(dtype type, reduction op, int ranks, bool captured) const {
    require_reducible(type, op.kind);
    if (streams_.options().ordered_reduce == nullptr)
      throw unsupported_error(std::string(name_of(op.kind)) + " of " + name_of(type) +
                              " needs a kernel, and cuda_thread_options::ordered_reduce is null; set it to "
                              "&cuda_ordered_reduce in a file that nvcc compiles and that includes "
                              "shardkit/cuda/ordered_reduce.cuh, or to a kernel of your own");
    if (streams_.reaches_all()) return;
    const std::size_t workspace = streams_.workspace().size(), least = static_cast<std::size_t>(ranks + 1) * 16;
    if (workspace < least)
      throw usage_error("a reduction over " + std::to_string(ranks) +
                        " ranks whose GPUs do not reach each other needs " + std::to_string(least) +
                        " bytes at least: cuda_thread_options::workspace_bytes is " + std::to_string(workspace));
    if (captured)
      throw unsupported_error(
          "a reduction between GPUs that do not reach each other cannot be captured into a graph: it goes through "
          "memory that all reductions of the communicator share; make the call outside the capture");
  }

  /// Combines `count` elements of the `inputs`, in their order, into each of the `outputs`.
  void operator()(dtype type, reduction op, const std::vector<place>& inputs, const std::vector<place>& outputs,
                  std::size_t count, at<cuda_space> where) {
    // Blocks of the workspace, one for each input and one for the result, begin at multiples of 16 bytes.
    const std::size_t block = streams_.workspace().size() / (inputs.size() + 1) / 16 * 16;
    const auto workspace = [&, this](std::size_t index) { return streams_.workspace().data() + index * block; };
    const std::size_t piece = streams_.reaches_all() ? count : block / size_of(type);
    for (std::size_t first = 0; first < count; first += piece) {
      const std::size_t n = std::min(piece, count - first), bytes = n * size_of(type);
      inputs_.clear();
      outputs_.clear();
      for (const place& one : inputs) {
        const void* from = element_at(one.data, first, type);
        if (!streams_.reaches(one.rank)) {
          void* const here = workspace(inputs_.size());
          cuda_space::copy(here, from, bytes, where);
          from = here;
        }
        inputs_.push_back(from);
      }
      for (const place& one : outputs)
        if (streams_.reaches(one.rank)) outputs_.push_back(element_at(one.data, first, type));
      if (outputs_.empty()) outputs_.push_back(workspace(inputs.size()));
      streams_.options().ordered_reduce(op.kind, type, inputs_.data(), static_cast<int>(inputs_.size()),
                                        outputs_.data(), static_cast<int>(outputs_.size()), n, where);
      for (const place& one : outputs)
        if (!streams_.reaches(one.rank)) cuda_space::copy(element_at(one.data, first, type), outputs_[0], bytes, where);
    }
  }

 private:
  cuda_thread_streams& streams_;
  std::vector<const void*> inputs_;  // kept, so that a steady state allocates nothing
  std::vector<void*> outputs_;
};

}  // namespace shardkit::detail
