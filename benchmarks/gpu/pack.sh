#!/usr/bin/env bash
# Packs what is committed, doctest and NCCL into one archive, for a machine with a GPU and the CUDA toolkit, but without
# a network:
#
#   benchmarks/gpu/pack.sh shardkit-gpu.tar                     # here
#   tar xf shardkit-gpu.tar && shardkit/benchmarks/gpu/run.sh   # there
#
# NCCL is that below NCCL_ROOT, or else the newest on PyPI (nvidia-nccl-cu13, 300 MB; needs pip and unzip).
set -eu
archive=$(realpath -m "${1:?the archive to write, such as shardkit-gpu.tar}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
carried=$parts/shardkit/third_party
mkdir -p "$carried/nccl"
git archive --prefix=shardkit/ HEAD | tar x -C "$parts"

# doctest, where CMake finds it: the header, and the files by which CMake finds it there.
cmake -S . -B "$parts/build" -DSHARDKIT_BUILD_EXAMPLES=OFF >"$parts/configure.log" 2>&1 || {
  tail -n 30 "$parts/configure.log" >&2
  exit 1
}
package=$(sed -n 's/^doctest_DIR:PATH=//p' "$parts/build/CMakeCache.txt")
prefix=${package%/lib*/cmake/doctest}
[ "$prefix" != "$package" ] || {
  echo "doctest is at '$package'; install it as its CMake files do, with lib/cmake/doctest" >&2
  exit 1
}
mkdir -p "$carried/doctest${package#"$prefix"}" "$carried/doctest/include"
cp -rL "$package/." "$carried/doctest${package#"$prefix"}"
cp -rL "$prefix/include/doctest" "$carried/doctest/include"

if [ -n "${NCCL_ROOT:-}" ]; then
  mkdir -p "$carried/nccl/include" "$carried/nccl/lib"
  cp -L "$NCCL_ROOT"/include/nccl*.h "$carried/nccl/include"
  library=$(find "$NCCL_ROOT/" -name libnccl.so.2 | head -n 1)
  cp -L "${library:?there is no libnccl.so.2 below $NCCL_ROOT}" "$carried/nccl/lib"
else
  python3 -m pip download --quiet --no-deps --dest "$parts" nvidia-nccl-cu13
  unzip -q "$parts"/nvidia_nccl_cu13-*.whl 'nvidia/nccl/*' -d "$parts"
  cp -r "$parts"/nvidia/nccl/include "$parts"/nvidia/nccl/lib "$carried/nccl"
fi

tar cf "$archive" -C "$parts" shardkit
echo "wrote $archive"
