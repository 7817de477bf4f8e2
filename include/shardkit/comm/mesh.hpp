// A world divided into named axes: data, pipeline, tensor.
#pragma once

#include <shardkit/comm/agreement.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// One axis of a mesh.
struct mesh_axis {
  std::string name;  ///< differs from those of the other axes
  int size;          ///< ranks along it
};

/// Names an axis of a mesh, as a string does, and remembers the line that asks for it.
struct mesh_axis_name {
  std::string name;  ///< of the axis
  call_site site;    ///< of the user's line, for errors

  mesh_axis_name(std::string of, call_site from = call_site::current()) : name(std::move(of)), site(from) {}
  mesh_axis_name(const char* of, call_site from = call_site::current()) : name(of), site(from) {}
};

/// Arranges the ranks of `world` as a grid, the last axis fastest, and makes one communicator along each axis:
///
///     mesh grid(world, {{"data", 2}, {"tensor", 3}});    auto& tensor = grid["tensor"];
///
/// Collective. The names differ and the sizes multiply to world.size(), else usage_error on every rank; all ranks pass
/// the same axes in the same order, else mismatch_error on every rank. The communicators live at stable addresses as
/// long as the mesh.
template <class Communicator>
class mesh {
 public:
  using where = typename Communicator::where;

  mesh(Communicator& world, std::vector<mesh_axis> axes, where w = {})
      : axes_(std::move(axes)), text_(text_of(axes_)), rank_(world.rank()), size_(world.size()), name_(world.name()) {
    require_grid(world, w);
    require_same_axes(world, w);
    int stride = world.size();
    for (const mesh_axis& axis : axes_) {
      stride /= axis.size;
      const int coordinate = world.rank() / stride % axis.size;
      coordinates_.push_back(coordinate);
      // Ranks that differ in this coordinate alone share a colour.
      const int colour = world.rank() - coordinate * stride;
      communicators_.push_back(std::make_unique<Communicator>(world.split(colour, coordinate, axis.name, w)));
    }
  }

  /// The communicator of this rank's line along the axis. Throws usage_error for an unknown name.
  Communicator& operator[](const mesh_axis_name& axis) { return *communicators_[index(axis)]; }
  /// This rank's place along the axis.
  int coordinate(const mesh_axis_name& axis) const { return coordinates_[index(axis)]; }
  /// As given, the last one fastest.
  const std::vector<mesh_axis>& axes() const noexcept { return axes_; }

 private:
  static std::string text_of(const std::vector<mesh_axis>& axes) {
    std::string text;
    for (const mesh_axis& axis : axes)
      text += (text.empty() ? "" : " x ") + axis.name + " " + std::to_string(axis.size);
    return text.empty() ? "no axis" : text;
  }

  void require_grid(Communicator& world, const where& w) const {
    constexpr long long most = std::numeric_limits<long long>::max();
    long long ranks = 1;
    for (std::size_t i = 0; i < axes_.size(); ++i) {
      const mesh_axis& axis = axes_[i];
      if (axis.size < 1) world.reject("mesh", "axis '" + axis.name + "' has size " + std::to_string(axis.size), w);
      if (place_of(axis.name) != i) world.reject("mesh", "two axes are named '" + axis.name + "'", w);
      ranks = ranks > most / axis.size ? most : ranks * axis.size;
    }
    if (ranks != world.size())
      world.reject("mesh",
                   text_ + " makes " + std::to_string(ranks) + " ranks, the communicator '" + world.name() + "' has " +
                       std::to_string(world.size()),
                   w);
  }
  // Other axes would divide the world otherwise, silently: any colours make a split.
  void require_same_axes(Communicator& world, const where& w) const {
    struct told {
      std::uint64_t hash;  // of all of it
      char text[248];      // as much of it as an error shows
    } mine{detail::hash_bytes(1, text_.data(), text_.size()), {}};
    text_.copy(mine.text, sizeof mine.text - 1);
    const std::vector<told> all = world.exchange(mine, w);
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
      if (all[rank].hash == all[0].hash) continue;
      mismatch_error failure("rank " + std::to_string(rank) + " makes a mesh of " + all[rank].text +
                             ", rank 0 one of " + all[0].text + "; pass the same axes in the same order on every rank");
      world.explain(failure, "mesh", w.site);
      throw failure;
    }
  }

  std::size_t place_of(const std::string& name) const noexcept {
    std::size_t place = 0;
    while (place < axes_.size() && axes_[place].name != name) ++place;
    return place;
  }
  std::size_t index(const mesh_axis_name& axis) const {
    const std::size_t place = place_of(axis.name);
    if (place < axes_.size()) return place;
    usage_error wrong("no axis '" + axis.name + "'; this mesh has " + text_);
    wrong.attach({rank_, size_, name_, "mesh", 0, axis.site});
    throw wrong;
  }

  std::vector<mesh_axis> axes_;
  std::string text_;  // the axes, for errors
  int rank_, size_;   // of the world, which need not outlive the mesh, ...
  std::string name_;  // ... and its name
  std::vector<int> coordinates_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

}  // namespace shardkit
