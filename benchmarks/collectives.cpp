// Every verb, from 8 bytes to 256 MB: thread ranks, MPI ranks of the library and raw MPI calls, interleaved in one run,
// because only ratios within a run mean anything on a machine that does other things too. Results are checked.
//
//   collectives --ranks=2                                    thread ranks alone (the only form without MPI)
//   mpiexec -n 2 collectives --csv=file.csv                  beside MPI ranks and raw MPI
//
//   --verbs=all_reduce,barrier   --bytes=8,4096   --rounds=5   --budget=0.05 (seconds per verb, size and round)
//
// The verbs that have a part for each rank are there with unequal counts too, where the parts grow with the rank:
// --verbs=all_gather_unequal and so on.
//
// Buffers are fresh: each rank writes its input before every call and reads its output after it, as a program does, and
// the time of that writing and reading alone is subtracted. The bytes are the larger of a rank's input and output;
// equal parts are whole elements, so three ranks that were asked for 8 bytes report the 12 that they have moved.
#include "collectives_options.hpp"
#include "measuring.hpp"

#include <shardkit/launch/run_ranks.hpp>
#ifdef SHARDKIT_BENCHMARK_MPI
#include <shardkit/backends/mpi.hpp>
#endif

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace {

using benchmark::contains;
using benchmark::elements;
using benchmark::median;
using benchmark::options;
using benchmark::pin_to_core;
using benchmark::seconds;
using benchmark::unequal_verbs;
using shardkit::partition;
using shardkit::view;

// How often this thread was pushed off its core: such a sample measures somebody else's work.
long interruptions() {
  rusage use;
  getrusage(RUSAGE_THREAD, &use);
  return use.ru_nivcsw;
}

// What a program does around a call. Never inlined, so that it costs the same with the call and without.
[[gnu::noinline]] void write_all(float* data, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) data[i] = 1;
  asm volatile("" ::: "memory");
}
[[gnu::noinline]] void read_all(const float* data, std::size_t count) {
  float sums[64] = {};
  std::size_t i = 0;
  for (; i + 64 <= count; i += 64)
    for (std::size_t j = 0; j < 64; ++j) sums[j] += data[i + j];
  for (; i < count; ++i) sums[0] += data[i];
  asm volatile("" ::"r"(sums) : "memory");
}

/// The library, on any backend.
template <class Communicator>
struct library {
  Communicator& comm;
  int rank() const { return comm.rank(); }
  int size() const { return comm.size(); }
  void barrier() { comm.barrier(); }
  void broadcast(float* x, std::size_t n, int root) { comm.broadcast(view(x, n), root); }
  void reduce(const float* x, float* y, std::size_t n, int root) {
    comm.reduce(view(x, n), view(y, n), shardkit::sum, root);
  }
  void all_reduce(const float* x, float* y, std::size_t n) { comm.all_reduce(view(x, n), view(y, n), shardkit::sum); }
  void all_reduce_in_place(float* x, std::size_t n) { comm.all_reduce(shardkit::in_place(view(x, n)), shardkit::sum); }
  void all_gather(const float* x, float* y, std::size_t n) { comm.all_gather(view(x, n), view(y, n * ranks())); }
  void reduce_scatter(const float* x, float* y, std::size_t n) {
    comm.reduce_scatter(view(x, n * ranks()), view(y, n), shardkit::sum);
  }
  void all_to_all(const float* x, float* y, std::size_t n) {
    comm.all_to_all(view(x, n * ranks()), view(y, n * ranks()));
  }
  void gather(const float* x, float* y, std::size_t n, int root) {
    comm.gather(view(x, n), view(y, n * ranks()), root);
  }
  void scatter(const float* x, float* y, std::size_t n, int root) {
    comm.scatter(view(x, n * ranks()), view(y, n), root);
  }
  using layout = partition;
  void all_gather(const float* x, float* y, const layout& parts) {
    comm.all_gather(view(x, parts.count(rank())), view(y, parts.total()), parts);
  }
  void reduce_scatter(const float* x, float* y, const layout& parts) {
    comm.reduce_scatter(view(x, parts.total()), view(y, parts.count(rank())), shardkit::sum, parts);
  }
  void all_to_all(const float* x, float* y, const layout& own) {
    comm.all_to_all(view(x, own.total()), own, view(y, own.total()), own);
  }
  void gather(const float* x, float* y, const layout& parts, int root) {
    comm.gather(view(x, parts.count(rank())), view(y, parts.total()), parts, root);
  }
  void scatter(const float* x, float* y, const layout& parts, int root) {
    comm.scatter(view(x, parts.total()), view(y, parts.count(rank())), parts, root);
  }
  void send(const float* x, std::size_t n, int to) { comm.send(view(x, n), to); }
  void recv(float* x, std::size_t n, int from) { comm.recv(view(x, n), from); }
  std::vector<double> maximum(std::vector<double> values) {
    comm.all_reduce(shardkit::in_place(values), shardkit::maximum);
    return values;
  }
  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
};

