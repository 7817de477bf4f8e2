// A main for test suites that run under mpiexec: every rank runs every case.
//
//   #define DOCTEST_CONFIG_IMPLEMENT
//   #include <shardkit/testing/mpi_main.hpp>
//
//   int main(int argc, char** argv) { return shardkit::testing::mpi_main(argc, argv); }
//
// The cases use on_ranks, or mpi_world.hpp where they want MPI itself.
//
// What a rank prints through doctest appears case by case, in the order of the ranks, each line behind "[rank 1] ";
// failures and exceptions of every rank are shown, and the last line tells which cases failed on which ranks. All ranks
// return the same, worst, result.
//
// The ranks meet at the end of each case. Where one has not come by the deadline of the case, or soon after another has
// left the case failing (a REQUIRE before a barrier), the job is ended, with the names of the case and of the ranks
// that are missing: MPI cannot call back who waits in it. Ranks of other nodes are not named.
//
// With --out=FILE each rank writes a file of its own, with .rank0, .rank1 before the extension: doctest's JUnit and XML
// reporters describe one process, and what one rank has written stands whatever happens to the others. Where the job is
// ended the JUnit files of its ranks have the case and the reason (XML files stay unfinished). Without --out these two
// reporters are refused on several ranks, and so is --abort-after.
#pragma once

#include <shardkit/backends/mpi.hpp>
#include <shardkit/testing/detail/following.hpp>
#include <shardkit/testing/detail/options.hpp>
#include <shardkit/testing/detail/rank_board.hpp>
#include <shardkit/testing/detail/rank_text.hpp>
#include <shardkit/testing/mpi_world.hpp>
#include <shardkit/testing/on_ranks.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace shardkit::testing {
namespace detail {

/// "results/unit.xml" becomes "results/unit.rank1.xml".
inline std::string file_of_rank(const std::string& path, int rank) {
  const std::size_t slash = path.find_last_of('/'), dot = path.find_last_of('.');
  const bool extension = dot != std::string::npos && (slash == std::string::npos || dot > slash + 1) && dot != 0;
  const std::size_t end = extension ? dot : path.size();
  return path.substr(0, end) + ".rank" + std::to_string(rank) + path.substr(end);
}

/// One rank's part in the run. Plain MPI: the library may be what is tested, and broken.
class mpi_run final : public run_observer, public rank_runner {
 public:
  /// Collective.
  mpi_run(mpi_environment& mpi, const options& given)
      : mpi_(mpi),
        given_(given),
        board_(comm_.handle),
        text_(mpi.rank()),
        stream_(&text_),
        case_(given.case_deadline),
        watching_([this](double passed) { look(passed); }) {
    run_observer::current = this;
    rank_runner::current = this;
  }
  ~mpi_run() {
    run_observer::current = nullptr;
    rank_runner::current = nullptr;
  }
  /// Collective, after doctest has ended: prints the rest and returns the worst result of all ranks.
  int finish(int result) {
    board_.begin();
    board_.leave(result == 0);
    const int worst = meet(result).empty() ? 0 : 1;
    if (mpi_.rank() != 0 || case_.started() == 0) return worst;
    const std::string ranks = mpi_.size() == 1 ? "[1 rank] " : "[" + std::to_string(mpi_.size()) + " ranks] ";
    for (const std::string& failure : failures_) std::printf("%sFAILED %s\n", ranks.c_str(), failure.c_str());
    std::printf("%stest cases: %d | %d passed | %d failed\n", ranks.c_str(), case_.started(),
                case_.started() - static_cast<int>(failures_.size()), static_cast<int>(failures_.size()));
    std::fflush(stdout);
    return worst;
  }
  /// Of this rank, so far.
  void forget_text() { text_.forget(); }

  void case_started(const doctest::TestCaseData& which) override {
    name_ = which.m_name;
    case_.start(which);
    board_.begin();
  }
  void case_ended(bool passed) override {
    board_.leave(passed);
    const std::string failed = meet(passed ? 0 : 1);
    if (!failed.empty() && mpi_.rank() == 0) failures_.push_back("\"" + name_ + "\" on rank " + failed);
    case_.end();
    kept_.clear();
  }
  void crashed() override {
    // Where the job is being ended it is the launcher's signal that doctest reports as a crash.
    if (board_.ending()) text_.mute();
    else text_.write_through();
  }

  int ranks() const override { return mpi_.size(); }
  bool allows_fewer_ranks() const override { return given_.allow_fewer_ranks; }
  std::string remedy(int needed) const override { return "start it with mpiexec -n " + std::to_string(needed); }
  void run(const std::function<void(rank_communicator&)>& body, const call_site& site) override {
    // To free a communicator takes all ranks. They have it until they have met, however each one leaves the body.
    kept_.push_back(erase(mpi_.world("world", site)));
    body(kept_.back());
  }

  int cases_started() const { return case_.started(); }
  std::ostream& stream() { return stream_; }

