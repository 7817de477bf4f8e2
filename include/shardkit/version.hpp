// The version of the library. CMake reads it from here.
#pragma once

#define SHARDKIT_VERSION_MAJOR 0
#define SHARDKIT_VERSION_MINOR 1
#define SHARDKIT_VERSION_PATCH 0

/// One number to compare: 10203 is version 1.2.3.
#define SHARDKIT_VERSION (SHARDKIT_VERSION_MAJOR * 10000 + SHARDKIT_VERSION_MINOR * 100 + SHARDKIT_VERSION_PATCH)