#ifdef SHARDKIT_BENCHMARK_MPI
struct raw_mpi {
  MPI_Comm comm = MPI_COMM_WORLD;
  int rank_, size_;
  raw_mpi() {
    MPI_Comm_rank(comm, &rank_);
    MPI_Comm_size(comm, &size_);
  }
  int rank() const { return rank_; }
  int size() const { return size_; }
  static int of(std::size_t n) { return static_cast<int>(n); }
  void barrier() { MPI_Barrier(comm); }
  void broadcast(float* x, std::size_t n, int root) { MPI_Bcast(x, of(n), MPI_FLOAT, root, comm); }
  void reduce(const float* x, float* y, std::size_t n, int root) {
    MPI_Reduce(x, y, of(n), MPI_FLOAT, MPI_SUM, root, comm);
  }
  void all_reduce(const float* x, float* y, std::size_t n) { MPI_Allreduce(x, y, of(n), MPI_FLOAT, MPI_SUM, comm); }
  void all_reduce_in_place(float* x, std::size_t n) { MPI_Allreduce(MPI_IN_PLACE, x, of(n), MPI_FLOAT, MPI_SUM, comm); }
  void all_gather(const float* x, float* y, std::size_t n) {
    MPI_Allgather(x, of(n), MPI_FLOAT, y, of(n), MPI_FLOAT, comm);
  }
  void reduce_scatter(const float* x, float* y, std::size_t n) {
    MPI_Reduce_scatter_block(x, y, of(n), MPI_FLOAT, MPI_SUM, comm);
  }
  void all_to_all(const float* x, float* y, std::size_t n) {
    MPI_Alltoall(x, of(n), MPI_FLOAT, y, of(n), MPI_FLOAT, comm);
  }
  void gather(const float* x, float* y, std::size_t n, int root) {
    MPI_Gather(x, of(n), MPI_FLOAT, y, of(n), MPI_FLOAT, root, comm);
  }
  void scatter(const float* x, float* y, std::size_t n, int root) {
    MPI_Scatter(x, of(n), MPI_FLOAT, y, of(n), MPI_FLOAT, root, comm);
  }
  struct layout {
    std::vector<int> counts, offsets;
    explicit layout(const partition& parts) {
      for (int r = 0; r < parts.parts(); ++r) {
        counts.push_back(of(parts.count(r)));
        offsets.push_back(of(parts.offset(r)));
      }
    }
    int count(int rank) const { return counts[static_cast<std::size_t>(rank)]; }
  };
  void all_gather(const float* x, float* y, const layout& parts) {
    MPI_Allgatherv(x, parts.count(rank_), MPI_FLOAT, y, parts.counts.data(), parts.offsets.data(), MPI_FLOAT, comm);
  }
  void reduce_scatter(const float* x, float* y, const layout& parts) {
    MPI_Reduce_scatter(x, y, parts.counts.data(), MPI_FLOAT, MPI_SUM, comm);
  }
  void all_to_all(const float* x, float* y, const layout& own) {
    MPI_Alltoallv(x, own.counts.data(), own.offsets.data(), MPI_FLOAT, y, own.counts.data(), own.offsets.data(),
                  MPI_FLOAT, comm);
  }
  void gather(const float* x, float* y, const layout& parts, int root) {
    MPI_Gatherv(x, parts.count(rank_), MPI_FLOAT, y, parts.counts.data(), parts.offsets.data(), MPI_FLOAT, root, comm);
  }
  void scatter(const float* x, float* y, const layout& parts, int root) {
    MPI_Scatterv(x, parts.counts.data(), parts.offsets.data(), MPI_FLOAT, y, parts.count(rank_), MPI_FLOAT, root, comm);
  }
  void send(const float* x, std::size_t n, int to) { MPI_Send(x, of(n), MPI_FLOAT, to, 0, comm); }
  void recv(float* x, std::size_t n, int from) { MPI_Recv(x, of(n), MPI_FLOAT, from, 0, comm, MPI_STATUS_IGNORE); }
  std::vector<double> maximum(std::vector<double> values) {
    MPI_Allreduce(MPI_IN_PLACE, values.data(), of(values.size()), MPI_DOUBLE, MPI_MAX, comm);
    return values;
  }
};
#endif

