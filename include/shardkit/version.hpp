// The version of the library. It stands here alone: CMake and the Conan recipe read it from this file.
#pragma once

/// Grows when what programs see has changed.
#define SHARDKIT_VERSION_MAJOR 0
/// Grows when something was added, before 1.0 also when it has changed.
#define SHARDKIT_VERSION_MINOR 1
/// Grows when something was only mended.
#define SHARDKIT_VERSION_PATCH 0

/// One number to compare: 10203 is version 1.2.3.
#define SHARDKIT_VERSION (SHARDKIT_VERSION_MAJOR * 10000 + SHARDKIT_VERSION_MINOR * 100 + SHARDKIT_VERSION_PATCH)

#define SHARDKIT_TEXT(x) #x
#define SHARDKIT_VERSION_TEXT(major, minor, patch) \
  SHARDKIT_TEXT(major) "." SHARDKIT_TEXT(minor) "." SHARDKIT_TEXT(patch)

namespace shardkit {

/// The version as text, such as "1.2.3", to print or to write into a log.
inline constexpr const char* version =
    SHARDKIT_VERSION_TEXT(SHARDKIT_VERSION_MAJOR, SHARDKIT_VERSION_MINOR, SHARDKIT_VERSION_PATCH);

}  // namespace shardkit

#undef SHARDKIT_VERSION_TEXT
#undef SHARDKIT_TEXT
