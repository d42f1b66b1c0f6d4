#!/usr/bin/env bash
# Two releases of Django, side by side in one mount.
#
# Needs fsview, pip and /dev/fuse; no root. `make demo` sees to all of it. Everything happens in one temporary
# directory, which is removed at the end. Each line that begins with `$` can be typed as it stands.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export LC_ALL=C.UTF-8 TIMEFORMAT='  took %R s'
command -v fsview >/dev/null || PATH="$here/../.venv/bin:$PATH"
command -v fsview >/dev/null || { echo "demo.sh: fsview is not installed; 'make demo' does that too" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/fsview-demo.XXXXXX")

cleanup() {
  local status=$?
  trap - EXIT INT TERM HUP
  cd /
  if mountpoint -q "$work/mnt" 2>/dev/null; then
    fsview umount "$work/mnt" 2>/dev/null || fusermount3 -u -z "$work/mnt" || true
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
  [ "$status" -eq "${2:-0}" ] || { echo "demo.sh: exit status $status, expected ${2:-0}" >&2; exit 1; }
}

say 'Two releases of Django, from the package index, unpacked into plain directories.'
run "cd $work"
run "python3 -m pip download --quiet --disable-pip-version-check --no-deps 'django==5.1.*'"
run "python3 -m pip download --quiet --disable-pip-version-check --no-deps 'django==5.2.*'"
run 'python3 -m zipfile -e [Dd]jango-5.1*.whl django-5.1'
run 'python3 -m zipfile -e [Dd]jango-5.2*.whl django-5.2'

say 'A repository, and each release as a commit under a name of its own. commit prints its checksum.'
run 'fsview init repo'
run 'export FSVIEW_REPO=$PWD/repo'
run "fsview commit -b django/5.1/any -s 'Django 5.1' django-5.1"
run "fsview commit -b django/5.2/any -s 'Django 5.2' django-5.2"
run 'fsview log django/5.2/any'

say 'Mount it: every ref is a directory now. (Refs are symlinks, so commands want the slash at the end.)'
run 'mkdir mnt'
run 'fsview mount repo mnt'
run 'ls mnt/refs/django/'
run 'ls mnt/refs/django/5.2/any/'

say 'What is new? Ask diff, first about the plain directories, then about the mount.'
run 'time diff -rq --no-dereference django-5.1/ django-5.2/ > plain.txt' 1
run 'time diff -rq --no-dereference mnt/refs/django/5.1/any/ mnt/refs/django/5.2/any/ > mount.txt' 1
say 'That was the first look at a new mount. From the second on, the kernel knows the way:'
run 'time diff -rq --no-dereference mnt/refs/django/5.1/any/ mnt/refs/django/5.2/any/ > mount.txt' 1

say 'The mount gave the same answer; diff never opened what is equal in both releases.'
run 'wc -l plain.txt mount.txt'
run "sed -E 's,mnt/refs/django/(5.[12])/any,django-\\1,g' mount.txt | diff - plain.txt && echo same lines"

say 'One file, with the diff that everybody knows.'
run 'diff -u mnt/refs/django/5.1/any/django/__init__.py mnt/refs/django/5.2/any/django/__init__.py' 1

say 'fsview compares checksums and needs no mount for it.'
run 'fsview diff --stat django/5.1/any django/5.2/any | tail -n 8'

say 'A release back on disk: from the mount with cp, or from the repository.'
run 'cp -a mnt/refs/django/5.1/any/ copy-5.1'
run 'fsview checkout django/5.2/any copy-5.2'
run 'diff -r copy-5.1 django-5.1 && diff -r copy-5.2 django-5.2 && echo nothing differs'

say 'That is all.'
run 'fsview umount mnt'
run "cd / && rm -rf $work"