struct result {
  double microseconds = 0;
  int clean_percent = 0;
};

/// One verb at one size on one kind of ranks.
template <class Ranks>
class measurement {
 public:
  measurement(Ranks& ranks, const std::string& verb, std::size_t count, double budget)
      : r_(ranks),
        unequal_(contains(unequal_verbs, verb)),
        verb_(unequal_ ? verb.substr(0, verb.rfind('_')) : verb),
        whole_(count),
        parts_(shares(0)),
        own_(shares(ranks.rank())),
        layout_(verb_ == "all_to_all" ? own_ : parts_),
        budget_(budget),
        in_(whole_ + line),
        out_(whole_ + line) {}

  result run() {
    const bool in_place = verb_ == "all_reduce_in_place" || verb_ == "broadcast";
    float* const in = in_.data();
    float* const out = in_place ? in : out_.data();
    const bool gathers = verb_ == "all_gather" || verb_ == "gather";
    const bool scatters = verb_ == "reduce_scatter" || verb_ == "scatter";
    const int me = r_.rank();
    const std::size_t written = gathers ? parts_.count(me) : whole_;
    const std::size_t read = scatters ? parts_.count(me) : whole_;
    const bool from_root = verb_ == "broadcast" || verb_ == "scatter", to_root = verb_ == "reduce" || verb_ == "gather";
    for (int root = 0; root < (from_root || to_root || verb_ == "send_recv" ? r_.size() : 1); ++root)
      check(in, out, root);

    // The root changes at every call, so that none can run ahead and hide its latency.
    int root = 0;
    const auto fresh_call = [&] {
      if (verb_ == "send_recv") {
        const auto turn = [&](int sender) {
          if (me == sender) {
            write_all(in, written);
            r_.send(in, whole_, 1 - sender);
          } else if (me == 1 - sender) {
            r_.recv(out, whole_, sender);
            read_all(out, read);
          }
        };
        turn(0);
        return turn(1);
      }
      if (!from_root || me == root) write_all(in, written);
      call(in, out, root);
      if (from_root ? me != root : !to_root || me == root) read_all(out, read);
      root = (root + 1) % r_.size();
    };
    const auto alone = [&] {
      write_all(in, written);
      read_all(out, read);
    };
    // Where one rank writes before another reads, the writing and reading of one rank at a time is what to subtract.
    const bool in_turns = from_root || to_root || verb_ == "send_recv";
    const int per_sample = verb_ == "send_recv" ? 2 : 1;

    fresh_call();
    double once = 0;
    for (int i = 0; i < 3; ++i) once = std::max(r_.maximum({timed(1, fresh_call).microseconds})[0], 0.05);
    const int calls = std::clamp(static_cast<int>(30 / once), 1, 200);
    const int samples = std::clamp(static_cast<int>(budget_ * 1e6 / (2 * once * calls)), 5, 1000);
    std::vector<double> full, base, disturbed;
    for (int i = 0; i < samples; ++i) {
      const sample a = timed(calls, fresh_call);
      sample b;
      for (int turn = 0; turn < (in_turns ? r_.size() : 1); ++turn) {
        if (!in_turns || turn == me) b = timed(calls, alone);
        else r_.barrier();
        if (in_turns) r_.barrier();
      }
      full.push_back(a.microseconds);
      base.push_back(b.microseconds * per_sample);
      disturbed.push_back(static_cast<double>(a.disturbed + b.disturbed));
    }
    full = r_.maximum(full);
    base = r_.maximum(base);
    disturbed = r_.maximum(disturbed);
    std::vector<double> clean, all;
    for (std::size_t i = 0; i < full.size(); ++i) {
      all.push_back((full[i] - base[i]) / per_sample);
      if (disturbed[i] == 0) clean.push_back(all.back());
    }
    const int percent = static_cast<int>(100 * clean.size() / all.size());
    return {median(clean.size() < 3 ? all : clean), percent};
  }

