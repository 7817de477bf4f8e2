#!/usr/bin/env bash
# Instructions per call, raw NCCL against the library, as a table; over libraries whose calls return at once, so that no
# GPU is needed. Needs valgrind and the headers of CUDA and NCCL. The exit status is 1 where the library adds more than
# LIMIT to a call of NCCL's.
#   benchmarks/overhead_nccl.sh [c++] [LIMIT] [folders of headers...]
set -euo pipefail
cd "$(dirname "$0")"
compiler=${1:-c++} limit=${2:-20}
shift $(($# < 2 ? $# : 2))
headers=()
for folder in "${@:-${CUDA_HOME:-/usr/local/cuda}/include}"; do headers+=(-isystem "$folder"); done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for library in cuda nccl; do
  "$compiler" -std=c++20 -O2 -shared -fPIC "${headers[@]}" "../tests/double/stub/$library.cpp" \
    -o "$scratch/libstub_$library.so"
done
"$compiler" -std=c++20 -O2 -DNDEBUG -I../include "${headers[@]}" overhead_nccl.cpp -o "$scratch/overhead" -pthread \
  -L"$scratch" -lstub_nccl -lstub_cuda -ldl -Wl,-rpath,"$scratch" -Wl,-z,now

calls=1000
count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*measured*' \
    "$scratch/overhead" "$1" "$2" "$calls" 2>&1 | awk -v calls="$calls" '/Collected/ {printf "%.1f", $4 / calls}'
}
echo "| call, in a loop | raw NCCL: instructions | shardkit | added |"
echo "|---|---|---|---|"
too_many=0
row() {  # CASE TEXT [NCCL's calls in it]
  local raw ours added
  raw=$(count raw "$1") ours=$(count shardkit "$1")
  added=$(awk "BEGIN {printf \"%.1f\", $ours - $raw}")
  echo "| $2 | $raw | $ours | $added |"
  if awk "BEGIN {exit !($added > $limit * ${3:-1} + 0.5)}"; then too_many=1; fi
}
row all_reduce "all_reduce in place"
row all_reduce_to "all_reduce"
row broadcast "broadcast"
row reduce "reduce"
row reduce_in_place "reduce in place"
row all_gather "all_gather"
row all_gather_in_place "all_gather in place"
row reduce_scatter "reduce_scatter"
row send "send"
row recv "recv"
row barrier "barrier"
row gather "gather (NCCL 2.28)"
row scatter "scatter (NCCL 2.28)"
row all_to_all "all_to_all (NCCL 2.28)"
row send_recv "send_recv, two calls in a group" 2
exit $too_many