 private:
  /// Our own messages, apart from those of the cases.
  struct own_world {
    own_world() { shardkit::detail::mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &handle), "MPI_Comm_dup"); }
    own_world(const own_world&) = delete;
    own_world& operator=(const own_world&) = delete;
    ~own_world() { MPI_Comm_free(&handle); }
    MPI_Comm handle = MPI_COMM_NULL;
  };

  /// Waits for all ranks and prints what they have to say. Returns on which ranks `result` is not 0: their list on rank
  /// 0, something on the others.
  std::string meet(int result) {
    const std::string text = text_.lines();  // this rank's own again if the others never come
    const int mine[2] = {static_cast<int>(text.size()), result};
    int most[2] = {};
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Iallreduce(mine, most, 2, MPI_INT, MPI_MAX, comm_.handle, &request);
    // Mostly all come at once; a rank that waits long gives its core to the others.
    int done = 0;
    for (int tries = 0; MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done == 0; ++tries) {
      if (tries < 100) std::this_thread::yield();
      else std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    text_.forget();
    if (most[0] == 0 && most[1] == 0) return {};

    const auto size = static_cast<std::size_t>(mpi_.size());
    std::vector<int> all(2 * size), lengths(size), offsets(size);
    MPI_Gather(mine, 2, MPI_INT, all.data(), 2, MPI_INT, 0, comm_.handle);
    std::string failed;
    int total = 0;
    for (std::size_t r = 0; r < size; ++r) {
      offsets[r] = total;
      total += lengths[r] = all[2 * r];
      if (all[2 * r + 1] != 0) failed += (failed.empty() ? "" : ", ") + std::to_string(r);
    }
    std::vector<char> texts(static_cast<std::size_t>(total));
    MPI_Gatherv(text.data(), mine[0], MPI_CHAR, texts.data(), lengths.data(), offsets.data(), MPI_CHAR, 0,
                comm_.handle);
    if (total != 0) std::fwrite(texts.data(), 1, texts.size(), stdout);
    std::fflush(stdout);
    if (most[1] != 0 && failed.empty()) failed = "?";
    return failed;
  }

  void look(double passed) {
    total_ += passed;
    if (board_.ending()) return show();
    std::string why;
    if (case_.expired(passed)) {
      why = in_seconds(case_.deadline()) + " have passed ";
    } else if (given_.deadline > 0 && total_ > given_.deadline) {
      why = in_seconds(given_.deadline) + " have passed ";
    } else if (board_.left_failing() && board_.incomplete()) {
      if ((since_left_ += passed) < grace()) return;
      why = in_seconds(grace()) + " have passed since a rank failed ";
    } else {
      since_left_ = 0;
      return;
    }
    if (!board_.begin_ending()) return;
    why += place();
    show();
    for (int wait = 0; wait < 100 && !board_.all_shown(); ++wait)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    shardkit::detail::mpi_end_job("DEADLINE: " + why, 1);
  }
  void show() {
    if (std::exchange(shown_, true)) return;
    text_.write_through();
    if (given_.junit)
      record.write(given_.out.empty() ? "" : file_of_rank(given_.out, mpi_.rank()), "the job has ended " + place());
    board_.shown();
  }
  std::string place() const { return case_.place() + board_.text(); }

  /// Seconds for the others to come after a rank has failed.
  double grace() const { return std::min(5.0, case_.deadline() / 2); }

  mpi_environment& mpi_;
  const options given_;
  own_world comm_;
  rank_board board_;
  rank_text text_;
  std::ostream stream_;
  current_case case_;
  std::string name_;
  std::vector<std::string> failures_;    // on rank 0
  std::vector<rank_communicator> kept_;  // of the case that is running
  double total_ = 0, since_left_ = 0;    // of the watching thread, as is what follows
  bool shown_ = false;
  watching_thread watching_;  // last: it looks at the others
};

/// What the ranks cannot do together; the same on every rank.
inline void require_possible(const options& given, int size) {
  if (given.ranks != 0 && given.ranks != size)
    throw usage_error("the launcher started " + std::to_string(given.ranks) + " ranks and MPI sees " +
                      std::to_string(size) + ": mpiexec belongs to another MPI library");
  if (size == 1) return;
  given.refuse_what_separates_ranks();
  if (given.structured && given.out.empty())
    throw usage_error(
        "the reports of several ranks cannot share one output: add --out=FILE, which gives each rank a "
        "file of its own");
}

inline int run_cases(int argc, char** argv, const options& given, mpi_environment& mpi) {
  try {
    require_possible(given, mpi.size());
  } catch (const usage_error& error) {
    if (mpi.rank() == 0) std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  doctest::registerReporter<case_listener>("shardkit", 1, false);
  doctest::Context context(argc, argv);
  context.setOption("no-colors", true);  // Open MPI gives its ranks a terminal
  context.setOption("no-intro", true);
  context.setOption("no-version", true);
  context.setOption("minimal", true);  // the last line is for all ranks together
  mpi_run run(mpi, given);
  if (!given.out.empty()) context.setOption("out", file_of_rank(given.out, mpi.rank()).c_str());
  else if (!given.structured) context.setCout(&run.stream());

  int result = context.run();
  if (run.cases_started() == 0) {
    if (!run.queried) result = 1;
    if (!run.queried && mpi.rank() == 0) std::fputs("no test case matches the filters\n", stderr);
    if (mpi.rank() != 0) run.forget_text();
  }
  return run.finish(result);
}

}  // namespace detail

/// The whole of main; see the top of this file. Returns what main is to return, the same on every rank.
inline int mpi_main(int argc, char** argv, const mpi_options& limits = {}) {
  try {
    const detail::options given(argc, argv);
    mpi_environment mpi(argc, argv, limits);
    detail::the_mpi() = &mpi;
    return detail::run_cases(argc, argv, given, mpi);
  } catch (const error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 2;
  }
}

}  // namespace shardkit::testing
