// Cases of the verbs that move elements between all ranks without combining them.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include "report.hpp"
#include "sweep.hpp"

namespace conformance {

using shardkit::in_place;
using shardkit::partition;

inline std::size_t as_index(int rank) { return static_cast<std::size_t>(rank); }

/// A seed for each point of a grid.
template <std::size_t N>
std::uint64_t seed_of(const std::array<std::size_t, N>& point) {
  std::uint64_t seed = 1;
  for (std::size_t index : point) seed = seed * 31 + index;
  return seed;
}

/// Every rank's part lies at its place.
inline void expect_parts(report& out, guarded& all, std::uint64_t seed, const partition& layout) {
  for (int rank = 0; rank < layout.parts(); ++rank)
    out.holds(all.data(layout.offset(rank)), all.type(), seed, rank, 0, layout.count(rank));
  out.expect(all.intact(), "margin of the output");
}

template <class Comm>
void broadcast(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), as_index(comm.size())}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const std::size_t count = sizes[point[1]];
    const int root = static_cast<int>(point[2]);
    out.at(text("broadcast of ", count, " x ", name_of(type), " from ", root));
    guarded data(type, count, seed_of(point), comm.rank());
    with_type(point[0], [&](auto element) { comm.broadcast(data.as<decltype(element)>(), root); });
    out.holds(data.data(), type, seed_of(point), root, 0, count);
    out.expect(data.intact(), "margin");
  });
}

template <class Comm>
void all_gather(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const std::size_t count = sizes[point[1]];
    const auto layout = partition::balanced(count * as_index(comm.size()), comm.size());
    const bool in_its_place = point[2] == 1;
    out.at(text(in_its_place ? "in-place " : "", "all_gather of ", count, " x ", name_of(type), " each"));
    guarded all(type, layout.total()), mine(type, count, seed_of(point), comm.rank());
    if (in_its_place) fill(all.data(layout.offset(comm.rank())), type, seed_of(point), comm.rank(), 0, count);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      if (in_its_place) comm.all_gather(in_place(all.as<T>()));
      else comm.all_gather(mine.read<T>(), all.as<T>());
    });
    expect_parts(out, all, seed_of(point), layout);
    out.holds(mine.data(), type, seed_of(point), comm.rank(), 0, count);
    out.expect(mine.intact(), "margin of the input");
  });
}

template <class Comm>
void all_gather_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), layout_count, 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const auto layout = layout_of(point[2], sizes[point[1]], comm.size());
    const std::size_t count = layout.count(comm.rank());
    const bool in_its_place = point[3] == 1;
    out.at(text(in_its_place ? "in-place " : "", "unequal all_gather of ", layout.total(), " x ", name_of(type),
                ", layout ", point[2]));
    guarded all(type, layout.total()), mine(type, count, seed_of(point), comm.rank());
    if (in_its_place) fill(all.data(layout.offset(comm.rank())), type, seed_of(point), comm.rank(), 0, count);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      if (in_its_place) comm.all_gather(in_place(all.as<T>()), layout);
      else comm.all_gather(mine.read<T>(), all.as<T>(), layout);
    });
    expect_parts(out, all, seed_of(point), layout);
    out.holds(mine.data(), type, seed_of(point), comm.rank(), 0, count);
    out.expect(mine.intact(), "margin of the input");
  });
}

/// `call` gathers `mine` into `all`; in place means that the root's part lies in `all` already.
template <class Comm, class Call>
void one_gather(Comm& comm, report& out, dtype type, std::uint64_t seed, const partition& layout, bool in_its_place,
                int root, Call call) {
  const std::size_t first = layout.offset(comm.rank()), count = layout.count(comm.rank());
  guarded all(type, comm.is_root(root) ? layout.total() : 0), mine(type, count, seed, comm.rank());
  const bool moves_nothing = in_its_place && comm.is_root(root);
  if (moves_nothing) fill(all.data(first), type, seed, comm.rank(), 0, count);
  call(moves_nothing ? all.data(first) : mine.data(), count, all);
  if (comm.is_root(root)) expect_parts(out, all, seed, layout);
  out.holds(mine.data(), type, seed, comm.rank(), 0, count);
  out.expect(all.intact() && mine.intact(), "margins");
}

template <class Comm>
void gather(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), as_index(comm.size()), 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const auto layout = partition::balanced(sizes[point[1]] * as_index(comm.size()), comm.size());
    const int root = static_cast<int>(point[2]);
    out.at(
        text(point[3] == 1 ? "in-place " : "", "gather of ", sizes[point[1]], " x ", name_of(type), " each to ", root));
    one_gather(comm, out, type, seed_of(point), layout, point[3] == 1, root,
               [&](char* in, std::size_t count, guarded& all) {
                 with_type(point[0], [&](auto element) {
                   using T = decltype(element);
                   comm.gather(view(reinterpret_cast<const T*>(in), count), all.as<T>(), root);
                 });
               });
  });
}

