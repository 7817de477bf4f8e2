// main of the tests that run under mpiexec. Every rank runs every case. What the ranks print is collected and written
// in the order of the ranks at the end, each line tagged with its rank; the exit code is the worst of all ranks.
#define DOCTEST_CONFIG_IMPLEMENT
#include "mpi_world.hpp"
#include "running_case.hpp"

#include <shardkit/backends/mpi.hpp>

#include <mpi.h>

#include <cstdio>
#include <ostream>
#include <streambuf>
#include <string>
#include <vector>

REGISTER_LISTENER("running case", 1, shardkit_test::running_case);

namespace {

/// Text of one rank. Kept until the end, or written straight away once the rank is in trouble.
class tagged_output : public std::streambuf {
 public:
  explicit tagged_output(int rank) : tag_("[rank " + std::to_string(rank) + "] ") {}

  /// All lines so far, tagged; they are handed out once.
  std::string take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return take_locked();
  }
  /// Writes what is there and all that follows to standard error: the end will not be reached.
  void write_through() {
    const std::lock_guard<std::mutex> lock(mutex_);
    through_ = true;
    write(take_locked());
  }

 protected:
  int_type overflow(int_type character) override {
    const char text = traits_type::to_char_type(character);
    return xsputn(&text, 1) == 1 ? character : traits_type::eof();
  }
  std::streamsize xsputn(const char* text, std::streamsize length) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    text_.append(text, static_cast<std::size_t>(length));
    if (through_ && text_.find('\n') != std::string::npos) write(take_locked());
    return length;
  }

 private:
  std::string take_locked() {
    std::string tagged;
    for (std::size_t begin = 0; begin < text_.size();) {
      std::size_t end = text_.find('\n', begin);
      if (end == std::string::npos) end = text_.size();
      tagged += tag_ + text_.substr(begin, end - begin) + "\n";
      begin = end + 1;
    }
    text_.clear();
    return tagged;
  }
  // In one call, so that the launcher does not mix the ranks' lines.
  static void write(const std::string& tagged) {
    std::fwrite(tagged.data(), 1, tagged.size(), stderr);
    std::fflush(stderr);
  }

  std::string tag_;
  std::string text_;
  bool through_ = false;
  std::mutex mutex_;
};

/// Rank 0 prints the texts in the order of the ranks. Plain MPI: the library under test may be what is broken.
void print_in_order(const std::string& text, MPI_Comm comm, int rank, int size) {
  const int length = static_cast<int>(text.size());
  std::vector<int> lengths(static_cast<std::size_t>(size)), offsets(static_cast<std::size_t>(size));
  MPI_Gather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, 0, comm);
  int total = 0;
  for (std::size_t r = 0; r < lengths.size(); ++r) {
    offsets[r] = total;
    total += lengths[r];
  }
  std::vector<char> all(static_cast<std::size_t>(total));
  MPI_Gatherv(text.data(), length, MPI_CHAR, all.data(), lengths.data(), offsets.data(), MPI_CHAR, 0, comm);
  if (rank == 0) std::fwrite(all.data(), 1, all.size(), stdout);
  std::fflush(stdout);
}

shardkit::mpi_environment* environment = nullptr;

}  // namespace

shardkit::mpi_environment& shardkit_test::mpi() { return *environment; }

int main(int argc, char** argv) {
  const shardkit_test::options options(argc, argv);
  shardkit::mpi_environment mpi(argc, argv);
  environment = &mpi;

  MPI_Comm own = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  int rank = 0, size = 0;
  MPI_Comm_rank(own, &rank);
  MPI_Comm_size(own, &size);
  if (options.ranks != 0 && options.ranks != size) {
    std::fprintf(stderr, "The launcher started %d ranks and MPI sees %d: mpiexec belongs to another MPI library\n",
                 options.ranks, size);
    return 1;
  }

  tagged_output text(rank);
  std::ostream output(&text);
  shardkit_test::running_case::on_crash = [&] { text.write_through(); };
  int worst = 1;
  {
    const shardkit_test::watchdog watchdog(options.deadline, [&] {
      text.write_through();
      const std::string line = shardkit_test::too_late(options.deadline);
      text.sputn(line.data(), static_cast<std::streamsize>(line.size()));
      std::_Exit(1);
    });
    doctest::Context context(argc, argv);
    context.setCout(&output);
    context.setOption("no-colors", true);  // Open MPI gives its ranks a terminal
    context.setOption("no-intro", true);
    const int result = shardkit_test::result_of(context);
    MPI_Allreduce(&result, &worst, 1, MPI_INT, MPI_MAX, own);
    print_in_order(text.take(), own, rank, size);
  }
  MPI_Comm_free(&own);
  return worst;
}
