// Cases of the verbs that combine the ranks' elements.
#pragma once

#include "moves.hpp"

#include <algorithm>
#include <vector>

namespace conformance {

using shardkit::reduction;

/// Which verb reduces.
enum class reducing { all_reduce, reduce, reduce_scatter, reduce_scatter_unequal };

/// One reduction. Hands check(got, first, count) the elements [first, first + count) of the result that this rank got.
template <class Comm, class Check>
void one_reduction(Comm& comm, report& out, std::size_t type_index, reducing verb, reduction op,
                   const partition& layout, bool in_its_place, int root, const source& from, Check check) {
  constexpr const char* names[] = {"all_reduce", "reduce", "reduce_scatter", "unequal reduce_scatter"};
  const dtype type = dtype_at(type_index);
  out.at(text(in_its_place ? "in-place " : "", names[static_cast<int>(verb)], " of ", layout.total(), " x ",
              name_of(type), ", ", op.by_rank ? "by_rank " : "", name_of(op.kind)));
  const bool scatters = verb == reducing::reduce_scatter || verb == reducing::reduce_scatter_unequal;
  const bool receives = verb != reducing::reduce || comm.is_root(root);
  const std::size_t first = scatters ? layout.offset(comm.rank()) : 0;
  const std::size_t count = scatters ? layout.count(comm.rank()) : layout.total();

  guarded in(type, layout.total(), from, comm.rank()), separate(type, receives ? count : 0);
  char* const to = in_its_place ? in.data(first) : separate.data();
  with_type(type_index, [&](auto element) {
    using T = decltype(element);
    const view<T> result(reinterpret_cast<T*>(to), receives ? count : 0);
    switch (verb) {
      case reducing::all_reduce:
        if (in_its_place) comm.all_reduce(in_place(in.as<T>()), op);
        else comm.all_reduce(in.read<T>(), result, op);
        break;
      case reducing::reduce:
        if (in_its_place) comm.reduce(in_place(in.as<T>()), op, root);
        else comm.reduce(in.read<T>(), result, op, root);
        break;
      case reducing::reduce_scatter: comm.reduce_scatter(in.read<T>(), result, op); break;
      case reducing::reduce_scatter_unequal: comm.reduce_scatter(in.read<T>(), result, op, layout); break;
    }
  });
  if (receives) check(to, first, count);
  if (!in_its_place) out.holds(in.data(), type, from, comm.rank(), 0, in.size());
  out.expect(in.intact() && separate.intact(), "margins");
}

/// The layout of a result: as a whole, in equal blocks, or as given.
inline partition layout_for(reducing verb, std::size_t count, std::size_t which, int ranks) {
  if (verb == reducing::reduce_scatter) return partition::balanced(count * as_index(ranks), ranks);
  return layout_of(verb == reducing::reduce_scatter_unequal ? which : 0, count, ranks);
}

/// Each (element type, operation) begins plainly: an MPI library has a function for each.
template <class Comm>
void exact_reductions(Comm& comm, report& out, const sweep& how, reducing verb, std::size_t roots) {
  const auto operations = reducible_operations();
  const std::size_t layouts = verb == reducing::reduce_scatter_unequal ? layout_count : 1;
  std::size_t visited = 0;
  const sweep all = how.with_operations(operations.size());
  visit_grid(all, {operations.size(), sizes.size(), 2, roots, layouts}, [&](auto point) {
    // The first time there is something to combine, in whatever order the transport does it.
    const bool first_time = visited++ < operations.size();
    if (first_time) point[1] = std::max<std::size_t>(point[1], 2);
    const auto [type, kind] = operations[point[0]];
    const source from{values::exact, kind, seed_of(point)};
    const reduction op{kind, !first_time && from.seed % 3 == 0};
    const auto layout = layout_for(verb, sizes[point[1]], point[4], comm.size());
    one_reduction(comm, out, type, verb, op, layout, point[2] == 1, static_cast<int>(point[3]), from,
                  [&](const char* got, std::size_t first, std::size_t count) {
                    if (how.rounded_averages && op.kind == reduction_kind::average && !op.by_rank)
                      return out.expect(worst_error(got, dtype_at(type), from, op.kind, comm.size(), first, count) <= 1,
                                        "too far off");
                    std::vector<char> wanted(count * size_of(dtype_at(type)));
                    reduce(wanted.data(), dtype_at(type), from, op.kind, comm.size(), first, count);
                    out.same(got, wanted.data(), dtype_at(type), count);
                  });
  });
}

template <class Comm>
void all_reduce(Comm& comm, report& out, const sweep& how) {
  exact_reductions(comm, out, how, reducing::all_reduce, 1);
}
template <class Comm>
void reduce(Comm& comm, report& out, const sweep& how) {
  exact_reductions(comm, out, how, reducing::reduce, as_index(comm.size()));
}
template <class Comm>
void reduce_scatter(Comm& comm, report& out, const sweep& how) {
  exact_reductions(comm, out, how, reducing::reduce_scatter, 1);
}
template <class Comm>
void reduce_scatter_unequal(Comm& comm, report& out, const sweep& how) {
  exact_reductions(comm, out, how.part(2), reducing::reduce_scatter_unequal, 1);
}

/// Sums, products and averages of floats that depend on the order: by_rank gives the bits of the serial loop, other
/// reductions come close.
template <class Comm>
void rank_order(Comm& comm, report& out, const sweep& how) {
  constexpr reduction_kind kinds[] = {reduction_kind::sum, reduction_kind::product, reduction_kind::average,
                                      reduction_kind::minimum, reduction_kind::maximum};
  constexpr std::size_t counts[] = {3, 22, 64, 700};
  visit_grid(how.part(2), {float_type_count, 5, 4, 4, 2, 2, 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const auto verb = static_cast<reducing>(point[3]);
    const source from{values::wild, kinds[point[1]], seed_of(point)};
    const reduction op{kinds[point[1]], point[4] == 1};
    const auto layout = layout_for(verb, counts[point[2]], from.seed % layout_count, comm.size());
    one_reduction(comm, out, point[0], verb, op, layout, point[5] == 1, point[6] == 0 ? 0 : comm.size() - 1, from,
                  [&](const char* got, std::size_t first, std::size_t count) {
                    if (op.by_rank || how.always_ordered) {
                      std::vector<char> wanted(count * size_of(type));
                      reduce(wanted.data(), type, from, op.kind, comm.size(), first, count);
                      out.same(got, wanted.data(), type, count);
                    } else {
                      out.expect(worst_error(got, type, from, op.kind, comm.size(), first, count) <= 1, "too far off");
                    }
                  });
  });
}

/// Minimum and maximum: NaN where any rank has one, -0 below +0.
template <class Comm>
void special_extremes(Comm& comm, report& out, const sweep& how) {
  constexpr reduction_kind kinds[] = {reduction_kind::minimum, reduction_kind::maximum};
  constexpr std::size_t counts[] = {5, 1000};
  visit_grid(how, {float_type_count, 2, 2, 4, 2, 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const auto verb = static_cast<reducing>(point[3]);
    const source from{values::special, kinds[point[1]], seed_of(point)};
    const reduction op{kinds[point[1]], point[4] == 1};
    one_reduction(comm, out, point[0], verb, op, layout_for(verb, counts[point[2]], 0, comm.size()), point[5] == 1,
                  comm.size() - 1, from, [&](const char* got, std::size_t first, std::size_t count) {
                    std::vector<char> wanted(count * size_of(type));
                    reduce(wanted.data(), type, from, op.kind, comm.size(), first, count);
                    out.same(got, wanted.data(), type, count, true);
                  });
  });
}

/// Whatever the values, every rank holds the same bits afterwards; only what a NaN holds beside is open.
template <class Comm>
void same_bits_everywhere(Comm& comm, report& out, const sweep& how) {
  const auto operations = reducible_operations();
  visit_grid(how.with_operations(operations.size()), {operations.size(), 4, 2}, [&](const auto& point) {
    const auto [type, kind] = operations[point[0]];
    const std::size_t count = std::array<std::size_t, 4>{4, 21, 250, 5003}[point[1]];
    out.at(text("bits after all_reduce of ", count, " x ", name_of(dtype_at(type)), ", ", name_of(kind)));
    guarded data(dtype_at(type), count, source{point[2] == 0 ? values::wild : values::special, kind, seed_of(point)},
                 comm.rank());
    with_type(type, [&](auto element) { comm.all_reduce(in_place(data.as<decltype(element)>()), reduction{kind}); });
    guarded others(dtype_at(type), count * as_index(comm.size()));
    with_type(type,
              [&](auto element) { comm.all_gather(data.read<decltype(element)>(), others.as<decltype(element)>()); });
    for (int rank = 0; rank < comm.size(); ++rank)
      out.same(data.data(), others.data(as_index(rank) * count), data.type(), count, true);
  });
}

template <class Comm>
void single_values(Comm& comm, report& out, const sweep&) {
  const int n = comm.size();
  out.at("all_reduce of one value");
  out.expect(comm.all_reduce(comm.rank() + 1, shardkit::sum) == n * (n + 1) / 2, "sum of int");
  out.expect(comm.all_reduce(comm.rank() * 0.5, shardkit::maximum) == (n - 1) * 0.5, "maximum of double");
  out.expect(comm.all_reduce(2.5f, shardkit::average) == 2.5f, "average of float");
  out.expect(comm.all_reduce(comm.rank() == n - 1, shardkit::bit_or), "any");
  out.expect(comm.all_reduce(comm.rank() == 0, shardkit::bit_and) == (n == 1), "all");
  const auto small = static_cast<std::int8_t>(comm.rank() - 4);
  out.expect(comm.all_reduce(small, shardkit::minimum) == -4, "minimum of int8");
}

}  // namespace conformance
