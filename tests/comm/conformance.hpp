// The conformance suite: what every communicator must do, whatever carries it. Each case is a function over any
// communicator; a backend runs all of them with one macro around its own way of starting ranks:
//
//   #define ON_MINE(function, name) TEST_CASE("mine: " name) { ... conformance::function(comm, report, sweep); ... }
//   SHARDKIT_CONFORMANCE_CASES(ON_MINE)
#pragma once

#include "conformance/groups.hpp"
#include "conformance/messages.hpp"
#include "conformance/moved_from.hpp"
#include "conformance/moves.hpp"
#include "conformance/reductions.hpp"
#include "conformance/started.hpp"
#include "conformance/structure.hpp"

#define SHARDKIT_CONFORMANCE_CASES(CASE)                                                                     \
  CASE(barrier, "a barrier keeps everybody until the last has come")                                         \
  CASE(broadcast, "broadcast gives every rank the root's elements")                                          \
  CASE(all_gather, "all_gather collects equal parts in rank order")                                          \
  CASE(all_gather_unequal, "all_gather collects unequal parts, also empty ones")                             \
  CASE(gather, "gather collects equal parts on the root alone")                                              \
  CASE(gather_unequal, "gather collects unequal parts on the root alone")                                    \
  CASE(scatter, "scatter deals out the root's equal parts")                                                  \
  CASE(scatter_unequal, "scatter deals out the root's unequal parts")                                        \
  CASE(all_to_all, "all_to_all transposes equal blocks")                                                     \
  CASE(all_to_all_unequal, "all_to_all transposes unequal blocks")                                           \
  CASE(all_reduce, "all_reduce combines exactly, for every type and operation")                              \
  CASE(reduce, "reduce combines exactly on the root")                                                        \
  CASE(reduce_scatter, "reduce_scatter combines equal parts exactly")                                        \
  CASE(reduce_scatter_unequal, "reduce_scatter combines unequal parts exactly")                              \
  CASE(rank_order, "reductions by_rank have the bits of a serial loop")                                      \
  CASE(special_extremes, "minimum and maximum propagate NaN and order the zeros")                            \
  CASE(same_bits_everywhere, "all ranks hold the same bits after all_reduce")                                \
  CASE(single_values, "a single value is reduced without a buffer")                                          \
  CASE(send_and_recv, "send and recv move a message between any two ranks")                                  \
  CASE(message_order, "messages arrive in the order sent")                                                   \
  CASE(send_recv, "send_recv shifts around the circle, swaps pairs and reaches oneself")                     \
  CASE(requests_in_any_order, "requests complete in whatever order they are waited for")                     \
  CASE(requests_tested, "requests complete when they are only tested")                                       \
  CASE(requests_and_collectives, "pending messages go on during other calls")                                \
  CASE(requests_outlive, "a request outlives its communicator and can be moved")                             \
  CASE(group_both_directions, "a group sends large messages both ways at once")                              \
  CASE(group_of_many_messages, "a group holds many messages between all ranks")                              \
  CASE(group_against_single_calls, "a group meets single calls of the other ranks")                          \
  CASE(group_of_every_verb, "a group holds every verb")                                                      \
  CASE(small_groups, "a group may be empty or hold one call")                                                \
  CASE(started_in_any_order, "started collectives complete in whatever order they are waited for")           \
  CASE(started_beside_messages, "started collectives go on while their rank waits for a message")            \
  CASE(started_beside_other_communicators, "started collectives go on during calls of another communicator") \
  CASE(started_outlives, "a started collective outlives its communicator")                                   \
  CASE(groups_of_communicators, "a group may be started, and hold the verbs of several communicators")       \
  CASE(exchange, "exchange hands every rank everybody's value")                                              \
  CASE(split, "split orders the ranks of a colour by key, then rank")                                        \
  CASE(nested_split, "children of children work beside their parents")                                       \
  CASE(subset, "a subset has the listed ranks in the order of the list")                                     \
  CASE(moved_from, "a communicator that was moved from refuses every use")                                   \
  CASE(mesh_axes, "a mesh has a communicator along every axis")                                              \
  CASE(random_programs, "random programs at different speeds end as they should")
