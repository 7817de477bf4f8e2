#!/usr/bin/env bash
# Instructions and heap allocations per call, raw MPI against the library, as a table. Needs valgrind.
#   benchmarks/overhead.sh [mpicxx] [calls]
set -euo pipefail
cd "$(dirname "$0")"
compiler=${1:-mpicxx}
calls=${2:-2000}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$compiler" -std=c++20 -O2 -DNDEBUG -I../include overhead.cpp -o "$scratch/overhead" -pthread

count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured*' \
    "$scratch/overhead" "$1" "$2" "$calls" 2>&1 |
    awk -v calls="$calls" '/Collected/ {i = $4} /allocations_per_call/ {a = $2} END {printf "%.1f %s\n", i / (calls + 1), a}'
}
echo "| call | raw: instructions | shardkit | added | raw: allocations | shardkit |"
echo "|---|---|---|---|---|---|"
row() {
  read -r raw raw_allocations < <(count raw "$1")
  read -r ours our_allocations < <(count shardkit "$1")
  echo "| $2 | $raw | $ours | $(awk "BEGIN {printf \"%.1f\", $ours - $raw}") | $raw_allocations | $our_allocations |"
}
row all_reduce "all_reduce of an array, in a loop"
row vector "all_reduce of a std::vector, in a loop"
row single "all_reduce alone in a function"
row broadcast "broadcast, in a loop"
row all_gather "all_gather, in a loop"
for verb in reduce reduce_scatter gather scatter all_to_all send_recv barrier; do row "$verb" "$verb, in a loop"; done
