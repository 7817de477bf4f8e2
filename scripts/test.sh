#!/usr/bin/env bash
# Builds and runs the tests, after installing what is missing (Debian, Ubuntu). The last line sums up all suites.
#
#   scripts/test.sh             every configuration: default, mpich, tsan, asan
#   scripts/test.sh --quick     the default configuration only
#   scripts/test.sh --only NAME one configuration
#   scripts/test.sh --nightly   with the long tests, in the default configuration
#
# The configurations are those of CMakePresets.json, built in build/<name>.
set -u
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root" || exit 1

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

configurations=(default mpich tsan asan)
nightly=no
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) configurations=(default) ;;
    --only)
      [ $# -ge 2 ] || fail "--only needs one of: ${configurations[*]}"
      configurations=("$2")
      shift
      ;;
    --nightly) nightly=yes ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail "unknown option '$1'; scripts/test.sh --help tells which there are" ;;
  esac
  shift
done

passed=0 failed=0 skipped=0
summary=()   # one line for each configuration
notes=()     # one line for each failure and each skipped test

# count_results NAME LOG STATUS: adds up ctest's lines, one for each test. What could not be run counts as failed
# (ctest's own JUnit file calls it skipped).
count_results() {
  local name=$1 log=$2 status=$3 line test reason bad=0
  while read -r line; do
    case "$line" in
      *' Passed '*) passed=$((passed + 1)) ;;
      *'***Skipped'*)
        skipped=$((skipped + 1))
        test=$(sed -E 's/^[^:]*: ([^ ]+) .*/\1/' <<<"$line")
        reason=$(awk -v test=" Testing: $test" 'index($0, test) { here = 1 } here && /skipped/ { print; exit }' \
          "build/$name/Testing/Temporary/LastTest.log")
        notes+=("SKIPPED $name: $test: $reason")
        ;;
      *)
        bad=$((bad + 1))
        notes+=("FAILED  $name: $(sed -E 's/^[^:]*: //; s/ \.\.+ *\*+/: /' <<<"$line")")
        ;;
    esac
  done < <(grep -E '^ *[0-9]+/[0-9]+ Test +#[0-9]+: ' "$log")
  if [ "$status" -ne 0 ] && [ $bad -eq 0 ]; then
    bad=1
    notes+=("FAILED  $name: ctest ended with $status")
  fi
  failed=$((failed + bad))
}

# run_configuration NAME "TARGETS" [CMAKE OPTIONS...] -- [CTEST OPTIONS...]: configures, builds and tests build/NAME.
run_configuration() {
  local name=$1 targets=$2 options=() before_failed=$failed before_passed=$passed started=$SECONDS
  shift 2
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  local log="build/$name/ctest.log"

  say "$name: configuring"
  if cmake --preset "$name" "${options[@]}"; then
    say "$name: building"
    # As much as can be built: the tests of the rest shall run.
    # shellcheck disable=SC2086
    if ! cmake --build "build/$name" -j "$(cores)" --target $targets -- -k 0; then
      failed=$((failed + 1))
      notes+=("FAILED  $name: the build failed")
    fi
    say "$name: testing"
    rm -f "$log"
    # shellcheck disable=SC2086
    (cd "build/$name" && ${test_wrapper:-} ctest -j "$(cores)" --output-on-failure --no-tests=error "$@" 2>&1) |
      tee "$log"
    count_results "$name" "$log" "${PIPESTATUS[0]}"
  else
    failed=$((failed + 1))
    notes+=("FAILED  $name: the configuration failed")
  fi
  summary+=("$(printf '%-8s %4d passed %4d failed %6d s' "$name" $((passed - before_passed)) \
    $((failed - before_failed)) $((SECONDS - started)))")
}

packages=(g++ gcc cmake ninja-build ccache pkg-config doctest-dev nlohmann-json3-dev libcli11-dev libopenblas-dev
  libopenmpi-dev openmpi-bin python3 python3-venv)
for name in "${configurations[@]}"; do
  case "$name" in
    mpich) packages+=(mpich libmpich-dev) ;;
    default) packages+=(doxygen) ;;
    tsan | asan) packages+=(clang-19 libclang-rt-19-dev) ;;
    *) fail "there is no configuration '$name'" ;;
  esac
done
if [ $nightly = yes ]; then packages+=(clang-19 libclang-rt-19-dev clang-tidy-19 clang-tools-19); fi  # fuzzers, tidy, style
need_packages "${packages[@]}"
use_ccache

no_nightly=(-LE '^nightly$')
for name in "${configurations[@]}"; do
  case "$name" in
    default)
      fetch_tools
      options=()
      # The alternatives system may have made another MPI the default one.
      if command -v mpicc.openmpi >/dev/null; then options+=(-DMPI_EXECUTABLE_SUFFIX=.openmpi); fi
      if [ $nightly = yes ]; then
        run_configuration default "all shardkit_tests_nightly" "${options[@]}" --
      else
        run_configuration default all "${options[@]}" -- "${no_nightly[@]}"
      fi
      ;;
    mpich) run_configuration mpich shardkit_tests_mpi -- -L '^mpi$' "${no_nightly[@]}" ;;
    tsan)
      # Address space randomisation can be too wide for ThreadSanitizer; where it may be switched off, it is.
      test_wrapper=
      if setarch -R true 2>/dev/null; then test_wrapper="setarch -R"; fi
      # Not under MPI: its libraries are not built for it.
      run_configuration tsan shardkit_tests_threads -- -L '^threads$' -LE '^(nightly|mpi)$'
      test_wrapper=
      ;;
    asan)
      # Misuses and headers too: Clang has its own words for them. One core for all, or four ranks over MPI, adds
      # schedules, which are ThreadSanitizer's; a second jitter of the double, too.
      run_configuration asan "shardkit_tests_single shardkit_tests_mpi shardkit_tests_headers" -- \
        -LE '^(nightly|package|python|examples|docs|style)$' -E '^faults_one_core[.]|[.](ranks_4|jitter_2)$'
      ;;
  esac
done

say "results"
printf '%s\n' "${summary[@]}"
if [ ${#notes[@]} -gt 0 ]; then printf '%s\n' "${notes[@]}"; fi
if [ $skipped -gt 0 ]; then skips=", $skipped skipped"; fi
printf '%d passed, %d failed%s\n' $passed $failed "${skips:-}"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
