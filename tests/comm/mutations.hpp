// Programs in which one rank makes one call a little differently, or the ranks wait for each other: what cross-rank
// checks have to catch.
#pragma once

#include <shardkit/comm/any_communicator.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mutations {

using comm_type = shardkit::any_communicator<shardkit::host_space>;
using where = comm_type::where;

/// The call site of ranks that do as they should, and of the one that does not.
inline where right() { return where({}, {"right.cpp", "test", 10}); }
inline where wrong() { return where({}, {"wrong.cpp", "test", 20}); }

/// One field of one verb.
struct mutation {
  std::string what;
  void (*make)(comm_type& comm, bool mutated);
  bool between_two = false;    ///< ranks 0 and 1, who see it; all others only hear of it
  bool may_pass_some = false;  ///< a rank may find nothing and go on into its transport, to wait there for the others
};

/// Buffers for any of the calls.
template <class T>
struct buffers {
  explicit buffers(const comm_type& comm, std::size_t count = 6)
      : x(count), y(count), whole(count * static_cast<std::size_t>(comm.size())), all(whole.size()) {}
  std::vector<T> x, y, whole, all;
};

inline where site_of(bool mutated) { return mutated ? wrong() : right(); }

/// verb(comm, buffers, op, root, w) with one thing changed at a time.
using verb = void (*)(comm_type&, std::size_t count, bool integers, shardkit::reduction op, int root, where w);

#define MUTATION_VERB(name, statement)                                                                             \
  inline void name(comm_type& comm, std::size_t count, bool integers, shardkit::reduction op, int root, where w) { \
    (void)op, (void)root;                                                                                          \
    const auto run = [&](auto b) { statement; };                                                                   \
    if (integers) run(buffers<std::int32_t>(comm, count));                                                         \
    else run(buffers<float>(comm, count));                                                                         \
  }
MUTATION_VERB(broadcast, comm.broadcast(b.x, root, w))
MUTATION_VERB(reduce, comm.reduce(b.x, b.y, op, root, w))
MUTATION_VERB(all_reduce, comm.all_reduce(b.x, b.y, op, w))
MUTATION_VERB(all_reduce_async, comm.all_reduce_async(b.x, b.y, op, w).wait())
MUTATION_VERB(all_gather, comm.all_gather(b.x, b.all, w))
MUTATION_VERB(reduce_scatter, comm.reduce_scatter(b.whole, b.x, op, w))
MUTATION_VERB(gather, comm.gather(b.x, b.all, root, w))
MUTATION_VERB(scatter, comm.scatter(b.whole, b.x, root, w))
MUTATION_VERB(all_to_all, comm.all_to_all(b.whole, b.all, w))
#undef MUTATION_VERB

template <verb Verb>
void count(comm_type& comm, bool mutated) {
  Verb(comm, mutated ? 5 : 6, false, shardkit::sum, 0, site_of(mutated));
}
template <verb Verb>
void type(comm_type& comm, bool mutated) {
  Verb(comm, 6, mutated, shardkit::sum, 0, site_of(mutated));
}
template <verb Verb>
void kind(comm_type& comm, bool mutated) {
  Verb(comm, 6, false, mutated ? shardkit::product : shardkit::sum, 0, site_of(mutated));
}
template <verb Verb>
void order(comm_type& comm, bool mutated) {
  Verb(comm, 6, false, mutated ? by_rank(shardkit::sum) : shardkit::sum, 0, site_of(mutated));
}
template <verb Verb>
void root(comm_type& comm, bool mutated) {
  Verb(comm, 6, false, shardkit::sum, mutated ? 1 : 0, site_of(mutated));
}
template <verb Verb, verb Other>
void name(comm_type& comm, bool mutated) {
  (mutated ? Other : Verb)(comm, 6, false, shardkit::sum, 0, site_of(mutated));
}