 private:
  static constexpr std::size_t line = 1024;
  struct sample {
    double microseconds = 0;
    long disturbed = 0;
  };

  template <class Body>
  sample timed(int calls, Body&& body) {
    body();  // leaves the caches as they are between calls
    const long before = interruptions();
    r_.barrier();
    const double start = seconds();
    for (int i = 0; i < calls; ++i) body();
    return {(seconds() - start) * 1e6 / calls, interruptions() - before};
  }

  void call(float* in, float* out, int root) {
    if (verb_ == "barrier") r_.barrier();
    else if (verb_ == "broadcast") r_.broadcast(in, whole_, root);
    else if (verb_ == "reduce") r_.reduce(in, out, whole_, root);
    else if (verb_ == "all_reduce") r_.all_reduce(in, out, whole_);
    else if (verb_ == "all_reduce_in_place") r_.all_reduce_in_place(in, whole_);
    else if (unequal_) call_unequal(in, out, root);
    else if (verb_ == "all_gather") r_.all_gather(in, out, part());
    else if (verb_ == "reduce_scatter") r_.reduce_scatter(in, out, part());
    else if (verb_ == "all_to_all") r_.all_to_all(in, out, part());
    else if (verb_ == "gather") r_.gather(in, out, part(), root);
    else if (verb_ == "scatter") r_.scatter(in, out, part(), root);
  }
  void call_unequal(float* in, float* out, int root) {
    if (verb_ == "all_gather") r_.all_gather(in, out, layout_);
    else if (verb_ == "reduce_scatter") r_.reduce_scatter(in, out, layout_);
    else if (verb_ == "all_to_all") r_.all_to_all(in, out, layout_);
    else if (verb_ == "gather") r_.gather(in, out, layout_, root);
    else if (verb_ == "scatter") r_.scatter(in, out, layout_, root);
  }
  std::size_t part() const { return whole_ / static_cast<std::size_t>(r_.size()); }

  // All parts equal, or growing with the rank. In an unequal all_to_all rank s and rank d exchange part (s + d) % size:
  // each moves all parts, one to each rank, in an order of its own, which is that of shares(s).
  partition shares(int first) const {
    std::vector<std::size_t> counts;
    const auto size = static_cast<std::size_t>(r_.size()), all = unequal_ ? size * (size + 1) / 2 : size;
    for (std::size_t r = 0; r < size; ++r) {
      const std::size_t which = (r + static_cast<std::size_t>(first)) % size;
      const std::size_t before = unequal_ ? which * (which + 1) / 2 : which, weight = unequal_ ? which + 1 : 1;
      counts.push_back(whole_ * (before + weight) / all - whole_ * before / all);
    }
    return partition::from_counts(counts);
  }

  // One call on values that tell rank and place, against what the verb means.
  void check(float* in, float* out, int root) {
    const int ranks = r_.size(), me = r_.rank();
    const auto value = [](int rank, std::size_t i) {
      return static_cast<float>((static_cast<std::size_t>(rank) + 1) * 3 + i % 11);
    };
    const auto total = [&](std::size_t i) {
      float sum = 0;
      for (int rank = 0; rank < ranks; ++rank) sum += value(rank, i);
      return sum;
    };
    const auto expect = [&](std::size_t count, auto expected) {
      for (std::size_t i = 0; i < count; ++i)
        if (out[i] != expected(i)) fail("has a wrong result", root);
    };
    std::fill(out, out + whole_, -1.0f);
    for (std::size_t i = 0; i < whole_; ++i) in[i] = value(me, i);
    if (verb_ == "send_recv") {  // the next rank of the ring is the receiver
      const int to = (root + 1) % ranks;
      if (me == root) r_.send(in, whole_, to);
      if (me == to) r_.recv(out, whole_, root);
      if (me == to) expect(whole_, [&](std::size_t i) { return value(root, i); });
      return;
    }
    call(in, out, root);
    const std::size_t own = parts_.count(me), begin = parts_.offset(me);
    if (verb_ == "broadcast") expect(whole_, [&](std::size_t i) { return value(root, i); });
    if (verb_ == "reduce" && me == root) expect(whole_, total);
    if (verb_ == "all_reduce" || verb_ == "all_reduce_in_place") expect(whole_, total);
    if (verb_ == "reduce_scatter") expect(own, [&](std::size_t i) { return total(begin + i); });
    if (verb_ == "scatter") expect(own, [&](std::size_t i) { return value(root, begin + i); });
    const bool gathered = verb_ == "all_gather" || (verb_ == "gather" && me == root);
    if (!gathered && verb_ != "all_to_all") return;
    for (int from = 0; from < ranks; ++from) {
      const partition& places = gathered ? parts_ : own_;
      const std::size_t sent_from = gathered ? 0 : shares(from).offset(me);
      for (std::size_t i = 0; i < places.count(from); ++i)
        if (out[places.offset(from) + i] != value(from, sent_from + i)) fail("has a wrong result", root);
    }
  }

