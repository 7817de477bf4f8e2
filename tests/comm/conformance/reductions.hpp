// Cases of the verbs that combine the ranks' elements.
#pragma once

#include "moves.hpp"

#include <vector>

namespace conformance {

using shardkit::by_rank;
using shardkit::reduction;

/// Which verb reduces.
enum class reducing { all_reduce, reduce, reduce_scatter, reduce_scatter_unequal };

template <class T>
std::string reduction_text(reducing verb, reduction op, std::size_t count, bool in_its_place) {
  constexpr const char* names[] = {"all_reduce", "reduce", "reduce_scatter", "unequal reduce_scatter"};
  return text(in_its_place ? "in-place " : "", names[static_cast<int>(verb)], " of ", count, " x ",
              name_of(shardkit::dtype_of<T>), ", ", op.by_rank ? "by_rank " : "", name_of(op.kind));
}

/// Performs one reduction of value(rank, i) and hands check(got, first) the elements [first, first + got.size()) of
/// the result that this rank received.
template <class T, class Comm, class Value, class Check>
void one_reduction(Comm& comm, report& out, reducing verb, reduction op, const partition& layout, bool in_its_place,
                   int root, Value value, Check check) {
  const auto own = [&](std::size_t i) { return value(comm.rank(), i); };
  const auto says = [&] { return reduction_text<T>(verb, op, layout.total(), in_its_place); };
  const bool scatters = verb == reducing::reduce_scatter || verb == reducing::reduce_scatter_unequal;
  const bool receives = verb != reducing::reduce || comm.is_root(root);
  const std::size_t first = scatters ? layout.offset(comm.rank()) : 0;
  const std::size_t count = scatters ? layout.count(comm.rank()) : layout.total();

  guarded<T> in(layout.total(), own), separate(receives ? count : 0);
  const view<T> to = in_its_place ? in.get().subview(first, count) : separate.get();
  switch (verb) {
    case reducing::all_reduce:
      if (in_its_place) comm.all_reduce(in_place(in.get()), op);
      else comm.all_reduce(in.read(), to, op);
      break;
    case reducing::reduce:
      if (in_its_place) comm.reduce(in_place(in.get()), op, root);
      else comm.reduce(in.read(), to, op, root);
      break;
    case reducing::reduce_scatter: comm.reduce_scatter(in.read(), to, op); break;
    case reducing::reduce_scatter_unequal: comm.reduce_scatter(in.read(), to, op, layout); break;
  }
  if (receives) check(view<const T>(to), first);
  if (!in_its_place) out.same(in.get(), own, says);
  out.expect(in.intact() && separate.intact(), says);
}

template <class Comm>
void exact_reductions(Comm& comm, report& out, const sweep& how, reducing verb, std::size_t roots) {
  const auto operations = reducible_operations();
  const std::size_t layouts = verb == reducing::reduce_scatter_unequal ? layout_count : 1;
  visit_grid(how, {operations.size(), sizes.size(), 2, roots, layouts}, [&](const auto& point) {
    const auto [type, kind] = operations[point[0]];
    const std::size_t total = sizes[point[1]] * (verb == reducing::reduce_scatter ? as_index(comm.size()) : 1);
    const auto layout = layout_of(point[4], total, comm.size());
    const std::uint64_t seed = seed_of(point);
    const reduction op{kind, seed % 3 == 0};
    with_type(type, [&](auto element) {
      using T = decltype(element);
      const auto value = [&](int rank, std::size_t i) { return exact_value<T>(op.kind, seed, rank, i); };
      one_reduction<T>(comm, out, verb, op, layout, point[2] == 1, static_cast<int>(point[3]), value,
                       [&](view<const T> got, std::size_t first) {
        out.same(got, [&](std::size_t i) {
          return exact_reduction<T>(op.kind, column<T>(comm.size(), [&](int rank) { return value(rank, first + i); }));
        }, [&] { return reduction_text<T>(verb, op, total, point[2] == 1); });
      });
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
    const auto verb = static_cast<reducing>(point[3]);
    const reduction op{kinds[point[1]], point[4] == 1};
    const std::size_t total = counts[point[2]] * (verb == reducing::reduce_scatter ? as_index(comm.size()) : 1);
    const int root = point[6] == 0 ? 0 : comm.size() - 1;
    const std::uint64_t seed = seed_of(point);
    with_float_type(point[0], [&](auto element) {
      using T = decltype(element);
      const auto value = [&](int rank, std::size_t i) { return wild_value<T>(seed, rank, i); };
      const auto says = [&] { return reduction_text<T>(verb, op, total, point[5] == 1); };
      one_reduction<T>(comm, out, verb, op, layout_of(seed % layout_count * (point[3] == 3), total, comm.size()),
                       point[5] == 1, root, value, [&](view<const T> got, std::size_t first) {
        const auto wanted = [&](std::size_t i) {
          return ordered_reduction<T>(op.kind, column<T>(comm.size(), [&](int rank) { return value(rank, first + i); }));
        };
        if (op.by_rank || how.always_ordered) return out.same(got, wanted, says);
        // Another order differs by a rounding of every partial result.
        const double precision = std::is_same_v<T, double> ? 0x1p-52 : std::is_same_v<T, float> ? 0x1p-23
                                 : std::is_same_v<T, float16> ? 0x1p-10 : 0x1p-7;
        for (std::size_t i = 0; i < got.size(); ++i) {
          double scale = op.kind == reduction_kind::product ? 1 : 0;
          for (T x : column<T>(comm.size(), [&](int rank) { return value(rank, first + i); })) {
            const double size = std::fabs(static_cast<double>(x));
            scale = op.kind == reduction_kind::product ? scale * size : scale + size;
          }
          const double error = std::fabs(static_cast<double>(got[i]) - static_cast<double>(wanted(i)));
          out.expect(error <= scale * precision * comm.size() || got[i] == wanted(i), says);
        }
      });
    });
  });
}

/// Minimum and maximum: NaN where any rank has one, -0 below +0.
template <class Comm>
void special_extremes(Comm& comm, report& out, const sweep& how) {
  constexpr reduction_kind kinds[] = {reduction_kind::minimum, reduction_kind::maximum};
  constexpr std::size_t counts[] = {5, 1000};
  visit_grid(how, {float_type_count, 2, 2, 4, 2, 2}, [&](const auto& point) {
    const auto verb = static_cast<reducing>(point[3]);
    const reduction op{kinds[point[1]], point[4] == 1};
    const std::size_t total = counts[point[2]] * (verb == reducing::reduce_scatter ? as_index(comm.size()) : 1);
    const std::uint64_t seed = seed_of(point);
    with_float_type(point[0], [&](auto element) {
      using T = decltype(element);
      const auto value = [&](int rank, std::size_t i) { return special_value<T>(seed, rank, i); };
      one_reduction<T>(comm, out, verb, op, layout_of(0, total, comm.size()), point[5] == 1, comm.size() - 1, value,
                       [&](view<const T> got, std::size_t first) {
        for (std::size_t i = 0; i < got.size(); ++i) {
          const auto all = column<T>(comm.size(), [&](int rank) { return value(rank, first + i); });
          const auto says = [&] {
            return reduction_text<T>(verb, op, total, point[5] == 1) + text(" gives ", shown(got[i]), " at ", first + i);
          };
          if (any_nan(all)) out.expect(std::isnan(static_cast<double>(got[i])), says);
          else out.same(got.subview(i, 1), [&](std::size_t) { return extreme(op.kind, all); }, says);
        }
      });
    });
  });
}

/// Whatever the values, every rank holds the same bits afterwards.
template <class Comm>
void same_bits_everywhere(Comm& comm, report& out, const sweep& how) {
  const auto operations = reducible_operations();
  visit_grid(how, {operations.size(), 4, 2}, [&](const auto& point) {
    const auto [type, kind] = operations[point[0]];
    const std::size_t count = std::array<std::size_t, 4>{4, 21, 250, 5003}[point[1]];
    const std::uint64_t seed = seed_of(point);
    with_type(type, [&](auto element) {
      using T = decltype(element);
      std::vector<char> bytes(count * sizeof(T));
      const view<T> data(reinterpret_cast<T*>(bytes.data()), count);
      for (std::size_t i = 0; i < count; ++i) {
        T value = any_bits<T>(seed, comm.rank(), i);
        if constexpr (is_float<T>)
          value = point[2] == 0 ? wild_value<T>(seed, comm.rank(), i) : special_value<T>(seed, comm.rank(), i);
        data[i] = value;
      }
      comm.all_reduce(in_place(data), reduction{kind});
      std::uint64_t hash = 14695981039346656037u;
      for (char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 1099511628211u;
      const auto hashes = comm.exchange(hash);
      for (std::uint64_t other : hashes)
        out.expect(other == hash, [&] {
          return reduction_text<T>(reducing::all_reduce, reduction{kind}, count, true) + ": ranks hold different bits";
        });
    });
  });
}

template <class Comm>
void single_values(Comm& comm, report& out, const sweep&) {
  const int n = comm.size();
  out.expect(comm.all_reduce(comm.rank() + 1, shardkit::sum) == n * (n + 1) / 2, [] { return "sum of int"; });
  out.expect(comm.all_reduce(comm.rank() * 0.5, shardkit::maximum) == (n - 1) * 0.5, [] { return "maximum of double"; });
  out.expect(comm.all_reduce(2.5f, shardkit::average) == 2.5f, [] { return "average of float"; });
  out.expect(comm.all_reduce(comm.rank() == n - 1, shardkit::bit_or), [] { return "any"; });
  out.expect(comm.all_reduce(comm.rank() == 0, shardkit::bit_and) == (n == 1), [] { return "all"; });
  const auto small = static_cast<std::int8_t>(comm.rank() - 4);
  out.expect(comm.all_reduce(small, shardkit::minimum) == -4, [] { return "minimum of int8"; });
}

}  // namespace conformance