template <class Comm>
void gather_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how.part(2), {type_count, sizes.size(), layout_count, as_index(comm.size()), 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const auto layout = layout_of(point[2], sizes[point[1]], comm.size());
    const int root = static_cast<int>(point[3]);
    out.at(text(point[4] == 1 ? "in-place " : "", "unequal gather of ", layout.total(), " x ", name_of(type),
                ", layout ", point[2], ", to ", root));
    one_gather(comm, out, type, seed_of(point), layout, point[4] == 1, root,
               [&](char* in, std::size_t count, guarded& all) {
                 with_type(point[0], [&](auto element) {
                   using T = decltype(element);
                   comm.gather(view(reinterpret_cast<const T*>(in), count), all.as<T>(), layout, root);
                 });
               });
  });
}

/// `call` scatters `all` to the address given; in place means that the root's part stays in `all`.
template <class Comm, class Call>
void one_scatter(Comm& comm, report& out, dtype type, std::uint64_t seed, const partition& layout, bool in_its_place,
                 int root, Call call) {
  const std::size_t first = layout.offset(comm.rank()), count = layout.count(comm.rank());
  guarded all(type, comm.is_root(root) ? layout.total() : 0, seed, root), mine(type, count);
  char* const to = in_its_place && comm.is_root(root) ? all.data(first) : mine.data();
  call(all, to, count);
  out.holds(to, type, seed, root, first, count);
  out.holds(all.data(), type, seed, root, 0, all.size());
  out.expect(all.intact() && mine.intact(), "margins");
}

template <class Comm>
void scatter(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), as_index(comm.size()), 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const auto layout = partition::balanced(sizes[point[1]] * as_index(comm.size()), comm.size());
    const int root = static_cast<int>(point[2]);
    out.at(text(point[3] == 1 ? "in-place " : "", "scatter of ", sizes[point[1]], " x ", name_of(type), " each from ",
                root));
    one_scatter(comm, out, type, seed_of(point), layout, point[3] == 1, root,
                [&](guarded& all, char* to, std::size_t count) {
                  with_type(point[0], [&](auto element) {
                    using T = decltype(element);
                    comm.scatter(all.read<T>(), view(reinterpret_cast<T*>(to), count), root);
                  });
                });
  });
}

template <class Comm>
void scatter_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how.part(2), {type_count, sizes.size(), layout_count, as_index(comm.size()), 2}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const auto layout = layout_of(point[2], sizes[point[1]], comm.size());
    const int root = static_cast<int>(point[3]);
    out.at(text(point[4] == 1 ? "in-place " : "", "unequal scatter of ", layout.total(), " x ", name_of(type),
                ", layout ", point[2], ", from ", root));
    one_scatter(comm, out, type, seed_of(point), layout, point[4] == 1, root,
                [&](guarded& all, char* to, std::size_t count) {
                  with_type(point[0], [&](auto element) {
                    using T = decltype(element);
                    comm.scatter(all.read<T>(), view(reinterpret_cast<T*>(to), count), layout, root);
                  });
                });
  });
}

template <class Comm>
void all_to_all(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size()}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const std::size_t count = sizes[point[1]], total = count * as_index(comm.size());
    out.at(text("all_to_all of ", count, " x ", name_of(type), " for each"));
    guarded in(type, total, seed_of(point), comm.rank()), got(type, total);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      comm.all_to_all(in.read<T>(), got.as<T>());
    });
    for (int rank = 0; rank < comm.size(); ++rank)
      out.holds(got.data(as_index(rank) * count), type, seed_of(point), rank, as_index(comm.rank()) * count, count);
    out.holds(in.data(), type, seed_of(point), comm.rank(), 0, total);
    out.expect(in.intact() && got.intact(), "margins");
  });
}

/// Elements that rank `from` has for rank `to`.
inline std::size_t exchanged(std::size_t pattern, std::size_t scale, int from, int to, int ranks) {
  switch (pattern) {
    case 0: return to == (from + 1) % ranks ? scale : 0;              // each to one other
    case 1: return to == 0 ? scale + as_index(from) : 0;              // all to one
    case 2: return from == ranks - 1 ? scale : 0;                     // one to all
    default: return draw(pattern, from, as_index(to)) % (scale + 1);  // anything
  }
}
inline constexpr std::size_t exchange_patterns = 5;

template <class Comm>
void all_to_all_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), exchange_patterns}, [&](const auto& point) {
    const dtype type = dtype_at(point[0]);
    const int ranks = comm.size(), me = comm.rank();
    const auto layout = [&](int rank, bool sends) {
      std::vector<std::size_t> counts;
      for (int peer = 0; peer < ranks; ++peer)
        counts.push_back(exchanged(point[2], sizes[point[1]], sends ? rank : peer, sends ? peer : rank, ranks));
      return partition::from_counts(counts);
    };
    const partition to_each = layout(me, true), from_each = layout(me, false);
    out.at(text("unequal all_to_all of ", sizes[point[1]], " x ", name_of(type), ", pattern ", point[2]));
    guarded in(type, to_each.total(), seed_of(point), me), got(type, from_each.total());
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      comm.all_to_all(in.read<T>(), to_each, got.as<T>(), from_each);
    });
    for (int peer = 0; peer < ranks; ++peer)
      out.holds(got.data(from_each.offset(peer)), type, seed_of(point), peer, layout(peer, true).offset(me),
                from_each.count(peer));
    out.holds(in.data(), type, seed_of(point), me, 0, in.size());
    out.expect(in.intact() && got.intact(), "margins");
  });
}

}  // namespace conformance
