#!/usr/bin/env bash
# Debian 12 and Debian 13, two whole root trees, side by side in one mount.
#
# Needs root, mmdebstrap (apt-get install mmdebstrap), fsview and /dev/fuse. Packages come from the mirror in this
# machine's apt configuration, else from Debian's own. Takes some minutes, nearly all of them mmdebstrap's. Everything
# happens in one temporary directory (about 700 MB), which is removed at the end. Each line that begins with `$` can
# be typed as it stands.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LC_ALL=C.UTF-8 TIMEFORMAT='  took %R s'
fail() { echo "debian-releases.sh: $*" >&2; exit 1; }
command -v fsview >/dev/null || PATH="$here/../.venv/bin:$PATH"
command -v fsview >/dev/null || fail "fsview is not installed; 'make setup' does that"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: sudo apt-get install mmdebstrap"
[ "$(id -u)" -eq 0 ] || fail "making root trees with their owners takes root: sudo $0"

# Whichever form apt is configured in here, it says itself where its packages come from.
# shellcheck disable=SC2016  # apt-get fills in $(REPO_URI)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1) || true

work=$(mktemp -d "${TMPDIR:-/tmp}/fsview-debian.XXXXXX")

cleanup() {
  local status=$?
  trap - EXIT INT TERM HUP
  cd /
  if mountpoint -q "$work/mnt" 2>/dev/null; then
    fsview umount "$work/mnt" 2>/dev/null || umount --lazy "$work/mnt" || true
  fi
  rm -rf --one-file-system "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { printf '\n# %s\n' "$@"; }

run() { # COMMAND [STATUS]: show a command, run it, and stop if it ends with another status (0)
  local status=0
  printf '$ %s\n' "$1"
  eval "$1" || status=$?
  [ "$status" -eq "${2:-0}" ] || fail "exit status $status, expected ${2:-0}"
}

say 'Two minimal root trees.'
run "cd $work"
for suite in bookworm trixie; do
  run "mmdebstrap --quiet --variant=minbase $suite $suite $mirror"
done

say 'Each as a commit. A commit holds no device nodes, so /dev goes first (a booting kernel fills it anyway).'
run 'rm -r bookworm/dev/* trixie/dev/*'
run 'fsview init repo'
run 'export FSVIEW_REPO=$PWD/repo'
run "time fsview commit -b debian/12/amd64/base -s 'Debian 12, minbase' bookworm"
run "time fsview commit -b debian/13/amd64/base -s 'Debian 13, minbase' trixie"
run 'fsview refs'

say 'Mount it: every ref is a directory now. (Refs are symlinks, so commands want the slash at the end.)'
run 'mkdir mnt'
run 'fsview mount repo mnt'
run 'ls mnt/refs/debian/13/amd64/base/'
run 'cat mnt/refs/debian/12/amd64/base/etc/debian_version mnt/refs/debian/13/amd64/base/etc/debian_version'

say 'What changed between the releases? Ask diff, first about the plain trees, then about the mount.'
run 'time diff -rq --no-dereference bookworm/ trixie/ > plain.txt' 1
run 'time diff -rq --no-dereference mnt/refs/debian/12/amd64/base/ mnt/refs/debian/13/amd64/base/ > mount.txt' 1

say 'The mount gave the same answer.'
run 'wc -l plain.txt mount.txt'
run "sed 's,mnt/refs/debian/12/amd64/base,bookworm,g; s,mnt/refs/debian/13/amd64/base,trixie,g' mount.txt | diff - plain.txt && echo same lines"

say 'One configuration file, and a program whose owner and mode matter.'
run 'diff -u mnt/refs/debian/12/amd64/base/etc/os-release mnt/refs/debian/13/amd64/base/etc/os-release' 1
run 'fsview ls debian/13/amd64/base /usr/bin/passwd'

say 'fsview compares checksums and needs no mount for it.'
run 'fsview diff --stat debian/12/amd64/base debian/13/amd64/base | tail -n 8'

say 'That is all.'
run 'fsview umount mnt'
run "cd / && rm -rf --one-file-system $work"