  [[noreturn]] void fail(const char* what, int root) const {
    std::fprintf(stderr, "rank %d: %s%s of %zu elements, root %d, %s\n", r_.rank(), unequal_ ? "unequal " : "",
                 verb_.c_str(), whole_, root, what);
    std::_Exit(1);
  }

  Ranks& r_;
  const bool unequal_;
  const std::string verb_;
  const std::size_t whole_;
  const partition parts_, own_;  // by rank; what this rank exchanges with each in an all_to_all
  const typename Ranks::layout layout_;
  const double budget_;
  shardkit::buffer<float> in_, out_;
};

/// Rows of results by verb and size, and what is printed of them.
class report {
 public:
  /// Of the one rank that reports.
  explicit report(const options& given) : given_(given), ranks_(given.ranks) {
    if (given.csv.empty()) return;
    csv_ = std::fopen(given.csv.c_str(), "w");
    if (csv_ == nullptr) std::fprintf(stderr, "cannot write %s: %s\n", given.csv.c_str(), std::strerror(errno));
    else std::fprintf(csv_, "peer,ranks,verb,bytes,usec,algorithm GB/s,bus GB/s,clean %%\n");
  }
  bool can_write() const { return given_.csv.empty() || csv_ != nullptr; }
  /// Returns whether all rows are in the file.
  bool close() {
    if (csv_ == nullptr) return true;
    const bool failed = std::ferror(csv_) != 0;
    const bool closed = std::fclose(std::exchange(csv_, nullptr)) == 0;
    if (!failed && closed) return true;
    std::fprintf(stderr, "%s is not complete: %s\n", given_.csv.c_str(), std::strerror(errno));
    return false;
  }
  ~report() { close(); }
  report(const report&) = delete;
  report& operator=(const report&) = delete;

  void add(const std::string& peer, const std::string& verb, std::size_t bytes, result r) {
    if (std::find(peers_.begin(), peers_.end(), peer) == peers_.end()) peers_.push_back(peer);
    rows_[{verb, bytes}][peer].push_back(r.microseconds);
    if (csv_ == nullptr) return;
    const double rate = r.microseconds > 0 ? static_cast<double>(bytes) / r.microseconds * 1e-3 : 0;
    std::fprintf(csv_, "%s,%d,%s,%zu,%.4f,%.4f,%.4f,%d\n", peer.c_str(), ranks_, verb.c_str(), bytes, r.microseconds,
                 rate, rate * bus_factor(verb), r.clean_percent);
    std::fflush(csv_);
  }

  void print() const {
    for (const std::string& verb : given_.verbs) {
      std::printf("\n%s, %d ranks: usec per call\n\n| bytes |", verb.c_str(), ranks_);
      for (const std::string& peer : peers_) std::printf(" %s |", peer.c_str());
      std::printf("%s\n|---|", has("raw MPI") ? " raw MPI / threads | raw MPI / MPI |" : "");
      for (std::size_t i = 0; i < peers_.size() + (has("raw MPI") ? 2 : 0); ++i) std::printf("---|");
      std::printf("\n");
      for (const auto& [key, peers] : rows_) {
        if (key.first != verb) continue;
        std::printf("| %zu |", key.second);
        for (const std::string& peer : peers_) std::printf(" %.3f |", at(peers, peer));
        if (has("raw MPI"))
          std::printf(" %.2f | %.2f |", at(peers, "raw MPI") / at(peers, "threads"),
                      at(peers, "raw MPI") / at(peers, "MPI"));
        std::printf("\n");
      }
    }
  }

 private:
  using peer_rows = std::map<std::string, std::vector<double>>;

