// What the double runs for the kernels of the benchmarks: nothing. A dry run looks at the programs, not at values.
#include <double/control.hpp>

namespace {

const bool are_set = [] {
  for (const char* kernel : {"shardkit::detail::over_elements", "shardkit::detail::over_cells"})
    shardkit_double::set_stand_in(kernel,
                                  [](const shardkit_double::kernel_launch&) { return shardkit_double::operation{}; });
  return true;
}();

}  // namespace
