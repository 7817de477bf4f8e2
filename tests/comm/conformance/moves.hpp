// Cases of the verbs that move elements between all ranks without combining them.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include "report.hpp"
#include "sweep.hpp"

namespace conformance {

using shardkit::in_place;
using shardkit::partition;
using shardkit::view;

inline std::size_t as_index(int rank) { return static_cast<std::size_t>(rank); }

/// Number of the grid point, as the seed of its elements.
inline std::uint64_t seed_of(const std::size_t* point, std::size_t n) {
  std::uint64_t seed = 1;
  for (std::size_t i = 0; i < n; ++i) seed = seed * 31 + point[i];
  return seed;
}
template <std::size_t N>
std::uint64_t seed_of(const std::array<std::size_t, N>& point) {
  return seed_of(point.data(), N);
}

/// Element i of rank r's part, r found by the layout of all parts.
template <class T>
auto parts_of_ranks(std::uint64_t seed, const partition& layout) {
  return [seed, layout](std::size_t i) {
    const int owner = layout.owner(i);
    return any_bits<T>(seed, owner, i - layout.offset(owner));
  };
}

template <class Comm>
void broadcast(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), as_index(comm.size())}, [&](const auto& point) {
    const std::size_t count = sizes[point[1]];
    const int root = static_cast<int>(point[2]);
    const std::uint64_t seed = seed_of(point);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      const auto says = [&] { return text("broadcast of ", count, " x ", name_of(shardkit::dtype_of<T>), " from ", root); };
      guarded<T> data(count, [&](std::size_t i) { return any_bits<T>(seed, comm.rank(), i); });
      comm.broadcast(data.get(), root);
      out.same(data.get(), [&](std::size_t i) { return any_bits<T>(seed, root, i); }, says);
      out.expect(data.intact(), says);
    });
  });
}

/// One all_gather by a layout; equal parts go through the verb for equal counts where `equal` says so.
template <class T, class Comm>
void one_all_gather(Comm& comm, report& out, std::uint64_t seed, const partition& layout, bool equal, bool in_its_place) {
  const auto says = [&] {
    return text(equal ? "equal" : "unequal", in_its_place ? " in-place" : "", " all_gather of ", layout.total(), " x ",
                name_of(shardkit::dtype_of<T>));
  };
  const std::size_t first = layout.offset(comm.rank()), count = layout.count(comm.rank());
  const auto own = [&](std::size_t i) { return any_bits<T>(seed, comm.rank(), i); };
  guarded<T> all(layout.total()), mine(count, own);
  if (in_its_place) {
    for (std::size_t i = 0; i < count; ++i) all.get()[first + i] = own(i);
    if (equal) comm.all_gather(in_place(all.get()));
    else comm.all_gather(in_place(all.get()), layout);
  } else {
    if (equal) comm.all_gather(mine.read(), all.get());
    else comm.all_gather(mine.read(), all.get(), layout);
  }
  out.same(all.get(), parts_of_ranks<T>(seed, layout), says);
  out.same(mine.get(), own, says);
  out.expect(all.intact() && mine.intact(), says);
}

template <class Comm>
void all_gather(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), 2}, [&](const auto& point) {
    const auto layout = partition::balanced(sizes[point[1]] * as_index(comm.size()), comm.size());
    with_type(point[0], [&](auto element) {
      one_all_gather<decltype(element)>(comm, out, seed_of(point), layout, true, point[2] == 1);
    });
  });
}

template <class Comm>
void all_gather_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), layout_count, 2}, [&](const auto& point) {
    const auto layout = layout_of(point[2], sizes[point[1]], comm.size());
    with_type(point[0], [&](auto element) {
      one_all_gather<decltype(element)>(comm, out, seed_of(point), layout, false, point[3] == 1);
    });
  });
}

template <class T, class Comm>
void one_gather(Comm& comm, report& out, std::uint64_t seed, const partition& layout, bool equal, bool in_its_place,
                int root) {
  const auto says = [&] {
    return text(equal ? "equal" : "unequal", in_its_place ? " in-place" : "", " gather of ", layout.total(), " x ",
                name_of(shardkit::dtype_of<T>), " to ", root);
  };
  const std::size_t first = layout.offset(comm.rank()), count = layout.count(comm.rank());
  const auto own = [&](std::size_t i) { return any_bits<T>(seed, comm.rank(), i); };
  guarded<T> all(comm.is_root(root) ? layout.total() : 0), mine(count, own);
  view<const T> in = mine.read();
  if (in_its_place && comm.is_root(root)) {
    const auto place = all.get().subview(first, count);
    for (std::size_t i = 0; i < count; ++i) place[i] = own(i);
    in = place;
  }
  if (equal) comm.gather(in, all.get(), root);
  else comm.gather(in, all.get(), layout, root);
  if (comm.is_root(root)) out.same(all.get(), parts_of_ranks<T>(seed, layout), says);
  out.same(mine.get(), own, says);
  out.expect(all.intact() && mine.intact(), says);
}

template <class Comm>
void gather(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), as_index(comm.size()), 2}, [&](const auto& point) {
    const auto layout = partition::balanced(sizes[point[1]] * as_index(comm.size()), comm.size());
    with_type(point[0], [&](auto element) {
      one_gather<decltype(element)>(comm, out, seed_of(point), layout, true, point[3] == 1, static_cast<int>(point[2]));
    });
  });
}

