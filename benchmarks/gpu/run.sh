#!/usr/bin/env bash
# On a machine with a GPU: builds and runs the tests *_gpu, runs them again under compute-sanitizer, and runs the
# benchmarks of this folder; all in under ten minutes and without a network. Prints one report and keeps it in
# build/gpu/report.md. Ends with 0 where everything passed.
#
#   benchmarks/gpu/run.sh
#   benchmarks/gpu/run.sh --dry-run FOLDER    only the benchmarks, small, with the programs that FOLDER holds: ctest
#                                             calls it with those that are linked with the double of CUDA
#
# It needs CMake, a C++20 compiler, the CUDA toolkit, NCCL and doctest; pack.sh packs the last two with the tree, for a
# machine without a network. Two ranks on one GPU also need NCCL 2.30 or newer (on PyPI: nvidia-nccl-cu13), found through
# NCCL_ROOT.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

build=build/gpu
failures=0
fail() {
  failures=$((failures + 1))
  echo "FAILED: $*"
}

# benchmarks FOLDER [OPTION...]: their tables.
benchmarks() {
  local folder=$1 program
  shift
  for program in "gpu_verbs" "gpu_verbs --ranks=2" gpu_copies gpu_reduction gpu_block; do
    printf '\n## %s\n\n' "$program"
    # shellcheck disable=SC2086
    (set -- $program "$@" && name=$1 && shift && NCCL_MULTI_RANK_GPU_ENABLE=1 timeout 180 "$folder/$name" "$@") ||
      fail "$program"
  done
}

machine() {
  printf '# On a GPU\n\n%s; ' "$(date -u +%F)"
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  nvcc --version | grep release
  git describe --always --dirty 2>/dev/null
}

tests() {
  printf '\n## Tests on the GPU\n\n'
  (cd "$build" && ctest -L '^gpu$' -LE '^nightly$' --output-on-failure --timeout 120) || fail "tests on the GPU"
  printf '\n## The same under compute-sanitizer\n\n'
  if ! command -v compute-sanitizer >/dev/null; then
    fail "compute-sanitizer is not in the path"
    return
  fi
  local program
  for program in "$build"/bin/*_gpu; do
    [ -x "$program" ] || continue
    if timeout 150 compute-sanitizer --error-exitcode 9 --log-file "$build/sanitizer.log" "$program" >"$build/program.log" 2>&1
    then echo "clean: $(basename "$program")"
    else
      fail "compute-sanitizer: $(basename "$program")"
      tail -n 20 "$build/sanitizer.log" "$build/program.log"
    fi
  done
}

if [ "${1:-}" = --dry-run ]; then
  benchmarks "${2:?the folder of the programs}" --dry-run
  exit $((failures > 0))
fi

packed=()
if [ -d third_party ]; then
  packed=("-DCMAKE_PREFIX_PATH=$PWD/third_party/doctest")
  export NCCL_ROOT=${NCCL_ROOT:-$PWD/third_party/nccl}
fi

mkdir -p "$build"
{
  machine
  if cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DSHARDKIT_BUILD_EXAMPLES=OFF "${packed[@]}" \
    >"$build/configure.log" 2>&1 &&
    cmake --build "$build" -j "$(nproc)" --target shardkit_gpu >"$build/build.log" 2>&1; then
    benchmarks "$build/bin"
    tests
  else
    fail "the build; see $build/configure.log and $build/build.log"
    tail -n 30 "$build/configure.log" "$build/build.log"
  fi
  printf '\n%s failed\n' "$failures"
  exit $((failures > 0))
} 2>&1 | tee "$build/report.md"
exit "${PIPESTATUS[0]}"
