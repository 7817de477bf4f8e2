// A CUDA graph of what a function enqueues.
#pragma once

#include <double/control.hpp>
#include <shardkit/cuda/space.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace shardkit_test {

class captured_graph {
 public:
  using stream = shardkit::cuda_space::stream;

  /// record() is called while the stream is captured.
  template <class Record>
  captured_graph(stream on, Record&& record) {
    using shardkit::cuda_check;
    cuda_check(cudaStreamBeginCapture(on.handle, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    record();
    cuda_check(cudaStreamEndCapture(on.handle, &graph_), "cudaStreamEndCapture");
    cuda_check(cudaGraphInstantiate(&instance_, graph_, 0), "cudaGraphInstantiate");
  }
  captured_graph(const captured_graph&) = delete;
  captured_graph& operator=(const captured_graph&) = delete;
  ~captured_graph() {
    if (instance_ != nullptr) (void)cudaGraphExecDestroy(instance_);
    if (graph_ != nullptr) (void)cudaGraphDestroy(graph_);
  }

  void launch(stream on) const { shardkit::cuda_check(cudaGraphLaunch(instance_, on.handle), "cudaGraphLaunch"); }

  std::size_t nodes() const { return types().size(); }
  std::vector<cudaGraphNodeType> types() const {
    using shardkit::cuda_check;
    std::size_t count = 0;
    cuda_check(cudaGraphGetNodes(graph_, nullptr, &count), "cudaGraphGetNodes");
    std::vector<cudaGraphNode_t> nodes(count);
    cuda_check(cudaGraphGetNodes(graph_, nodes.data(), &count), "cudaGraphGetNodes");
    std::vector<cudaGraphNodeType> types(count);
    for (std::size_t i = 0; i < count; ++i)
      cuda_check(cudaGraphNodeGetType(nodes[i], &types[i]), "cudaGraphNodeGetType");
    return types;
  }
  /// Its nodes as the double tells them.
  std::string text() const { return shardkit_double::graph_text(graph_); }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t instance_ = nullptr;
};

}  // namespace shardkit_test