/// 6 elements over the ranks; mutated, one of them is the next rank's.
inline shardkit::partition layout_of(const comm_type& comm, bool mutated) {
  std::vector<std::size_t> counts(static_cast<std::size_t>(comm.size()), 2);
  if (mutated) {
    ++counts[0];
    --counts[1];
  }
  return shardkit::partition::from_counts(counts);
}
template <class Call>
void with_layout(comm_type& comm, bool mutated, Call call) {
  const shardkit::partition cut = layout_of(comm, mutated);
  std::vector<double> mine(cut.count(comm.rank())), whole(cut.total());
  call(mine, whole, cut, site_of(mutated));
}

/// Rank 0 and 1 exchange a message, in either direction; `change` is made by the mutated one.
template <class Send, class Receive>
void message(comm_type& comm, Send send, Receive receive) {
  if (comm.rank() == 0) send();
  if (comm.rank() == 1) receive();
  comm.barrier(right());
}

inline std::vector<mutation> all() {
  return {
      {"verb", name<all_reduce, broadcast>},
      {"verb, of the same arguments", name<gather, scatter>},
      {"verb, of the same result", name<all_gather, all_to_all>},
      {"broadcast count", count<broadcast>},
      {"broadcast type", type<broadcast>},
      {"broadcast root", root<broadcast>},
      {"reduce count", count<reduce>},
      {"reduce type", type<reduce>},
      {"reduce operation", kind<reduce>},
      {"reduce by_rank", order<reduce>},
      {"reduce root", root<reduce>},
      {"all_reduce count", count<all_reduce>},
      {"all_reduce type", type<all_reduce>},
      {"all_reduce operation", kind<all_reduce>},
      {"all_reduce by_rank", order<all_reduce>},
      {"all_reduce_async operation", kind<all_reduce_async>, false, true},
      {"all_gather count", count<all_gather>},
      {"all_gather type", type<all_gather>},
      {"reduce_scatter count", count<reduce_scatter>},
      {"reduce_scatter type", type<reduce_scatter>},
      {"reduce_scatter operation", kind<reduce_scatter>},
      {"reduce_scatter by_rank", order<reduce_scatter>},
      {"gather count", count<gather>},
      {"gather type", type<gather>},
      {"gather root", root<gather>},
      {"scatter count", count<scatter>},
      {"scatter type", type<scatter>},
      {"scatter root", root<scatter>},
      {"all_to_all count", count<all_to_all>},
      {"all_to_all type", type<all_to_all>},
      {"all_gather layout",
       [](comm_type& comm, bool mutated) {
         with_layout(comm, mutated,
                     [&](auto& mine, auto& whole, auto& cut, where w) { comm.all_gather(mine, whole, cut, w); });
       }},
      {"reduce_scatter layout",
       [](comm_type& comm, bool mutated) {
         with_layout(comm, mutated, [&](auto& mine, auto& whole, auto& cut, where w) {
           comm.reduce_scatter(whole, mine, shardkit::sum, cut, w);
         });
       }},
      {"gather layout",
       [](comm_type& comm, bool mutated) {
         with_layout(comm, mutated,
                     [&](auto& mine, auto& whole, auto& cut, where w) { comm.gather(mine, whole, cut, 0, w); });
       }},
      {"scatter layout",
       [](comm_type& comm, bool mutated) {
         with_layout(comm, mutated,
                     [&](auto& mine, auto& whole, auto& cut, where w) { comm.scatter(whole, mine, cut, 0, w); });
       }},
      {"all_to_all layout",
       [](comm_type& comm, bool mutated) {
         std::vector<std::size_t> counts(static_cast<std::size_t>(comm.size()), 2);
         const auto from = shardkit::partition::from_counts(counts);
         if (mutated) ++counts[static_cast<std::size_t>((comm.rank() + 1) % comm.size())];
         const auto to = shardkit::partition::from_counts(counts);
         std::vector<double> x(to.total()), y(from.total());
         comm.all_to_all(x, to, y, from, site_of(mutated));
       },
       false, true},  // only the next rank sees it
      {"size of an exchange",
       [](comm_type& comm, bool mutated) {
         if (mutated) (void)comm.exchange(std::int64_t{1}, wrong());
         else (void)comm.exchange(std::int32_t{1}, right());
       }},
      {"split",
       [](comm_type& comm, bool mutated) {
         if (mutated) comm.barrier(wrong());
         else (void)comm.split(0, 0, "child", right());
       }},
      {"order",
       [](comm_type& comm, bool mutated) {
         if (mutated) comm.barrier(wrong());
         all_reduce(comm, 6, false, shardkit::sum, 0, site_of(mutated));
         if (!mutated) comm.barrier(right());
       }},
      {"a call left out",
       [](comm_type& comm, bool mutated) {
         for (std::size_t step = 1; step < 6; ++step)
           if (!mutated || step != 3) all_reduce(comm, step, false, shardkit::sum, 0, site_of(mutated));
       }},
      {"contents of a group",
       [](comm_type& comm, bool mutated) {
         std::vector<float> x(6), y(6);
         comm.group(
             [&](auto& g) {
               g.all_reduce(shardkit::in_place(x), shardkit::sum, site_of(mutated));
               if (mutated) g.broadcast(y, 0, wrong());
               else g.all_reduce(shardkit::in_place(y), shardkit::sum, right());
             },
             site_of(mutated));
       }},
      {"message count",
       [](comm_type& comm, bool mutated) {
         std::vector<float> x(mutated ? 5 : 6);
         message(
             comm, [&] { comm.send(x, 1, site_of(mutated)); }, [&] { comm.recv(x, 0, site_of(mutated)); });
       },
       true},
      {"message type",
       [](comm_type& comm, bool mutated) {
         std::vector<float> x(6);
         std::vector<std::int32_t> y(6);
         message(
             comm, [&] { mutated ? comm.send(y, 1, wrong()) : comm.send(x, 1, right()); },
             [&] { mutated ? comm.recv(y, 0, wrong()) : comm.recv(x, 0, right()); });
       },
       true},
  };
}

