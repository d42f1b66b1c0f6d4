#!/usr/bin/env bash
# Build the real trees that benchmarks and interop tests read:  trees.sh [TREE...]     (root, mmdebstrap, network)
#
#   debian-12-base   minbase, about 5,000 files and 1,500 directories and links
#   debian-12-dev    compilers, Python, git, Perl, kernel and library headers: at least 60,000 files
#   debian-12-updated  debian-12-base with what has been updated since
#   debian-13-base   minbase of the next release
#
# They go to $FSVIEW_TREES (default: build/trees in this checkout); without arguments the first two are built. A tree
# that has its .done stamp is left alone. Packages come from the mirror in this machine's apt configuration. What
# mmdebstrap made is kept as it is, mtimes too; only /dev is emptied, for a commit holds no devices.
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
trees=${FSVIEW_TREES:-$project/build/trees}
dev_packages=build-essential,autoconf,cmake,git,golang-go,libboost-dev,linux-headers-amd64,manpages-dev,perl-doc
dev_packages+=,python3-dev,python3-full,python3-sphinx,vim
building=

fail() { echo "trees.sh: $*" >&2; exit 1; }

cleanup() {
  [ -n "$building" ] || return 0
  rm -rf --one-file-system "$building"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

main() {
  [ $# -gt 0 ] || set -- debian-12-base debian-12-dev
  mkdir -p "$trees"
  exec 9<"$trees" && flock 9 # two builds at once take turns
  local tree
  for tree in "$@"; do
    [ -e "$trees/$tree.done" ] && continue
    case $tree in
      debian-12-base) build "$tree" bookworm 5000 ;;
      debian-12-updated) build "$tree" bookworm 5000 '' updated ;;
      debian-12-dev) build "$tree" bookworm 60000 "$dev_packages" ;;
      debian-13-base) build "$tree" trixie 4000 ;;
      *) fail "no tree is called $tree; there are debian-12-base, -updated, -dev and debian-13-base" ;;
    esac
  done
}

build() { # NAME SUITE FILES_MIN [PACKAGES [updated]]
  local name=$1 suite=$2 files_min=$3 packages=${4:-} updated=${5:-} log="$trees/$1.log" hook='' files
  local -a sources
  [ "$(id -u)" -eq 0 ] || fail "building $name takes root"
  command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: sudo apt-get install mmdebstrap"
  sources=("deb $(find_mirror debian) $suite main")
  [ -z "$updated" ] || sources+=("deb $(find_mirror debian) $suite-updates main"
    "deb $(find_mirror debian-security) $suite-security main")
  echo "trees.sh: building $trees/$name (its log: $log)" >&2
  rm -rf --one-file-system "${trees:?}/$name"
  building=$(mktemp -d "$trees/.$name.XXXXXX")
  # Debian 12 merges /usr with a package that brings Perl along, unless it finds that done.
  [ "$suite" = bookworm ] && hook=/usr/share/mmdebstrap/hooks/merged-usr
  mmdebstrap --mode=root --variant=minbase ${packages:+--include="$packages"} ${hook:+--hook-dir="$hook"} \
    --aptopt='Acquire::Retries "3"' "$suite" "$building" "${sources[@]}" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; fail "mmdebstrap failed; the whole log is $log"; }
  mountpoint -q "$building/dev" && fail "$building/dev is still a mount"
  find "$building/dev" -mindepth 1 -delete
  files=$(find "$building" -type f -printf . | wc -c)
  [ "$files" -ge "$files_min" ] || fail "$name has $files files, fewer than $files_min"
  mv "$building" "$trees/$name"
  building=
  touch "$trees/$name.done"
}

find_mirror() { # ARCHIVE: the first one of that name that apt knows here, in whichever form it is configured
  local found
  # shellcheck disable=SC2016  # apt-get fills in $(REPO_URI)
  found=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep "/$1/*\$" | head -n 1) || true
  [ -n "$found" ] || fail "no mirror of $1 in the apt configuration (apt-get indextargets lists none)"
  echo "$found"
}

main "$@"
