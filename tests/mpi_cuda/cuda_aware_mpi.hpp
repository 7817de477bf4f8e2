// MPI of the tests of this folder: the library at hand, with functions in front of it that take device memory where the
// test wants it, and that write down what a test cannot see from outside.
#pragma once

namespace mpi_cuda_test {

/// Whether MPI says that it takes device memory; at first it says that it does not. It takes it in any case.
void set_cuda_aware(bool aware);

/// Buffers in device memory that MPI has got so far.
long device_buffers();

/// Collectives that have been started, and the last of those that were when a call began that is collective and waits.
struct collectives {
  long started = 0, started_before_waiting = 0;
};
collectives collectives_so_far();

}  // namespace mpi_cuda_test
