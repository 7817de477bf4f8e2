// An engine on raw CUDA buffers, on several GPUs: a batch of images is shared out, each GPU's network works on its
// part, and every GPU gets all results. Each tensor has pinned and device memory; there is one stream, and one wait a
// batch.
#include "network.hpp"

#include <shardkit/backends/nccl.hpp>
#include <shardkit/shardkit.hpp>

#include <cstddef>
#include <cstdio>
#include <exception>
#include <stdexcept>

// ---- What the engine has without shardkit ------------------------------------------------------------------------

void check(cudaError_t code) {
  if (code != cudaSuccess) throw std::runtime_error(cudaGetErrorString(code));
}

struct tensor {
  explicit tensor(std::size_t elements) : size(elements) {
    if (size == 0) return;
    check(cudaMallocHost(&host, bytes()));
    check(cudaMalloc(&device, bytes()));
  }
  tensor(const tensor&) = delete;
  tensor& operator=(const tensor&) = delete;
  ~tensor() {
    cudaFreeHost(host);
    cudaFree(device);
  }
  std::size_t bytes() const { return size * sizeof(float); }
  void to_device(cudaStream_t stream) { check(cudaMemcpyAsync(device, host, bytes(), cudaMemcpyHostToDevice, stream)); }
  void to_host(cudaStream_t stream) { check(cudaMemcpyAsync(host, device, bytes(), cudaMemcpyDeviceToHost, stream)); }

  void *host = nullptr, *device = nullptr;
  std::size_t size;
};

float pixel(int batch, std::size_t image, std::size_t y, std::size_t x) {
  return static_cast<float>(static_cast<std::size_t>(batch) * 1000 + image * 100 + y * network::side + x);
}

// ---- What makes it parallel --------------------------------------------------------------------------------------

// From here on the engine's own tensors go to the verbs as they are.
shardkit::view<float, shardkit::cuda_space> view_of(const tensor& t) { return {static_cast<float*>(t.device), t.size}; }

constexpr std::size_t images = 7;
constexpr int batches = 3;

// One rank. `host` connects the ranks' processes or threads; NCCL is started through it.
template <class HostCommunicator>
void work(HostCommunicator& host, int device) {
  check(cudaSetDevice(device));
  auto world = shardkit::nccl_world(host);
  const auto share = shardkit::partition::balanced(images, world.size());  // 7 images on 3 GPUs: 3, 2 and 2
  const auto values = share.scaled(network::pixels);                       // the same in elements
  const std::size_t first = share.offset(world.rank()), count = share.count(world.rank());

  const shardkit::cuda_stream owned;
  const cudaStream_t stream = owned.handle();
  tensor input(values.count(world.rank())), output(input.size), results(values.total());
  network net(count);
  net.set_tensor_address("images", input.device);
  net.set_tensor_address("patches", output.device);

  int right = 1;
  for (int batch = 0; batch < batches; ++batch) {
    auto* const pixels = static_cast<float*>(input.host);
    for (std::size_t i = 0; i < input.size; ++i)
      pixels[i] = pixel(batch, first + i / network::pixels, i / network::side % network::side, i % network::side);

    // [step]
    input.to_device(stream);
    if (!net.enqueue(stream)) throw std::runtime_error("the network could not be enqueued");
    world.all_gather(output, results, values, stream);  // unequal parts, in the order of the ranks
    results.to_host(stream);
    shardkit::synchronize(stream, 60, world);  // the one wait: it ends when a peer fails, too
    // [step]

    // The last pixel of the second patch of every image, wherever it was cut.
    const auto* const all = static_cast<const float*>(results.host);
    for (std::size_t image = 0; image < images; ++image)
      if (all[image * network::pixels + 2 * network::patch * network::patch - 1] != pixel(batch, image, 3, 7))
        right = 0;
  }

  right = host.all_reduce(right, shardkit::sum);
  if (host.is_root())
    std::printf("%zu images, %zu patches: %d batches right on %d of %d GPUs\n", images, images * network::patches,
                batches, right, host.size());
}

int main() try {
  const int gpus = shardkit::cuda_device_count();
  if (gpus == 0) throw std::runtime_error("no GPU can be used here: look for the driver with nvidia-smi");
  const auto launch = shardkit::launch_environment::detect();
  if (launch.launcher.empty()) {  // one process: a thread for each GPU
    shardkit::run_ranks(gpus, [](shardkit::thread_communicator& host) { work(host, host.rank()); });
  } else {  // torchrun or srun: a process for each GPU, on any number of nodes
    shardkit::tcp_environment tcp(shardkit::tcp_options_for(launch));
    // Some launchers show each process its own GPU alone.
    tcp.run([&](shardkit::tcp_communicator& host) { work(host, gpus == 1 ? 0 : launch.local_rank); });
  }
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return 1;
}
