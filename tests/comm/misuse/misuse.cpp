// One misuse of the typed face for each value of MISUSE; MISUSE 0 is right and must compile.
#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/core/buffer.hpp>

#include <array>
#include <complex>
#include <functional>
#include <list>
#include <span>
#include <string>
#include <vector>

using namespace shardkit;

// A space that is not the host, with just what naming it needs.
struct device_space : host_space {
  struct stream {};
};

struct point {
  float x, y;
};
template <>
struct shardkit::dtype_traits<point> {  // of another size
  static constexpr dtype value = dtype::f32;
};

// Points at its elements and may write them, constant or not.
struct reference {
  std::vector<float>& of;
};
view<float> view_of(const reference& x) { return {x.of.data(), x.of.size()}; }

const std::vector<float> made_const() { return {1}; }

struct no_backend {
  using space = host_space;
  int rank() const noexcept { return 0; }
  int size() const noexcept { return 1; }
  void perform(const barrier_call&) {}
};

void use(self_communicator& comm) {
  const std::vector<float> constant(1);
  std::vector<float> in(1), out(1);
  std::vector<double> wide(1);
  std::list<float> list(1);
  std::string text = "prompt";
  std::vector<std::complex<float>> complex(1);
  std::vector<bool> bits(1);
  std::vector<point> points(1);
  view<float, device_space> far(in.data(), 1);
  float value = 1;
  const auto layout = partition::balanced(1, 1);

#if MISUSE == 0
  comm.all_reduce(in, out, sum);
  comm.all_reduce(constant, view(out.data(), 1), sum);
  comm.all_gather(std::array<float, 1>{1.0f}, out, layout);
  value = comm.all_reduce(value, sum);
  auto pending = comm.recv_async(out, 0);
  comm.group([&](auto& g) { g.send(in, 0); });
  pending.wait();
  comm.all_gather(in, out, partition::balanced(1, 1));
  comm.all_gather_async(view(constant.data(), 1), view(out.data(), 1), layout).wait();
  comm.all_gather_async(std::span<const float>(in), out, layout).wait();
  comm.all_gather_async(reference{in}, out).wait();
  comm.group([&](auto& g) { g.all_gather(view(in.data(), 1), out, layout); });
#elif MISUSE == 1
  comm.broadcast(constant, 0);
#elif MISUSE == 2
  comm.all_reduce(in, constant, sum);
#elif MISUSE == 3
  comm.all_reduce(in_place(constant), sum);
#elif MISUSE == 4
  comm.recv(std::vector<float>(1), 0);
#elif MISUSE == 5
  comm.all_gather(in, std::vector<float>(1));
#elif MISUSE == 6
  comm.reduce_scatter(in, std::array<float, 1>(), sum, layout);
#elif MISUSE == 7
  comm.all_reduce(in, wide, sum);
#elif MISUSE == 8
  comm.all_to_all(in, wide);
#elif MISUSE == 9
  comm.send_recv(wide, 0, in, 0);
#elif MISUSE == 10
  comm.send(list, 0);
#elif MISUSE == 11
  comm.gather(in, list, 0);
#elif MISUSE == 12
  comm.all_reduce(in_place(list), sum);
#elif MISUSE == 13
  comm.send(in.data(), 0);
#elif MISUSE == 14
  comm.send(complex, 0);
#elif MISUSE == 15
  comm.all_reduce(in_place(complex), sum);
#elif MISUSE == 16
  comm.broadcast(points, 0);
#elif MISUSE == 17
  comm.all_gather(in, far);
#elif MISUSE == 18
  comm.send(far, 0);
#elif MISUSE == 19
  comm.recv_async(out, 0);
#elif MISUSE == 20
  comm.group([&](auto& g) { value = g.all_reduce(value, sum); });
#elif MISUSE == 21
  comm.group([&](auto& g) { g.exchange(value); });
#elif MISUSE == 22
  comm.group([&](auto& g) { g.split(0); });
#elif MISUSE == 23
  comm.group([&](auto& g) { auto inner = g.send_async(in, 0); });
#elif MISUSE == 24
  comm.group([&](auto& g) { g.group([](auto&) {}); });
#elif MISUSE == 25
  comm.all_gather(in_place(in), out);
#elif MISUSE == 26
  comm.exchange(text);
#elif MISUSE == 27
  communicator<no_backend> incomplete{no_backend()};
  incomplete.barrier();
#elif MISUSE == 28
  comm.send(bits, 0);
#elif MISUSE == 29
  comm.send(text, 0);
#elif MISUSE == 30
  comm.all_reduce(in_place(far), sum);
#elif MISUSE == 31
  comm.all_reduce(in_place(in), std::plus<>());
#elif MISUSE == 32
  value = comm.all_reduce(value, std::plus<float>());
#elif MISUSE == 33
  comm.reduce(in, out, 0);
#elif MISUSE == 34
  comm.reduce_scatter(in, out, std::plus<>(), layout);
#elif MISUSE == 35
  auto pending = comm.all_reduce_async(in_place(in));
#elif MISUSE == 36
  comm.all_reduce(in, sum);
#elif MISUSE == 37
  auto copy = comm;
#elif MISUSE == 38
  auto pending = comm.all_gather_async(in, out, partition::balanced(1, 1));
#elif MISUSE == 39
  auto pending = comm.all_gather_async(in_place(in), partition(layout));
#elif MISUSE == 40
  auto pending = comm.reduce_scatter_async(in, out, sum, layout.scaled(1));
#elif MISUSE == 41
  auto pending = comm.gather_async(in, out, partition::balanced(1, 1), 0);
#elif MISUSE == 42
  auto pending = comm.scatter_async(in, out, std::move(layout), 0);
#elif MISUSE == 43
  auto pending = comm.all_to_all_async(in, partition::balanced(1, 1), out, layout);
#elif MISUSE == 44
  auto pending = comm.all_to_all_async(in, layout, out, partition::balanced(1, 1));
#elif MISUSE == 45
  comm.group([&](auto& g) { g.all_gather(in, out, partition::balanced(1, 1)); });
#elif MISUSE == 46
  auto pending = comm.send_async(std::vector<float>(4), 0);
#elif MISUSE == 47
  auto pending = comm.all_gather_async(std::initializer_list<float>{1}, out);
#elif MISUSE == 48
  auto pending = comm.reduce_scatter_async(made_const(), out, sum, layout);
#elif MISUSE == 49
  comm.group([&](auto& g) { g.send(std::vector<float>(4), 0); });
#endif
}
