// A world divided into named axes: data, pipeline, tensor.
#pragma once

#include <shardkit/comm/communicator.hpp>

#include <cstddef>
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

/// Arranges the ranks of `world` as a grid, the last axis fastest, and makes one communicator along each axis:
///
///     mesh grid(world, {{"data", 2}, {"tensor", 3}});    auto& tensor = grid["tensor"];
///
/// Collective. The names differ and the sizes multiply to world.size(), else usage_error on every rank. The
/// communicators live at stable addresses as long as the mesh.
template <class Communicator>
class mesh {
 public:
  using where = typename Communicator::where;

  mesh(Communicator& world, std::vector<mesh_axis> axes, where w = {}) : axes_(std::move(axes)) {
    require_grid(world, w);
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
  Communicator& operator[](const std::string& axis) { return *communicators_[index(axis)]; }
  /// This rank's place along the axis.
  int coordinate(const std::string& axis) const { return coordinates_[index(axis)]; }
  /// As given, the last one fastest.
  const std::vector<mesh_axis>& axes() const noexcept { return axes_; }

 private:
  void require_grid(Communicator& world, const where& w) const {
    constexpr long long most = std::numeric_limits<long long>::max();
    long long ranks = 1;
    std::string text;
    for (const mesh_axis& axis : axes_) {
      if (axis.size < 1) refuse(world, "axis '" + axis.name + "' has size " + std::to_string(axis.size), w);
      if (&axis != &axes_[index(axis.name)]) refuse(world, "two axes are named '" + axis.name + "'", w);
      ranks = ranks > most / axis.size ? most : ranks * axis.size;
      text += (text.empty() ? "" : " x ") + axis.name + " " + std::to_string(axis.size);
    }
    if (ranks != world.size())
      refuse(world,
             (text.empty() ? "no axis" : text) + " makes " + std::to_string(ranks) + " ranks, the communicator '" +
                 world.name() + "' has " + std::to_string(world.size()),
             w);
  }
  [[noreturn]] static void refuse(Communicator& world, const std::string& message, const where& w) {
    world.fail("mesh: " + message);
    usage_error wrong(message);
    wrong.attach({world.rank(), world.size(), world.name(), "mesh", 0, w.site});
    throw wrong;
  }

  std::size_t index(const std::string& name) const {
    for (std::size_t i = 0; i < axes_.size(); ++i)
      if (axes_[i].name == name) return i;
    throw usage_error("mesh: no axis '" + name + "'");
  }

  std::vector<mesh_axis> axes_;
  std::vector<int> coordinates_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

}  // namespace shardkit
