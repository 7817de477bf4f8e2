#!/usr/bin/env bash
# Instructions and heap allocations per call, raw MPI against the library, as a table. Needs valgrind. The exit status
# is 1 where the library adds more than LIMIT instructions to the all_reduce of an array, with the default deadlines, or
# allocates in any call more than MPI does.
#   benchmarks/overhead.sh [mpicxx | --program=FILE] [calls] [LIMIT]      FILE: overhead.cpp compiled with -O2
set -euo pipefail
cd "$(dirname "$0")"
compiler=${1:-mpicxx} calls=${2:-2000} limit=${3:-16}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
case "$compiler" in
  --program=*) program=${compiler#--program=} ;;
  *)
    program=$scratch/overhead
    "$compiler" -std=c++20 -O2 -DNDEBUG -I../include overhead.cpp -o "$program" -pthread
    ;;
esac

count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured*' \
    "$program" "$1" "$2" "$calls" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; return 1; }
  awk -v calls="$calls" '/Collected/ {i = $4} /allocations_per_call/ {a = $2}
    END {if (i == "" || a == "") exit 1; printf "%.1f %s\n", i / (calls + 1), a}' "$scratch/log"
}
echo "| call | raw: instructions | shardkit | added | raw: allocations | shardkit |"
echo "|---|---|---|---|---|---|"
too_many=()
row() {  # CASE TEXT [most instructions added]
  local raw ours raw_allocations our_allocations added
  raw=$(count raw "$1") ours=$(count shardkit "$1")
  raw_allocations=${raw#* } our_allocations=${ours#* } raw=${raw% *} ours=${ours% *}
  added=$(awk "BEGIN {printf \"%.1f\", $ours - $raw}")
  echo "| $2 | $raw | $ours | $added | $raw_allocations | $our_allocations |"
  if [ -n "${3:-}" ] && awk "BEGIN {exit !($added > $3 + 0.5)}"; then too_many+=("$2 adds $added instructions"); fi
  if awk "BEGIN {exit !($our_allocations > $raw_allocations)}"; then too_many+=("$2 allocates"); fi
}
row all_reduce "all_reduce of an array, in a loop" "$limit"
row traced "the same on a traced communicator with hooks"
row vector "all_reduce of a std::vector, in a loop"
row single "all_reduce alone in a function"
row broadcast "broadcast, in a loop"
row all_gather "all_gather, in a loop"
for verb in reduce reduce_scatter gather scatter all_to_all send_recv barrier; do row "$verb" "$verb, in a loop"; done
for text in "${too_many[@]}"; do echo "TOO MUCH: $text" >&2; done
[ ${#too_many[@]} -eq 0 ]
