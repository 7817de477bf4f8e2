// launched_size(): how many processes a launcher says it started, and which environment variable said so. For
// programs without a transport between processes:
//
//   if (const auto started = shardkit::launched_size(); started.size > 1) ...   // refuse, name started.variable
#pragma once

#include <shardkit/comm/detail/launchers.hpp>
