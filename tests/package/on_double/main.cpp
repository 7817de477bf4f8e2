// A sum over the ranks on device memory, right and with one synchronisation left out: the double tells the two apart.
#include <double/control.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/event.hpp>
#include <shardkit/cuda/pinned_space.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>

#include <cstdio>

namespace {

// The number of reports; -1: the data are wrong.
int run(bool waits) {
  {
    const shardkit::cuda_stream uploads, work;
    const shardkit::cuda_event uploaded;
    shardkit::buffer<float, shardkit::pinned_space> host(100), back(100);
    shardkit::buffer<float, shardkit::cuda_space> device(100);
    for (float& one : host) one = 3;
    copy(device, host, uploads);
    uploaded.record(uploads);
    if (waits) uploaded.order_before(work);
    copy(back, device, work);
    synchronize(work, 20);
    synchronize(uploads, 20);
    if (waits && back[99] != 3) return -1;
  }
  return static_cast<int>(shardkit_double::reset().size());
}

}  // namespace

int main() {
  const int right = run(true), wrong = run(false);
  std::printf("reports: %d without a mistake, %d with one\n", right, wrong);
  return right == 0 && wrong > 0 ? 0 : 1;
}