  // The factors of nccl-tests: what passes each link, per byte of the message.
  double bus_factor(const std::string& verb) const {
    const double share = static_cast<double>(ranks_ - 1) / ranks_;
    if (verb.rfind("all_reduce", 0) == 0) return 2 * share;
    if (verb == "broadcast" || verb == "reduce" || verb == "send_recv") return 1;
    return share;
  }
  bool has(const char* peer) const { return std::find(peers_.begin(), peers_.end(), peer) != peers_.end(); }
  static double at(const peer_rows& rows, const std::string& peer) {
    const auto found = rows.find(peer);
    return found == rows.end() ? 0 : median(found->second);
  }

  const options& given_;
  const int ranks_;
  std::FILE* csv_ = nullptr;
  std::vector<std::string> peers_;
  std::map<std::pair<std::string, std::size_t>, peer_rows> rows_;
};

result on_threads(const options& given, const std::string& verb, std::size_t count) {
  result of_first;
  shardkit::run_ranks(given.ranks, [&](shardkit::thread_communicator& comm) {
    pin_to_core(comm.rank());
    library<shardkit::thread_communicator> peer{comm};
    const result r = measurement(peer, verb, count, given.budget).run();
    if (comm.is_root()) of_first = r;
  });
  return of_first;
}

template <class Measure>
void for_each_point(const options& given, Measure measure) {
  for (int round = 0; round < given.rounds; ++round)
    for (const std::string& verb : given.verbs)
      for (const std::size_t bytes : given.bytes)
        if (verb != "barrier" || bytes == given.bytes.front()) measure(verb, elements(verb, bytes, given.ranks));
}

int thread_ranks(options given) {
  // A message needs two ranks.
  if (given.ranks == 1)
    given.verbs.erase(std::remove(given.verbs.begin(), given.verbs.end(), "send_recv"), given.verbs.end());
  report table(given);
  if (!table.can_write()) return 1;
  for_each_point(given, [&](const std::string& verb, std::size_t count) {
    table.add("threads", verb, count * sizeof(float), on_threads(given, verb, count));
  });
  table.print();
  return table.close() ? 0 : 1;
}

#ifdef SHARDKIT_BENCHMARK_MPI
int beside_mpi(options given, shardkit::mpi_environment& mpi) {
  const bool reports = mpi.rank() == 0;
  if (!reports) given.csv.clear();
  report table(given);
  auto world = mpi.world();
  if (world.all_reduce(table.can_write() ? 1 : 0, shardkit::minimum) == 0) return 1;
  library<shardkit::mpi_communicator> peer{world};
  raw_mpi raw;
  cpu_set_t anywhere;
  sched_getaffinity(0, sizeof anywhere, &anywhere);
  for_each_point(given, [&](const std::string& verb, std::size_t count) {
    sched_setaffinity(0, sizeof anywhere, &anywhere);
    result threads;
    if (reports) threads = on_threads(given, verb, count);
    // The other processes leave the cores to the threads.
    MPI_Request done = MPI_REQUEST_NULL;
    MPI_Ibarrier(MPI_COMM_WORLD, &done);
    for (int complete = 0; complete == 0; usleep(200)) MPI_Test(&done, &complete, MPI_STATUS_IGNORE);
    pin_to_core(mpi.rank());
    const result with_library = measurement(peer, verb, count, given.budget).run();
    const result without = measurement(raw, verb, count, given.budget).run();
    if (!reports) return;
    table.add("threads", verb, count * sizeof(float), threads);
    table.add("MPI", verb, count * sizeof(float), with_library);
    table.add("raw MPI", verb, count * sizeof(float), without);
  });
  if (reports) table.print();
  return table.close() ? 0 : 1;
}

int with_mpi(int argc, char** argv, options& given) {
  shardkit::mpi_environment mpi(argc, argv);
  if (mpi.size() == 1) return thread_ranks(given);
  if (given.ranks_given && given.ranks != mpi.size()) {
    if (mpi.rank() == 0)
      std::fprintf(stderr, "--ranks=%d, but the launcher has started %d ranks; leave --ranks out\n", given.ranks,
                   mpi.size());
    return 2;
  }
  given.ranks = mpi.size();
  return beside_mpi(given, mpi);
}
#endif

}  // namespace

int main(int argc, char** argv) {
  try {
    options given(argc, argv);
#ifdef SHARDKIT_BENCHMARK_MPI
    return with_mpi(argc, argv, given);
#else
    return thread_ranks(given);
#endif
  } catch (const shardkit::usage_error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
