// The program's definitions of these functions come before the library's. Device memory of the double has its bytes
// elsewhere, which MPI gets instead.
#include "cuda_aware_mpi.hpp"

#include <double/control.hpp>
#include <shardkit/backends/detail/mpi_cuda_support.hpp>

#include <mpi.h>

namespace {

bool says_aware = false;
long given = 0;
mpi_cuda_test::collectives so_far;

template <class T>
T* taken(T* buffer) {
  if (buffer == nullptr || buffer == MPI_IN_PLACE) return buffer;
  T* const bytes = static_cast<T*>(shardkit_double::storage(buffer));
  if (bytes == nullptr || bytes == buffer) return buffer;
  ++given;
  return bytes;
}
void begin_started() { ++so_far.started; }
void begin_waiting() { so_far.started_before_waiting = so_far.started; }

}  // namespace

namespace mpi_cuda_test {

void set_cuda_aware(bool aware) { says_aware = aware; }
long device_buffers() { return given; }
collectives collectives_so_far() { return so_far; }

}  // namespace mpi_cuda_test

extern "C" {

#if defined(OPEN_MPI) && defined(MPIX_CUDA_AWARE_SUPPORT)
int MPIX_Query_cuda_support() { return says_aware; }
#elif defined(MPIX_GPU_SUPPORT_CUDA)
int MPIX_GPU_query_support(int type, int* supported) {
  *supported = type == MPIX_GPU_SUPPORT_CUDA && says_aware;
  return MPI_SUCCESS;
}
#endif

int MPI_Bcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm) {
  begin_waiting();
  return PMPI_Bcast(taken(data), count, type, root, comm);
}
int MPI_Allreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  begin_waiting();
  return PMPI_Allreduce(taken(in), taken(out), count, type, op, comm);
}
int MPI_Allgather(const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
                  MPI_Comm comm) {
  begin_waiting();
  return PMPI_Allgather(taken(in), in_count, in_type, taken(out), out_count, out_type, comm);
}
int MPI_Allgatherv(const void* in, int in_count, MPI_Datatype in_type, void* out, const int* counts, const int* places,
                   MPI_Datatype out_type, MPI_Comm comm) {
  begin_waiting();
  return PMPI_Allgatherv(taken(in), in_count, in_type, taken(out), counts, places, out_type, comm);
}
int MPI_Gather(const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
               int root, MPI_Comm comm) {
  begin_waiting();
  return PMPI_Gather(taken(in), in_count, in_type, taken(out), out_count, out_type, root, comm);
}
int MPI_Gatherv(const void* in, int in_count, MPI_Datatype in_type, void* out, const int* counts, const int* places,
                MPI_Datatype out_type, int root, MPI_Comm comm) {
  begin_waiting();
  return PMPI_Gatherv(taken(in), in_count, in_type, taken(out), counts, places, out_type, root, comm);
}
int MPI_Scatter(const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
                int root, MPI_Comm comm) {
  begin_waiting();
  return PMPI_Scatter(taken(in), in_count, in_type, taken(out), out_count, out_type, root, comm);
}
int MPI_Scatterv(const void* in, const int* counts, const int* places, MPI_Datatype in_type, void* out, int out_count,
                 MPI_Datatype out_type, int root, MPI_Comm comm) {
  begin_waiting();
  return PMPI_Scatterv(taken(in), counts, places, in_type, taken(out), out_count, out_type, root, comm);
}
int MPI_Alltoall(const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
                 MPI_Comm comm) {
  begin_waiting();
  return PMPI_Alltoall(taken(in), in_count, in_type, taken(out), out_count, out_type, comm);
}
int MPI_Isend(const void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request* request) {
  return PMPI_Isend(taken(data), count, type, peer, tag, comm, request);
}
int MPI_Irecv(void* data, int count, MPI_Datatype type, int peer, int tag, MPI_Comm comm, MPI_Request* request) {
  return PMPI_Irecv(taken(data), count, type, peer, tag, comm, request);
}
#if SHARDKIT_MPI_LARGE_COUNTS
int MPI_Isend_c(const void* data, MPI_Count count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
                MPI_Request* request) {
  return PMPI_Isend_c(taken(data), count, type, peer, tag, comm, request);
}
int MPI_Irecv_c(void* data, MPI_Count count, MPI_Datatype type, int peer, int tag, MPI_Comm comm,
                MPI_Request* request) {
  return PMPI_Irecv_c(taken(data), count, type, peer, tag, comm, request);
}
#endif

int MPI_Iallreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
                   MPI_Request* request) {
  begin_started();
  return PMPI_Iallreduce(in, out, count, type, op, comm, request);
}
int MPI_Comm_split(MPI_Comm comm, int colour, int key, MPI_Comm* part) {
  begin_waiting();
  return PMPI_Comm_split(comm, colour, key, part);
}
int MPI_Comm_dup(MPI_Comm comm, MPI_Comm* copy) {
  begin_waiting();
  return PMPI_Comm_dup(comm, copy);
}
}
