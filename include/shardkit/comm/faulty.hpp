// A decorator that makes things go wrong on purpose, the same for the same seed: random delays, and one rank that
// throws, is late or drops out at a given call. For tests of programs that must not hang.
#pragma once

#include <shardkit/comm/decorator.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace shardkit {

/// What `faulty` threw by plan.
class injected_fault : public error {
  using error::error;
};

/// What can be made to go wrong.
enum class fault_kind {
  none,
  delay,     ///< the rank comes late to the call
  error,     ///< the call throws injected_fault
  drop_out,  ///< the rank stops, as a process that is lost: it makes no further call until its peers have given up
};

/// What is to go wrong; the same on every rank. Ranks are those of the communicator that is decorated, calls are
/// counted per rank from 1, those on children of `split` included.
struct fault_plan {
  fault_kind kind = fault_kind::none;  ///< what happens
  int rank = 0;                        ///< which rank it happens to
  std::uint64_t call = 1;              ///< at which of its calls
  double seconds = 0;                  ///< how late a delayed rank is
  double longest_absence = 300;  ///< seconds after which a rank that has dropped out throws, where nobody misses it

  double longest_jitter = 0;  ///< seconds; besides, every rank is late to some calls by up to this
  double jitter_share = 0.2;  ///< of all calls
  std::uint64_t seed = 1;     ///< of the jitter
};

namespace detail {

/// The n-th number of a seed, the same on every machine (the finaliser of SplitMix64).
constexpr std::uint64_t scrambled(std::uint64_t seed, std::uint64_t n) noexcept {
  std::uint64_t x = seed + (n + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace detail

/// One fault of any kind but `none`, at a rank below `ranks` and a call from 1 to `calls`, drawn by the seed.
inline fault_plan random_fault(std::uint64_t seed, int ranks, std::uint64_t calls) {
  fault_plan plan;
  plan.kind = static_cast<fault_kind>(1 + detail::scrambled(seed, 0) % 3);
  plan.rank = static_cast<int>(detail::scrambled(seed, 1) % static_cast<std::uint64_t>(ranks));
  plan.call = 1 + detail::scrambled(seed, 2) % calls;
  plan.seed = seed;
  return plan;
}

/// Does what the plan says before it hands each call on.
template <class Backend>
class faulty : public decorator<Backend> {
 public:
  faulty(Backend backend, const fault_plan& plan)
      : decorator<Backend>(std::move(backend)), progress_(std::make_shared<progress>(plan, this->rank())) {}

  template <class Call>
  void perform(const Call& call) {
    come_to(Call::name);
    this->next_.perform(call);
  }
  template <class Call>
  request start(const Call& call) {
    come_to(Call::name);
    return this->next_.start(call);
  }
  faulty split(int colour, int key, const call_site& site) {
    come_to("split");
    return faulty(this->next_.split(colour, key, site), progress_);
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    come_to("exchange");
    this->next_.exchange(in, out, bytes, site);
  }

 private:
  // Shared with the children, which count on.
  struct progress {
    progress(const fault_plan& given, int of_rank) noexcept : plan(given), rank(of_rank) {}

    fault_plan plan;
    int rank;
    std::uint64_t calls = 0;
  };

  faulty(Backend backend, std::shared_ptr<progress> shared)
      : decorator<Backend>(std::move(backend)), progress_(std::move(shared)) {}

  void come_to(const char* operation) {
    const fault_plan& plan = progress_->plan;
    const std::uint64_t call = ++progress_->calls;
    if (plan.longest_jitter > 0) {
      const std::uint64_t own = detail::scrambled(plan.seed, static_cast<std::uint64_t>(progress_->rank));
      if (unit(detail::scrambled(own, 2 * call)) < plan.jitter_share)
        detail::sleep_seconds(plan.longest_jitter * unit(detail::scrambled(own, 2 * call + 1)));
    }
    if (progress_->rank != plan.rank || call != plan.call) return;
    if (plan.kind == fault_kind::delay) detail::sleep_seconds(plan.seconds);
    if (plan.kind == fault_kind::error)
      throw injected_fault("injected at call " + std::to_string(call) + " of rank " + std::to_string(plan.rank) +
                           ", in " + operation);
    if (plan.kind == fault_kind::drop_out) stay_away();
  }
  static double unit(std::uint64_t bits) noexcept { return static_cast<double>(bits >> 11) * 0x1p-53; }

  // A message to oneself disturbs nobody, and throws once the launch has failed.
  [[noreturn]] void stay_away() {
    const int self = this->rank();
    const double start = detail::now_seconds();
    while (detail::now_seconds() - start < progress_->plan.longest_absence) {
      this->next_.perform(send_recv_call{nullptr, 0, self, nullptr, 0, self, dtype::u8, nullptr, {}});
      detail::sleep_seconds(1e-3);
    }
    throw injected_fault("rank " + std::to_string(progress_->plan.rank) + " dropped out, and nobody has missed it");
  }

  std::shared_ptr<progress> progress_;
};

/// The same ranks, with the faults of the plan; the communicator is moved from.
template <class Backend>
communicator<faulty<Backend>> with_faults(communicator<Backend>&& comm, const fault_plan& plan,
                                          call_site site = call_site::current()) {
  return std::move(comm).wrap("with_faults", site,
                              [&](Backend&& backend) { return faulty<Backend>(std::move(backend), plan); });
}

}  // namespace shardkit