template <class Comm>
void gather_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how.part(2), {type_count, sizes.size(), layout_count, as_index(comm.size()), 2}, [&](const auto& point) {
    const auto layout = layout_of(point[2], sizes[point[1]], comm.size());
    with_type(point[0], [&](auto element) {
      one_gather<decltype(element)>(comm, out, seed_of(point), layout, false, point[4] == 1, static_cast<int>(point[3]));
    });
  });
}

template <class T, class Comm>
void one_scatter(Comm& comm, report& out, std::uint64_t seed, const partition& layout, bool equal, bool in_its_place,
                 int root) {
  const auto says = [&] {
    return text(equal ? "equal" : "unequal", in_its_place ? " in-place" : "", " scatter of ", layout.total(), " x ",
                name_of(shardkit::dtype_of<T>), " from ", root);
  };
  const std::size_t first = layout.offset(comm.rank()), count = layout.count(comm.rank());
  const auto whole = [&](std::size_t i) { return any_bits<T>(seed, root, i); };
  guarded<T> all(comm.is_root(root) ? layout.total() : 0, whole), mine(count);
  view<T> to = mine.get();
  if (in_its_place && comm.is_root(root)) to = all.get().subview(first, count);
  if (equal) comm.scatter(all.read(), to, root);
  else comm.scatter(all.read(), to, layout, root);
  out.same(to, [&](std::size_t i) { return whole(first + i); }, says);
  out.same(all.get(), whole, says);
  out.expect(all.intact() && mine.intact(), says);
}

template <class Comm>
void scatter(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), as_index(comm.size()), 2}, [&](const auto& point) {
    const auto layout = partition::balanced(sizes[point[1]] * as_index(comm.size()), comm.size());
    with_type(point[0], [&](auto element) {
      one_scatter<decltype(element)>(comm, out, seed_of(point), layout, true, point[3] == 1, static_cast<int>(point[2]));
    });
  });
}

template <class Comm>
void scatter_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how.part(2), {type_count, sizes.size(), layout_count, as_index(comm.size()), 2}, [&](const auto& point) {
    const auto layout = layout_of(point[2], sizes[point[1]], comm.size());
    with_type(point[0], [&](auto element) {
      one_scatter<decltype(element)>(comm, out, seed_of(point), layout, false, point[4] == 1, static_cast<int>(point[3]));
    });
  });
}

template <class Comm>
void all_to_all(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size()}, [&](const auto& point) {
    const std::size_t count = sizes[point[1]], ranks = as_index(comm.size());
    const std::uint64_t seed = seed_of(point);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      const auto says = [&] { return text("all_to_all of ", count, " x ", name_of(shardkit::dtype_of<T>), " for each"); };
      const auto own = [&](std::size_t i) { return any_bits<T>(seed, comm.rank(), i); };
      guarded<T> in(count * ranks, own), got(count * ranks);
      comm.all_to_all(in.read(), got.get());
      out.same(got.get(), [&](std::size_t i) {
        return any_bits<T>(seed, static_cast<int>(i / count), as_index(comm.rank()) * count + i % count);
      }, says);
      out.same(in.get(), own, says);
      out.expect(in.intact() && got.intact(), says);
    });
  });
}

/// Elements that rank `from` has for rank `to`.
inline std::size_t exchanged(std::size_t pattern, std::size_t scale, int from, int to, int ranks) {
  switch (pattern) {
    case 0: return to == (from + 1) % ranks ? scale : 0;           // each to one other
    case 1: return to == 0 ? scale + as_index(from) : 0;           // all to one
    case 2: return from == ranks - 1 ? scale : 0;                  // one to all
    default: return draw(pattern, from, as_index(to)) % (scale + 1);  // anything
  }
}
inline constexpr std::size_t exchange_patterns = 5;

template <class Comm>
void all_to_all_unequal(Comm& comm, report& out, const sweep& how) {
  visit_grid(how, {type_count, sizes.size(), exchange_patterns}, [&](const auto& point) {
    const int ranks = comm.size(), me = comm.rank();
    const auto layout = [&](int rank, bool sends) {
      std::vector<std::size_t> counts;
      for (int peer = 0; peer < ranks; ++peer)
        counts.push_back(sends ? exchanged(point[2], sizes[point[1]], rank, peer, ranks)
                               : exchanged(point[2], sizes[point[1]], peer, rank, ranks));
      return partition::from_counts(counts);
    };
    const partition to_each = layout(me, true), from_each = layout(me, false);
    const std::uint64_t seed = seed_of(point);
    with_type(point[0], [&](auto element) {
      using T = decltype(element);
      const auto says = [&] {
        return text("unequal all_to_all of ", sizes[point[1]], " x ", name_of(shardkit::dtype_of<T>), ", pattern ", point[2]);
      };
      const auto own = [&](std::size_t i) { return any_bits<T>(seed, me, i); };
      guarded<T> in(to_each.total(), own), got(from_each.total());
      comm.all_to_all(in.read(), to_each, got.get(), from_each);
      for (int peer = 0; peer < ranks; ++peer) {
        const std::size_t first = layout(peer, true).offset(me);
        out.same(got.get().subview(from_each.offset(peer), from_each.count(peer)),
                 [&](std::size_t i) { return any_bits<T>(seed, peer, first + i); }, says);
      }
      out.same(in.get(), own, says);
      out.expect(in.intact() && got.intact(), says);
    });
  });
}

}  // namespace conformance
