#include <shardkit/shardkit.hpp>
