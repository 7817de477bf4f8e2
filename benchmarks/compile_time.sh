#!/usr/bin/env bash
# Seconds of processor time that a compiler takes for what a program includes: the least of three compilations of each.
#   benchmarks/compile_time.sh [compiler] [mpi compiler]
set -euo pipefail
cd "$(dirname "$0")/.."
compiler=${1:-g++}
mpi_compiler=${2:-mpicxx}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

seconds() {  # of standard input
  cat >"$scratch/program.cpp"
  for _ in 1 2 3; do
    TIMEFORMAT='%U %S'
    { time "$1" -std=c++20 -O2 -DNDEBUG -Iinclude -c "$scratch/program.cpp" -o "$scratch/program.o"; } 2>&1 |
      awk '{printf "%.2f\n", $1 + $2}'
  done | sort -n | head -1
}
row() { echo "| $1 | $2 |"; }

echo "$("$compiler" --version | head -1), -O2"
echo
echo "| program | seconds |"
echo "|---|---|"
use='float reduced(shardkit::thread_communicator& c, float x) { return c.all_reduce(x, shardkit::sum); }'
parts='shardkit::view<const float> mine(shardkit::thread_communicator& c, shardkit::view<const float> x) { return shardkit::split(c, x); }'
row "nothing" "$(echo | seconds "$compiler")"
row "communicators, splits and threads, one all_reduce" "$(printf '%s\n' '#include <shardkit/backends/threads.hpp>' \
  '#include <shardkit/data/split.hpp>' "$use" "$parts" | seconds "$compiler")"
row "the same with run_ranks" "$(printf '%s\n' '#include <shardkit/data/split.hpp>' '#include <shardkit/launch/run_ranks.hpp>' \
  "$use" "$parts" 'int main() { shardkit::run_ranks(2, [](shardkit::thread_communicator& c) { reduced(c, 1); }); }' | seconds "$compiler")"
if command -v "$mpi_compiler" >/dev/null; then
  before=$(printf '%s\n' '#include <mpi.h>' '#include <shardkit/comm/communicator.hpp>' | seconds "$mpi_compiler")
  after=$(printf '%s\n' '#include <mpi.h>' '#include <shardkit/backends/mpi.hpp>' | seconds "$mpi_compiler")
  row "comm/communicator.hpp with mpi.h" "$before"
  row "backends/mpi.hpp" "$after"
  row "what backends/mpi.hpp adds" "$(awk "BEGIN {printf \"%.2f\", $after - $before}")"
fi
for header in memory string variant vector functional thread; do
  row "&lt;$header&gt;" "$(echo "#include <$header>" | seconds "$compiler")"
done
(cd include && find shardkit -name '*.hpp' -not -path '*/detail/*' | sort) | while read -r header; do
  if time=$(echo "#include <$header>" | seconds "$compiler" 2>/dev/null) && [ -f "$scratch/program.o" ]; then row "$header" "$time"; fi
  rm -f "$scratch/program.o"
done
