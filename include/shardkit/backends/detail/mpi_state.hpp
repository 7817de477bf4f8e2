// One MPI communicator with everything that its calls need: kept in one place at a stable address, shared by the
// backend object and the requests under way.
#pragma once

#include <shardkit/backends/detail/mpi_control.hpp>
#include <shardkit/backends/detail/mpi_pending.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/detail/element_at.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/partition.hpp>

#include <cstddef>
#include <exception>
#include <utility>

namespace shardkit {

/// Who frees an MPI communicator.
enum class mpi_ownership { owned, borrowed };

namespace detail {

class mpi_state final : public shared_object {
 public:
  mpi_state(shared<mpi_launch> of, MPI_Comm handle, mpi_ownership ownership, std::size_t largest_piece)
      : launch(std::move(of)),
        comm(handle),
        piece_bytes(largest_piece),
        slot(nullptr, launch->limits().operation),
        messages(*launch, piece_bytes),
        pieces(*launch, piece_bytes),
        ownership_(ownership) {
    if (ownership == mpi_ownership::borrowed)
      mpi_check(MPI_Comm_get_errhandler(comm, &borrowed_handler_), "MPI_Comm_get_errhandler");
    mpi_check(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    mpi_check(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
    for (std::size_t bytes = 1; bytes <= largest_element; ++bytes) most_[bytes] = piece_bytes / bytes;
    numbers_ = list<int>(2 * static_cast<std::size_t>(size));
    inputs = list<const void*>(static_cast<std::size_t>(size));
    launch->watchdog().add(slot);
  }
  ~mpi_state() override {
    // After a failure nothing is freed: that is collective, and the process is about to end. Nor where an exception
    // passes: the peers may be elsewhere, and what ends with the exception is for others to say.
    if (mpi_is_running() && !launch->failed()) {
      const mpi_in_call in_call(slot, "MPI_Comm_free", {}, mpi_in_call::even_after_failure{});
      if (std::uncaught_exceptions() <= exceptions_) {
        if (control_) control_->close();
        if (inner_ != MPI_COMM_NULL) MPI_Comm_free(&inner_);
        if (ownership_ == mpi_ownership::owned) MPI_Comm_free(&comm);
      }
      if (borrowed_handler_ != MPI_ERRHANDLER_NULL) {
        MPI_Comm_set_errhandler(comm, borrowed_handler_);
        MPI_Errhandler_free(&borrowed_handler_);
      }
    }
    launch->watchdog().remove(slot);
  }

  /// Runs the body of one call.
  template <class Body>
  auto run(const char* name, const call_site& site, Body body) {
    return launch->run(slot, name, site, body);
  }

  /// For a call that is about to start.
  mpi_pending& pending(const char* name, const call_site& site) {
    return pool_.take(pool_, *launch, slot, piece_bytes).begin(shared<shared_object>(this), name, site);
  }

  std::size_t index() const noexcept { return static_cast<std::size_t>(rank); }
  std::size_t ranks() const noexcept { return static_cast<std::size_t>(size); }

  /// Whether so many elements may go in one MPI call. The same answer on every rank that asks about the same count.
  bool fits(std::size_t count, dtype type) const noexcept { return count <= most_[size_of(type)]; }

  /// Keeps what MPI said of a call that was made plainly; its full form throws it.
  [[gnu::cold, gnu::noinline]] void refused(int code, const char* function) noexcept {
    refusal_ = code;
    refused_by_ = function;
  }
  void require_not_refused() {
    if (refusal_ != MPI_SUCCESS) mpi_throw(std::exchange(refusal_, MPI_SUCCESS), refused_by_);
  }

  /// Counts and displacements for MPI's unequal forms, where the whole fits.
  int* counts() noexcept { return numbers_.data(); }
  int* displacements() noexcept { return numbers_.data() + size; }
  void tabulate(const partition& layout) noexcept {
    for (int r = 0; r < size; ++r) {
      counts()[r] = static_cast<int>(layout.count(r));
      displacements()[r] = static_cast<int>(layout.offset(r));
    }
  }

  /// Carries the messages of composed collectives, apart from the user's. Made at the first of them.
  MPI_Comm inner() {
    if (inner_ == MPI_COMM_NULL) {
      mpi_check(MPI_Comm_dup(comm, &inner_), "MPI_Comm_dup");
      mpi_check(MPI_Comm_set_errhandler(inner_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    }
    return inner_;
  }

  /// Made at the first call, which is collective.
  control_lane& control() {
    if (!control_)
      run("control", {}, [&, this] {
        MPI_Comm copy = MPI_COMM_NULL;
        mpi_check(MPI_Comm_dup(comm, &copy), "MPI_Comm_dup");
        control_ = shared<mpi_control>::make(*launch, copy);
      });
    return *control_;
  }

  /// At least so many bytes; grows and is kept.
  std::byte* scratch(std::size_t bytes) {
    if (scratch_.size() < bytes) scratch_ = buffer<std::byte>(bytes);
    return scratch_.data();
  }

  const shared<mpi_launch> launch;
  MPI_Comm comm;
  int rank = 0, size = 1;
  const std::size_t piece_bytes;
  mpi_call_slot slot;
  mpi_transfer messages;     ///< the user's, of one call
  mpi_transfer pieces;       ///< of a composed collective
  list<const void*> inputs;  ///< of a rank-ordered reduction

 private:
  static constexpr std::size_t largest_element = 8;

  call_pool<mpi_pending> pool_;
  std::size_t most_[largest_element + 1] =
      {};  // elements in one MPI call, by their size; a division less for each call
  int refusal_ = MPI_SUCCESS;
  const char* refused_by_ = "";
  const mpi_ownership ownership_;
  const int exceptions_ = std::uncaught_exceptions();
  MPI_Errhandler borrowed_handler_ = MPI_ERRHANDLER_NULL;
  MPI_Comm inner_ = MPI_COMM_NULL;
  shared<mpi_control> control_;
  list<int> numbers_;
  buffer<std::byte> scratch_;
};

/// The ordinary case of a verb that has one: whether one call of MPI's `function` is enough, and that call.
template <class Call>
struct mpi_plain;
template <class Call>
void mpi_run_plainly(mpi_state& state, const Call& call) {
  mpi_check(mpi_plain<Call>::perform(state, call), mpi_plain<Call>::function);
}

}  // namespace detail
}  // namespace shardkit
