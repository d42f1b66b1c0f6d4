#!/usr/bin/env bash
# A machine's life in one directory: Debian 12, its updates, Debian 13, and back again.
#
#   switch-and-rollback.sh [BASE UPDATED NEXT]    three root trees; made with mmdebstrap if they are not given
#
# Needs root, fsview, bubblewrap and /dev/fuse; without trees mmdebstrap, too, and some minutes. Everything happens in
# one temporary directory, which is removed at the end. Each line that begins with `$` can be typed as it stands.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LC_ALL=C.UTF-8
fail() { echo "switch-and-rollback.sh: $*" >&2; exit 1; }
command -v fsview >/dev/null || PATH="$here/../.venv/bin:$PATH"
command -v fsview >/dev/null || fail "fsview is not installed; 'make setup' does that"
command -v bwrap >/dev/null || fail "bubblewrap is missing: sudo apt-get install bubblewrap"
[ "$(id -u)" -eq 0 ] || fail "deploying root trees with their owners takes root: sudo $0"
[ $# -eq 0 ] || [ $# -eq 3 ] || fail "usage: $0 [BASE UPDATED NEXT]"

work=$(mktemp -d "${TMPDIR:-/tmp}/fsview-switch.XXXXXX")

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

same() { # EXPECTED COMMAND: show a command and what it prints; stop if that is something else
  local found
  printf '$ %s\n' "$2"
  found=$(eval "$2")
  printf '%s\n' "$found"
  [ "$found" = "$1" ] || fail "this should have been: $1"
}

build() { # NAME SUITE [updated]: a minimal root tree from where apt's packages come from here
  local sources=()
  # shellcheck disable=SC2016  # apt-get fills in $(REPO_URI)
  find_mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep "/$1/*\$" | head -n 1; }
  sources=("deb $(find_mirror debian) $2 main")
  [ $# -lt 3 ] || sources+=("deb $(find_mirror debian-security) $2-security main")
  mmdebstrap --quiet --variant=minbase "$2" "$1" "${sources[@]}"
  rm -rf "$1"/dev/*
}

cd "$work"
if [ $# -eq 3 ]; then
  base=$1 updated=$2 next=$3
else
  command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: sudo apt-get install mmdebstrap"
  say 'Three root trees: Debian 12, Debian 12 with its security updates, Debian 13.'
  build base bookworm && build updated bookworm updated && build next trixie
  base=base updated=updated next=next
fi
old_version=$(cat "$base/etc/debian_version") next_version=$(cat "$next/etc/debian_version")
updated_version=$(cat "$updated/etc/debian_version")

say 'Debian 12 is released: a commit, and a ref that names it.'
run 'fsview init repo'
run 'export FSVIEW_REPO=$PWD/repo'
run "fsview commit -b debian/12/amd64/base -s 'Debian 12' --data-version postgresql=15 $base"
run 'mkdir mnt && fsview mount repo mnt'

say 'A machine, or here a directory that stands for one: what it runs, and the /var that all of that shares.'
run 'fsview sysroot init machine --repo repo'
run 'export FSVIEW_SYSROOT=$PWD/machine'
run 'fsview os-init debian'
run 'fsview deploy mnt/refs/debian/12/amd64/base/'
same "$old_version" 'fsview run -- cat /etc/debian_version'

say 'Its administrator changes /etc, and its services write to /var.'
run 'etc=machine/deploy/debian/current/root/etc var=machine/deploy/debian/var'
run "echo 'the web server of the office' > \$etc/motd"
run "echo web1 > \$etc/hostname"
run 'mkdir -p $var/lib/shop && echo "order 1" > $var/lib/shop/orders'
run 'fsview etc-diff'

say 'Updates arrive: the ref moves. What are they?'
run "fsview commit -b debian/12/amd64/base -s 'Debian 12, updated' --data-version postgresql=15 $updated"
run 'diff -rq --no-dereference mnt/refs/debian/12/amd64/base^/ mnt/refs/debian/12/amd64/base/ > changes.txt' 1
run 'wc -l < changes.txt'
run 'fsview packages-diff debian/12/amd64/base^ debian/12/amd64/base | tail -n 8'
run 'fsview upgrade'
same "$updated_version" 'fsview run -- cat /etc/debian_version'
same web1 'fsview run -- cat /etc/hostname'

say 'Debian 13 is released. Its PostgreSQL is newer. Try it first, without touching anything.'
run "fsview commit -b debian/13/amd64/base -s 'Debian 13' --data-version postgresql=17 $next"
same "$next_version" 'fsview run mnt/refs/debian/13/amd64/base/ -- cat /etc/debian_version'
same "$updated_version" 'fsview run -- cat /etc/debian_version'

say 'Switch: one rename, after all else is on the disk. The edits of /etc come along.'
run 'fsview switch --snapshot-var debian/13/amd64/base'
same "$next_version" 'fsview run -- cat /etc/debian_version'
same web1 'fsview run -- cat /etc/hostname'
run 'echo "order 2" >> $var/lib/shop/orders'
run 'fsview status'

say 'Back? PostgreSQL 17 has had its hands on the data in /var, so fsview wants to be told that this is meant.'
run 'fsview rollback' 15
same "$next_version" 'fsview run -- cat /etc/debian_version'
run 'fsview rollback --accept-data-versions'
same "$updated_version" 'fsview run -- cat /etc/debian_version'
same web1 'fsview run -- cat /etc/hostname'

say 'And nothing of /var was lost on the way.'
same "$(printf 'order 1\norder 2')" 'cat $var/lib/shop/orders'
run 'fsview status'

say 'That is all.'
run 'fsview umount mnt'
run "cd / && rm -rf --one-file-system $work"
