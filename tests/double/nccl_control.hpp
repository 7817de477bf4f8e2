// What a test says to the NCCL part of the double, beside <double/control.hpp>: version, limits, and what goes wrong on
// which rank. A rank is meant as in the communicator that ncclCommInitRank made; communicators split from it keep its
// troubles. Results are numbers of ncclResult_t. reset() undoes everything.
#pragma once

namespace shardkit_double::nccl {

/// What ncclGetVersion answers; 22809 by default.
void set_version(int code);

/// Several ranks of a communicator on one device. Refused by default, as NCCL does before 2.30; from a version of 23000
/// on also allowed by NCCL_MULTI_RANK_GPU_ENABLE=1 in the environment.
void allow_duplicate_gpu(bool allowed);

/// Operations that one group may hold; 1024 by default. One more is refused with ncclInvalidUsage.
void set_group_limit(int operations);

/// Non-blocking communicators: making one, and splitting one, stays ncclInProgress for at least this long.
void hold_initialisation(double seconds);

/// Non-blocking communicators: how many times ncclCommGetAsyncError answers ncclInProgress after a call or a group
/// before its operations are on their streams; 1 by default. Nothing is queued before.
void hold_enqueue(int polls);

/// A call that needs a peer for the first time (a collective all of them, a message its other end) holds up its thread,
/// or stays in progress, until the peer has come to a call that needs this rank, as NCCL does when it connects on
/// demand. A dead peer then blocks the host, too. Off by default.
void connect_on_first_use(bool connect);

/// How long blocking calls wait for what cannot come (a rank that never calls, an operation that never ends) before
/// the double reports it and returns ncclSystemError, where NCCL would wait on; 20 s by default.
void set_patience(double seconds);

/// A rank whose device stands still at its next NCCL operation until the communicator is aborted, or until `false`.
void stop_rank(int rank, bool stopped = true);

/// Every operation of a rank starts this much later than it could.
void slow_rank(int rank, double seconds);

/// The n-th launch from now (1: the next; a group is one launch) of a rank hangs, and its communicator answers `result`
/// to ncclCommGetAsyncError: a broken network.
void fail_asynchronously(int rank, int result, int nth = 1);

/// Communicators that are alive.
int live_communicators();

}  // namespace shardkit_double::nccl