/// A program whose ranks would wait for each other for ever.
struct deadlock {
  std::string what;
  void (*make)(comm_type& comm);
  bool may_pass_some = false;  ///< as above
};

inline std::vector<deadlock> deadlocks() {
  return {
      {"a receive that the sender meets with a collective",
       [](comm_type& comm) {
         std::vector<float> x(3);
         if (comm.rank() == 1) comm.recv(x, 0, wrong());
         else comm.all_reduce(shardkit::in_place(x), shardkit::sum, right());
       }},
      {"a send that the receiver meets with a collective, and would receive after it",
       [](comm_type& comm) {
         std::vector<float> x(3);
         if (comm.rank() == 1) comm.send(x, 0, wrong());
         comm.all_reduce(shardkit::in_place(x), shardkit::sum, right());
       },
       true},
      {"a large send that the receiver meets with a collective",
       [](comm_type& comm) {
         std::vector<float> x(std::size_t{1} << 20);
         if (comm.rank() == 0) comm.send(x, 1, right());
         comm.all_reduce(shardkit::in_place(x), shardkit::sum, wrong());
       },
       true},
      {"a receive that the sender meets with a receive",
       [](comm_type& comm) {
         std::vector<float> x(3);
         if (comm.rank() == 0) comm.recv(x, 1, right());
         else if (comm.rank() == 1) comm.recv(x, 0, wrong());
         else comm.barrier();
       }},
      {"a message to another rank than the one that receives",
       [](comm_type& comm) {
         std::vector<float> x(3);
         if (comm.rank() == 0 && comm.size() > 2) comm.send(x, 2, wrong());
         if (comm.rank() == 1) comm.recv(x, 0, wrong());
         comm.barrier(right());
       }},
  };
}

}  // namespace mutations
