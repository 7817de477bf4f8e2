// Graphs: their nodes, and their replay.
#include <double/state.hpp>

namespace shardkit_double {
namespace {

cudaGraphNodeType type_of(node_kind kind) {
  switch (kind) {
    case node_kind::kernel: return cudaGraphNodeTypeKernel;
    case node_kind::copy: return cudaGraphNodeTypeMemcpy;
    case node_kind::fill: return cudaGraphNodeTypeMemset;
    case node_kind::host: return cudaGraphNodeTypeHost;
    case node_kind::allocation: return cudaGraphNodeTypeMemAlloc;
    case node_kind::deallocation: return cudaGraphNodeTypeMemFree;
    case node_kind::empty: return cudaGraphNodeTypeEmpty;
  }
  return cudaGraphNodeTypeEmpty;
}

const char* kind_name(node_kind kind) {
  switch (kind) {
    case node_kind::kernel: return "kernel";
    case node_kind::copy: return "copy";
    case node_kind::fill: return "fill";
    case node_kind::host: return "host";
    case node_kind::allocation: return "allocation";
    case node_kind::deallocation: return "deallocation";
    case node_kind::empty: return "empty";
  }
  return "unknown";
}

/// The graph and the node with this handle.
std::pair<const graph*, const node*> find_node(cudaGraphNode_t handle) {
  for (const auto& [key, g] : all().graphs.all())
    for (const node& n : g->nodes)
      if (n.handle == handle) return {g.get(), &n};
  return {nullptr, nullptr};
}

cudaError_t instantiate(cudaGraphExec_t* out, cudaGraph_t handle, unsigned long long flags, const char* function) {
  if (out == nullptr) return cudaErrorInvalidValue;
  const graph* g = all().graphs.find(handle);
  if (g == nullptr) return bad_handle(handle, "graph", function);
  if (flags != 0 && flags != cudaGraphInstantiateFlagUseNodePriority) {
    report_found(report_kind::bad_argument, std::string(function) + " with unknown flags " + std::to_string(flags));
    return cudaErrorInvalidValue;
  }
  auto made = std::make_unique<executable>();
  made->nodes = g->nodes;
  made->lanes.resize(g->lanes, nullptr);
  for (const node& n : made->nodes)
    if (made->lanes[n.lane] == nullptr)
      made->lanes[n.lane] =
          &new_stream(n.device, cudaStreamNonBlocking, 0,
                      "branch " + std::to_string(n.lane) + " of a graph on device " + std::to_string(n.device));
  made->handle = static_cast<cudaGraphExec_t>(const_cast<void*>(new_handle()));
  *out = made->handle;
  all().executables.add(std::move(made));
  return cudaSuccess;
}

cudaError_t launch(cudaGraphExec_t handle, cudaStream_t on) {
  executable* g = all().executables.find(handle);
  if (g == nullptr) return bad_handle(handle, "executable graph", "cudaGraphLaunch");
  if (const cudaError_t error = check_stream(on, "cudaGraphLaunch"); error != cudaSuccess) return error;
  stream& s = *find_stream(on);
  if (s.capturing != nullptr) {
    report_found(report_kind::capture,
                 "cudaGraphLaunch on the capturing " + s.name + ": the double has no child graphs");
    return cudaErrorNotSupported;
  }
  for (const node& n : g->nodes)
    if (const cudaError_t error = check_accesses(n.op, n.device); error != cudaSuccess) return error;
  const void* caller = this_thread().caller;
  const auto mark = [&](std::vector<queued_ptr> after) {
    return put(s, {"cudaGraphLaunch", node_kind::empty, {}, "", {}, {}}, std::move(after), caller);
  };
  // Launches of one executable graph follow each other, whatever their streams.
  const queued_ptr begin = mark(g->last ? std::vector<queued_ptr>{g->last} : std::vector<queued_ptr>{});
  std::vector<queued_ptr> launched;
  std::vector<bool> waited_for(g->nodes.size(), false);
  for (const node& n : g->nodes) {
    std::vector<queued_ptr> after;
    for (const std::size_t before : n.after) {
      after.push_back(launched[before]);
      waited_for[before] = true;
    }
    if (after.empty()) after.push_back(begin);
    launched.push_back(put(*g->lanes[n.lane], n.op, std::move(after), n.caller));
  }
  std::vector<queued_ptr> ends;
  for (std::size_t n = 0; n < launched.size(); ++n)
    if (!waited_for[n]) ends.push_back(launched[n]);
  g->last = mark(std::move(ends));
  return cudaSuccess;
}

}  // namespace

std::string graph_text(const void* handle) {
  under_lock guard;
  const graph* g = all().graphs.find(handle);
  if (g == nullptr) return "no graph\n";
  std::string text;
  for (std::size_t i = 0; i < g->nodes.size(); ++i) {
    const node& n = g->nodes[i];
    text += std::to_string(i) + ": " + kind_name(n.op.kind) + " " + n.op.name;
    if (!n.op.parameters.empty()) text += " " + n.op.parameters;
    for (const access& a : n.op.accesses) {
      text += a.mode == access_mode::read ? ", reads " : ", writes ";
      if (a.rows > 1) text += std::to_string(a.rows) + " rows " + std::to_string(a.stride) + " bytes apart of ";
      text += std::to_string(a.bytes) + " bytes at " + describe(a.address);
    }
    if (!n.after.empty()) {
      text += ", after";
      for (const std::size_t before : n.after) text += " " + std::to_string(before);
    }
    text += "\n";
  }
  return text;
}

extern "C" {

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return api("cudaGraphInstantiate", [&] { return instantiate(executable, graph, flags, "cudaGraphInstantiate"); });
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags) {
  return api("cudaGraphInstantiateWithFlags",
             [&] { return instantiate(executable, graph, flags, "cudaGraphInstantiateWithFlags"); });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t handle, cudaStream_t stream) {
  return api("cudaGraphUpload", [&] {
    if (all().executables.find(handle) == nullptr) return bad_handle(handle, "executable graph", "cudaGraphUpload");
    return check_stream(stream, "cudaGraphUpload");
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return api("cudaGraphLaunch", [&] { return launch(executable, stream); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  return api("cudaGraphDestroy", [&] {
    if (all().graphs.find(handle) == nullptr) return bad_handle(handle, "graph", "cudaGraphDestroy");
    all().graphs.remove(handle);
    return cudaSuccess;
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  return api("cudaGraphExecDestroy", [&] {
    if (all().executables.find(handle) == nullptr)
      return bad_handle(handle, "executable graph", "cudaGraphExecDestroy");
    all().executables.remove(handle);  // what is queued still runs
    return cudaSuccess;
  });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  return api("cudaGraphGetNodes", [&] {
    const graph* g = all().graphs.find(handle);
    if (g == nullptr) return bad_handle(handle, "graph", "cudaGraphGetNodes");
    if (count == nullptr) return cudaErrorInvalidValue;
    if (nodes != nullptr)
      for (std::size_t i = 0; i < *count; ++i) nodes[i] = i < g->nodes.size() ? g->nodes[i].handle : nullptr;
    if (nodes == nullptr || *count > g->nodes.size()) *count = g->nodes.size();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t handle, cudaGraphNodeType* type) {
  return api("cudaGraphNodeGetType", [&] {
    const node* n = find_node(handle).second;
    if (n == nullptr || type == nullptr) return cudaErrorInvalidValue;
    *type = type_of(n->op.kind);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t handle, cudaGraphNode_t* dependencies,
                                         cudaGraphEdgeData* edges, size_t* count) {
  return api("cudaGraphNodeGetDependencies", [&] {
    const auto [g, n] = find_node(handle);
    if (n == nullptr || count == nullptr) return cudaErrorInvalidValue;
    if (dependencies != nullptr)
      for (std::size_t i = 0; i < *count; ++i) {
        dependencies[i] = i < n->after.size() ? g->nodes[n->after[i]].handle : nullptr;
        if (edges != nullptr) edges[i] = {};
      }
    if (dependencies == nullptr || *count > n->after.size()) *count = n->after.size();
    return cudaSuccess;
  });
}

}  // extern "C"
}  // namespace shardkit_double
