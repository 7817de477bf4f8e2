#!/usr/bin/env bash
# Runs the commands that the README of an example shows and compares what they print with what it shows.
#
#   run_readme.sh FOLDER PROGRAMS SCRATCH KIND
#
# Each block of `console` is a line `$ command` and its output, maybe several times. KIND is `mpi` for the blocks with
# mpiexec, `single` for the others. Commands run in a copy of FOLDER in which `build` holds the PROGRAMS; torchrun and srun
# are those of launchers/, which set what the real ones set, and mpiexec is the one the programs were built for.
set -u
folder=$(cd "$1" && pwd) programs=$(cd "$2" && pwd) scratch=$3 kind=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

rm -rf "$scratch"
mkdir -p "$scratch/examples"
scratch=$(cd "$scratch" && pwd)
cp -r "$folder" "$scratch/examples/it"
ln -s "$here/../../include" "$scratch/include"
ln -s "$programs" "$scratch/examples/it/build"
cd "$scratch/examples/it" || exit 1
export PATH="$here/launchers:$PATH"

# Runs `command`, which should print `expected`.
check() {
  case "$kind $command" in
    single*mpiexec*) return ;;
    mpi*mpiexec* | single*) ;;
    *) return ;;
  esac
  local printed status
  printed=$(bash -c "$command" 2>"$scratch/errors" </dev/null)
  status=$?
  checked=$((checked + 1))
  if [ "$status" -eq 0 ] && [ "$printed" = "${expected%$'\n'}" ]; then return; fi
  printf '%s/README.md: $ %s\nends with status %d. It is said to print\n%s\nIt prints\n%s\n' "$folder" "$command" "$status" \
    "$expected" "$printed"
  cat "$scratch/errors"
  failed=1
}

checked=0 failed=0 inside=no command='' expected=''
while IFS= read -r line; do
  case "$inside$line" in
    'no```console') inside=yes ;;
    'yes```' | 'yes$ '*)
      if [ -n "$command" ]; then check; fi
      command='' expected=''
      if [ "$line" = '```' ]; then inside=no; else command=${line#\$ }; fi
      ;;
    yes*) expected+=$line$'\n' ;;
  esac
done <"$folder/README.md"

if [ $checked -eq 0 ]; then
  echo "$folder/README.md shows no command to run"
  failed=1
fi
exit $failed
