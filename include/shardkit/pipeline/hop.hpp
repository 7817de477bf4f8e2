// What passes between two stages at once: one matrix for each declared port.
#pragma once

#include <shardkit/core/view.hpp>
#include <shardkit/data/participant.hpp>
#include <shardkit/pipeline/detail/hop_layout.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardkit {

namespace detail {
template <class Space>
class hop_slot;
}

/// The matrices of one microbatch or step. Lives in a stage; a reference is good until the stage reuses its slot.
/// A hop that carries nothing (what comes in on the first stage) has 0 rows in every port.
template <class Space = host_space>
class hop {
 public:
  hop(hop&&) = default;

  /// Rows of this microbatch or step; 0 where the hop carries nothing.
  std::size_t rows() const noexcept { return rows_; }

  /// The port's matrix [rows(), row_elements], or [max_rows, row_elements] where its rows are fixed; by index in the
  /// declaration. Throws usage_error where there is no such port, or where T is not its type.
  template <class T>
  matrix_view<T, Space> matrix(std::size_t port, call_site site = call_site::current()) {
    return matrix_of<T>(port, site);
  }
  /// The same by name.
  template <class T>
  matrix_view<T, Space> matrix(std::string_view port, call_site site = call_site::current()) {
    return matrix_of<T>(index_of(port, site), site);
  }
  /// The same, to be read only.
  template <class T>
  matrix_view<const T, Space> matrix(std::size_t port, call_site site = call_site::current()) const {
    return matrix_of<T>(port, site);
  }
  /// The same by name, to be read only.
  template <class T>
  matrix_view<const T, Space> matrix(std::string_view port, call_site site = call_site::current()) const {
    return matrix_of<T>(index_of(port, site), site);
  }

 private:
  friend class detail::hop_slot<Space>;

  hop(std::shared_ptr<const detail::hop_layout> layout, const participant& owner)
      : layout_(std::move(layout)), owner_(owner) {}

  template <class T>
  matrix_view<T, Space> matrix_of(std::size_t index, const call_site& site) const {
    if (index >= layout_->ports().size())
      owner_.reject(
          "hop::matrix",
          "there is no port " + std::to_string(index) + "; declared are " + layout_->describe() + ", counted from 0",
          site);
    const port& wanted = layout_->ports()[index];
    if (wanted.type != dtype_of<T>)
      owner_.reject("hop::matrix",
                    "port '" + wanted.name + "' is declared as " + name_of(wanted.type) + " and asked for as " +
                        name_of(dtype_of<T>),
                    site);
    if (data_ == nullptr) return {nullptr, 0, wanted.row_elements};
    return {reinterpret_cast<T*>(data_ + offsets_[index]), layout_->rows_of(wanted, rows_), wanted.row_elements};
  }

  std::size_t index_of(std::string_view name, const call_site& site) const {
    const std::vector<port>& ports = layout_->ports();
    for (std::size_t i = 0; i < ports.size(); ++i)
      if (ports[i].name == name) return i;
    owner_.reject("hop::matrix", "there is no port '" + std::string(name) + "'; declared are " + layout_->describe(),
                  site);
  }

  std::shared_ptr<const detail::hop_layout> layout_;
  participant owner_;
  std::byte* data_ = nullptr;  // null: carries nothing
  std::size_t rows_ = 0;
  std::vector<std::size_t> offsets_;
};

}  // namespace shardkit
