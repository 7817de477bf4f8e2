# Shell functions shared by the scripts beside it. Source it: . "$(dirname "$0")/lib.sh"
# It sets `root`, the repository.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# say TEXT: a line of progress.
say() { printf '\n== %s\n' "$*"; }

# fail TEXT: ends the script with a reason.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# cores: how many jobs to run at once.
cores() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2; }

# need_packages NAME...: installs what is missing of these Debian packages. Where it cannot (another system, not
# root and no sudo), it says what to install and ends. SHARDKIT_PACKAGES=assume skips the check.
need_packages() {
  if [ "${SHARDKIT_PACKAGES:-}" = assume ]; then return; fi
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    fail "this system has no apt. Install the equivalents of these Debian packages, then run again with
SHARDKIT_PACKAGES=assume in the environment:
  $*"
  fi
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
  done
  if [ ${#missing[@]} -eq 0 ]; then return; fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    # Without a terminal nobody can type a password.
    if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
      as_root=(sudo)
    else
      fail "packages are missing and this user may not install them. Run this as root, then try again:
  apt-get update && apt-get install ${missing[*]}"
    fi
  fi
  say "installing ${missing[*]}"
  "${as_root[@]}" apt-get update -q || fail "apt-get update failed"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install: ${missing[*]}"
}

# use_ccache: lets CMake compile through ccache where it is installed, sharing objects between checkouts.
use_ccache() {
  if ! command -v ccache >/dev/null; then return; fi
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_C_COMPILER_LAUNCHER=ccache
  export CCACHE_BASEDIR="$root" CCACHE_NOHASHDIR=1
}

# fetch_tools: puts the programs of tools.txt into a folder, SHARDKIT_TOOLS, once. Without network the tests that run
# them are skipped.
fetch_tools() {
  local tools="${XDG_CACHE_HOME:-$HOME/.cache}/shardkit/tools"
  if ! cmp -s "$root/scripts/tools.txt" "$tools/tools.txt"; then
    say "fetching the tools of scripts/tools.txt into $tools"
    if ! { python3 -m venv "$tools" && "$tools/bin/python" -m pip install -q -r "$root/scripts/tools.txt"; }; then
      echo "they cannot be fetched; tests that need them are skipped"
      return
    fi
    cp "$root/scripts/tools.txt" "$tools/"
  fi
  export SHARDKIT_TOOLS="$tools/bin"
}
