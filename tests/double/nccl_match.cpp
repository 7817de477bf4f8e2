// How the operations of the ranks meet: a launch starts at the head of its stream and of its communicator's queue; the
// n-th collective of a communicator meets the n-th of every other rank, and messages meet in order for each pair of
// ranks. Data move when all are there, in rank order.
#include <double/nccl_match.hpp>

#include <algorithm>
#include <cstring>
#include <set>

namespace shardkit_double::nccl {

namespace {

std::byte* bytes_at(const void* address) { return static_cast<std::byte*>(storage(address)); }

std::byte* bytes_at(const void* address, std::size_t offset) {
  return bytes_at(static_cast<const std::byte*>(address) + offset);
}

bool wants_operator(verb what) {
  return what == verb::all_reduce || what == verb::reduce || what == verb::reduce_scatter;
}

bool wants_root(verb what) { return what == verb::reduce || what == verb::broadcast; }

bool agree(const task& a, const task& b) {
  if (a.what != b.what || a.count != b.count || a.type != b.type) return false;
  if (wants_operator(a.what) && (a.op < ncclNumOps ? a.op : ncclNumOps) != (b.op < ncclNumOps ? b.op : ncclNumOps)) {
    return false;
  }
  return !wants_root(a.what) || a.root == b.root;
}

void copy(const void* from, const void* to, std::size_t bytes) {
  if (bytes > 0 && from != to) std::memcpy(bytes_at(to), bytes_at(from), bytes);
}

// The factor of a pre-multiplied sum on this rank.
std::vector<std::byte> scalar_of(const task& t) {
  if (t.scalar_on_device == nullptr) return t.scalar;
  const std::byte* stored = bytes_at(t.scalar_on_device);
  return {stored, stored + bytes_of(t.type)};
}

void move(const collective& met) {
  const int size = static_cast<int>(met.ranks.size());
  const task& first = *met.ranks[0]->what;
  const auto rank_task = [&](int rank) -> const task& { return *met.ranks[static_cast<std::size_t>(rank)]->what; };
  const std::size_t bytes = bytes_of(first);

  if (wants_operator(first.what)) {
    reduction how;
    how.op = first.op < ncclNumOps ? first.op : ncclNumOps;
    how.ranks = size;
    if (how.op == ncclNumOps) {
      for (int rank = 0; rank < size; ++rank) how.scalars.push_back(scalar_of(rank_task(rank)));
    }
    const int blocks = first.what == verb::reduce_scatter ? size : 1;
    for (int block = 0; block < blocks; ++block) {
      const std::size_t offset = static_cast<std::size_t>(block) * bytes;
      std::vector<const std::byte*> inputs;
      for (int rank = 0; rank < size; ++rank) inputs.push_back(bytes_at(rank_task(rank).send, offset));
      std::vector<std::byte*> outputs;
      for (int rank = 0; rank < size; ++rank) {
        const bool gets_it = first.what == verb::all_reduce || (first.what == verb::reduce && rank == first.root) ||
                             (first.what == verb::reduce_scatter && rank == block);
        if (gets_it) outputs.push_back(bytes_at(rank_task(rank).recv));
      }
      reduce(first.type, how, inputs, outputs, first.count);
    }
  } else if (first.what == verb::broadcast) {
    for (int rank = 0; rank < size; ++rank) copy(rank_task(first.root).send, rank_task(rank).recv, bytes);
  } else {
    for (int from = 0; from < size; ++from) {
      const std::size_t offset = static_cast<std::size_t>(from) * bytes;
      for (int to = 0; to < size; ++to) {
        copy(rank_task(from).send, static_cast<const std::byte*>(rank_task(to).recv) + offset, bytes);
      }
    }
  }
}

// What a failed operation leaves behind: NaN in every float type.
void spoil(const task& t, const ncclComm& comm) {
  for (const access& a : accesses_of(t, comm)) {
    if (a.mode == access_mode::write) std::memset(bytes_at(a.address), 0xff, a.bytes);
  }
}

void report_disagreement(const std::vector<pending_task*>& tasks, const std::string& where) {
  std::string text = where + ":";
  for (const pending_task* t : tasks) {
    text += "\n    rank " + std::to_string(t->owner->plan->comm->rank) + " calls " + describe(*t->what);
  }
  report_found(report_kind::mismatch, text + "\n  NCCL hangs here, or moves wrong data, and says nothing");
}

void fail(const std::vector<pending_task*>& tasks) {
  for (pending_task* t : tasks) {
    ncclComm& comm = *t->owner->plan->comm;
    spoil(*t->what, comm);
    t->done = true;
    comm.state = ncclInvalidUsage;
  }
}

void meet_collective(pending_task& mine, ncclComm& comm) {
  clique& shared = *comm.shared;
  const std::uint64_t number = comm.next_collective++;
  collective& met = shared.collectives[number];
  met.ranks.resize(static_cast<std::size_t>(comm.size));
  met.ranks[static_cast<std::size_t>(comm.rank)] = &mine;
  ++met.present;
  for (const pending_task* other : met.ranks) {
    if (other != nullptr && !agree(*other->what, *mine.what)) met.disagreed = true;
  }
  if (met.disagreed && current_mismatch_mode() == mismatch_mode::diagnose) {
    std::vector<pending_task*> present;
    for (pending_task*& other : met.ranks) {
      if (other != nullptr) present.push_back(std::exchange(other, nullptr));
    }
    if (present.size() > 1) {
      report_disagreement(present, "collective call " + std::to_string(number) + " of " + shared.name);
    }
    fail(present);
  } else if (!met.disagreed && !met.incomplete && met.present == comm.size) {
    move(met);
    for (pending_task* other : met.ranks) other->done = true;
  }
  if (met.present == comm.size) shared.collectives.erase(number);
}

void meet_messages(clique& shared, int from, int to) {
  channel& between = shared.channels[{from, to}];
  while (!between.sends.empty() && !between.receives.empty()) {
    pending_task& sent = *between.sends.front();
    pending_task& received = *between.receives.front();
    const bool same_bytes = bytes_of(*sent.what) == bytes_of(*received.what);
    const bool fit = same_bytes && sent.what->type == received.what->type;
    if (!fit && current_mismatch_mode() == mismatch_mode::diagnose) {
      report_disagreement({&sent, &received}, "message from rank " + std::to_string(from) + " to rank " +
                                                  std::to_string(to) + " of " + shared.name);
      fail({&sent, &received});
    } else if (!same_bytes) {
      return;
    } else {
      copy(sent.what->send, received.what->recv, bytes_of(*sent.what));
      sent.done = received.done = true;
    }
    between.sends.pop_front();
    between.receives.pop_front();
  }
}

void start(launch& l) {
  ncclComm& comm = *l.plan->comm;
  auto& failures = current_settings().failures;
  if (const auto failure = failures.find(comm.world_rank); failure != failures.end()) {
    if (--failure->second.launches == 0) {
      comm.state = static_cast<ncclResult_t>(failure->second.result);
      l.broken = true;
      failures.erase(failure);
      return;
    }
  }
  l.started = true;
  for (pending_task& t : l.tasks) {
    const int peer = t.what->root;
    if (t.what->what == verb::send) {
      comm.shared->channels[{comm.rank, peer}].sends.push_back(&t);
      meet_messages(*comm.shared, comm.rank, peer);
    } else if (t.what->what == verb::recv) {
      comm.shared->channels[{peer, comm.rank}].receives.push_back(&t);
      meet_messages(*comm.shared, peer, comm.rank);
    } else {
      meet_collective(t, comm);
    }
  }
}

bool stands_still(const launch& l) {
  const settings& now = current_settings();
  const int rank = l.plan->comm->world_rank;
  return l.broken || (now.stopped.count(rank) != 0 && now.stopped.at(rank));
}

// The launches that must end before `l` can: none where what it waits for may still come by itself.
std::vector<const launch*> waits_for(const launch& l) {
  std::vector<const launch*> found;
  const ncclComm& comm = *l.plan->comm;
  if (stands_still(l) || l.ended) return found;
  if (!l.at_head) {
    // Behind another launch on the same stream, perhaps of another communicator.
    for (const ncclComm* other : live()) {
      for (const auto& earlier : other->queue) {
        const bool same_stream = earlier->plan->streams[0] == l.plan->streams[0] && other->device == comm.device &&
                                 !earlier->plan->captured && !l.plan->captured;
        if (same_stream && earlier->at_head) found.push_back(earlier.get());
      }
    }
    return found;
  }
  if (!l.started) {
    if (comm.queue.front().get() != &l) found.push_back(comm.queue.front().get());
    return found;
  }
  const auto add = [&](int rank) {
    const ncclComm* peer = comm.shared->members[static_cast<std::size_t>(rank)];
    if (rank != comm.rank && peer != nullptr && !peer->queue.empty()) found.push_back(peer->queue.front().get());
  };
  std::uint64_t number = comm.next_collective;
  for (const pending_task& t : l.tasks) number -= is_message(*t.what) ? 0 : 1;
  for (const pending_task& t : l.tasks) {
    const std::uint64_t mine = is_message(*t.what) ? 0 : number++;
    if (t.done) continue;
    if (is_message(*t.what)) {
      const bool sends = t.what->what == verb::send;
      const channel& between =
          comm.shared->channels[sends ? std::pair(comm.rank, t.what->root) : std::pair(t.what->root, comm.rank)];
      if ((sends ? between.receives : between.sends).empty()) add(t.what->root);
    } else if (const auto met = comm.shared->collectives.find(mine); met != comm.shared->collectives.end()) {
      for (int rank = 0; rank < comm.size; ++rank) {
        if (met->second.ranks[static_cast<std::size_t>(rank)] == nullptr) add(rank);
      }
    }
  }
  return found;
}

bool reaches(const launch* from, const launch* goal, std::set<const launch*>& seen, std::vector<const launch*>& path) {
  for (const launch* next : waits_for(*from)) {
    if (next == goal) return true;
    if (!seen.insert(next).second) continue;
    path.push_back(next);
    if (reaches(next, goal, seen, path)) return true;
    path.pop_back();
  }
  return false;
}

void look_for_deadlock(const launch& l) {
  if (current_mismatch_mode() == mismatch_mode::faithful) return;
  std::set<const launch*> seen;
  std::vector<const launch*> path{&l};
  if (!reaches(&l, &l, seen, path)) return;
  std::string text = "deadlock, each waits for the next:";
  for (const launch* member : path) {
    text += "\n    " + describe(*member) + " of " + describe(*member->plan->comm);
  }
  report_found(report_kind::mismatch,
               text + "\n  send and receive in one group, and call in the same order on every rank");
}

void end(launch& l) {
  ncclComm& comm = *l.plan->comm;
  l.ended = true;
  comm.queue.pop_front();
  wake();
}

}  // namespace

std::shared_ptr<launch> begin(const std::shared_ptr<const launch_plan>& plan) {
  auto l = std::make_shared<launch>();
  l->plan = plan;
  ncclComm& comm = *plan->comm;
  if (!comm.buried_by.empty()) {
    report_found(report_kind::use_after_free,
                 describe(*l) + " is replayed by a graph after " + comm.buried_by + " of " + describe(comm));
    l->ended = true;
    return l;
  }
  if (comm.revoked) {
    l->ended = true;
    return l;
  }
  for (const task& t : plan->tasks) l->tasks.push_back({&t, l.get(), false});
  comm.queue.push_back(l);
  look_for_deadlock(*l);
  return l;
}

progress advance(launch& l) {
  if (l.ended) return progress::done;
  ncclComm& comm = *l.plan->comm;
  const bool arrives = !l.at_head;
  l.at_head = true;
  if (!l.started && comm.queue.front().get() == &l && !stands_still(l)) {
    const auto slow = current_settings().slow.find(comm.world_rank);
    if (slow != current_settings().slow.end() && l.earliest == clock::time_point{}) {
      l.earliest =
          clock::now() + std::chrono::duration_cast<clock::duration>(std::chrono::duration<double>(slow->second));
    }
    if (clock::now() >= l.earliest) {
      start(l);
      wake();
      if (!l.broken) look_for_deadlock(l);
    }
  } else if (arrives) {
    look_for_deadlock(l);
  }
  if (!l.started || !std::all_of(l.tasks.begin(), l.tasks.end(), [](const pending_task& t) { return t.done; })) {
    return progress::not_yet;
  }
  end(l);
  return progress::done;
}

void drop(ncclComm& comm) {
  for (const auto& l : comm.queue) {
    l->ended = true;
    if (!l->started || comm.shared == nullptr) continue;
    const auto mine = [&](const pending_task* t) { return t != nullptr && t->owner == l.get(); };
    for (auto& [number, met] : comm.shared->collectives) {
      for (pending_task*& t : met.ranks) {
        if (!mine(t)) continue;
        t = nullptr;
        met.incomplete = true;
      }
    }
    for (auto& [pair, between] : comm.shared->channels) {
      for (auto* waiting : {&between.sends, &between.receives}) {
        waiting->erase(std::remove_if(waiting->begin(), waiting->end(), mine), waiting->end());
      }
    }
  }
  comm.queue.clear();
  wake();
}

}  // namespace shardkit_double::nccl
