"""`fsview mount` and `fsview umount`: show a repository as directories, and stop showing it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tools.parameters import POINT, REPO_OPTION, REVISION, located_repository, trust_owners
from tools.state import state_directory

if TYPE_CHECKING:
    from fsview.options import MountOptions

MOUNT_EXAMPLES = """\b
Examples:
  fsview mount /srv/releases /mnt/releases
  fsview mount --root debian/12:/usr /srv/releases /mnt/usr
  ls /mnt/releases/refs/debian/12/amd64/base/
  diff -r /mnt/releases/refs/debian/12/amd64/base/ /mnt/releases/refs/debian/13/amd64/base/
  head /mnt/releases/versions/debian/12/amd64/base/etc/os-release/*
  fsview umount /mnt/releases

\b
In it are:
  commits/CHECKSUM/    the tree of each commit; a beginning of the checksum will do, though it is not listed
  refs/REF             a symlink to the commit. Mind the slash behind it: 'find refs/x/', 'du refs/x/'
  refs/REF^  REF~2  'REF@{1}'  'REF@{2026-11-01}'    not listed, but there
  remotes/REMOTE/REF   the same for the refs of a remote
  history/REF/         the ref's commits, by names that sort by time: 2026-11-23T101500Z-1a2b3c4d
  by-date/2026/11/23/  all commits of a day (UTC), by the same names
  versions/REF/PATH/   each different file that was at PATH in the ref's history; also where it is gone by now
  info/CHECKSUM/       subject, body, timestamp, metadata/, refs, signatures, commit.json; parent and tree are symlinks
  .fsview/             of the mount itself: stats.json, metrics (for Prometheus), repository, version

\b
-o takes, with commas between them:
  allow_other            users other than you see it, too, as far as modes and owners let them
  default_permissions    modes and owners bind you, too
  place-inodes           equal files are files of their own: needed below an overlay that is written to;
                         place-inodes=stat: also by their st_ino, as fuse-overlayfs needs
  owner=me               everything is yours, and you may read what its owner root could; for who is not root
  uid=N, gid=N           everything belongs to these; modes are as committed
  suid, dev, noexec      set-user-ID programs and devices work (root only); no program does
  root=, verify=, workers=    as the options of these names, for fstab
  trust-owner=USER       the repository may be this user's, as with fsview --trust-owner
Those that every file system has, as ro, noatime, nofail and x-systemd.automount, are accepted.

POSIX ACLs are heeded with allow_other and default_permissions, and in kernel overlays over a view that root mounted
with place-inodes or --kernel-reads. Other views only show them, and let nobody in but who mounted. uid= and gid= say
who the owner and the owning group of an ACL are; users and groups that it names stay as committed. With owner=me an ACL
gives nobody more than everybody has, unless your group is the one that owned the file.

\b
MNT with --root REV:/PATH is that directory, and stays it when REV moves. 'fsview log MNT/etc' works there, too.

With --kernel-reads, an overlay over the view sends reads of files of more than 16 KiB straight to REPO/objects: as
fast as a plain directory, from the same page cache. Given up for that: no such read is checked against damage (run
'fsview fsck'), and equal files of two commits no longer show the same inode number. It takes root and Linux 6.6.

The server logs to $XDG_STATE_HOME/fsview/, ~/.local/state/fsview/ if that is not set (in your own home, also where sudo
leaves you another user's): one file for each mount point, named after it. With -f it logs to stderr. Started by systemd
it logs to the journal.
"""

UMOUNT_EXAMPLES = """\b
Examples:
  fsview umount /mnt/releases
  fsview umount -l /mnt/releases    though a process still has its working directory there
"""

_TRUST: Final = "trust-owner="
_LOG_NAME_MAX: Final = 200


def mount(
    repository: Path, point: Path, options: MountOptions, *, log_path: Path | None, place: int | None = None
) -> None:  # fmt: skip
    """Mount *repository* at *point*; return when the view answers or, with no *log_path*, when it has ended.

    *place*: the directory *point*, open; root then mounts there, and nowhere else.

    Raises:
        MountError: what is in the way, and how to mend it.
        NotFoundError, FormatError: it is no repository, or not one that this program can read.
    """
    from fsview.background import start
    from fsview.log import log_to_stderr
    from fsview.server import serve

    if log_path is not None:
        start(repository, point, options, log_path, place)
    else:
        log_to_stderr(point)
        serve(repository, point, options, lambda: None)


def unmount(point: Path, *, lazy: bool = False) -> None:
    """End the view at *point* and wait until its server is gone; *lazy*: even if it is in use, and don't wait.

    Raises:
        MountError: there is none, or it is in use.
    """
    from fsview.mountpoint import unmount

    unmount(point, lazy=lazy)


def log_path_of(point: Path) -> Path:
    """Return where the server of the view at *point* logs."""
    name = os.path.realpath(point).strip("/").replace("/", "-")
    return state_directory() / f"{name[-_LOG_NAME_MAX:]}.log"


@click.command("mount", epilog=MOUNT_EXAMPLES)
@click.argument("arguments", metavar="[REPO] MNT", nargs=-1, type=POINT)
@click.option("-f", "--foreground", is_flag=True, help="Stay until the view is unmounted; Ctrl-C does that.")
@click.option("--root", metavar="REV[:/PATH]", type=REVISION, help="Mount this commit, or a directory in it, alone.")
@click.option("--kernel-reads", is_flag=True,
              help="With --root, as root: large files are read by the kernel itself, unchecked.")  # fmt: skip
@click.option("--verify", type=click.Choice(["xxh3", "sha256"]),
              help="sha256: check a whole file when it is first opened, too.")  # fmt: skip
@click.option(
    "--workers", metavar="N", type=click.IntRange(1, 64), help="Processes that answer; else one a core, at most 8."
)
@click.option("-o", "options", metavar="OPTIONS", multiple=True, help="Mount options; see below.")
@REPO_OPTION
@click.pass_context
def mount_command(
    ctx: click.Context,
    /,
    arguments: tuple[Path, ...],
    foreground: bool,
    root: str | None,
    kernel_reads: bool,
    verify: str | None,
    workers: int | None,
    options: tuple[str, ...],
    **_: object,
) -> None:
    """Show all commits and refs of REPO as read-only directories in MNT, an empty directory.

    Goes to the background as soon as the view answers. New commits and moved refs show at once. A view whose server
    was killed is mended by mounting it again.
    """
    from fsview.options import parse_options

    if not 1 <= len(arguments) <= 2:
        raise click.UsageError("name the repository and an empty directory: fsview mount REPO MNT")
    options = _without_trust(options)
    repository = located_repository(ctx, arguments[0] if len(arguments) == 2 else None)
    given = {"root": root, "verify": verify, "workers": workers, "kernel_reads": kernel_reads or None}
    parsed = parse_options(options, **given)
    if parsed.kernel_reads and foreground:
        raise click.UsageError("with --kernel-reads an overlay is laid over the view when it answers; leave out -f")
    point = arguments[-1]
    mount(repository, point, parsed, log_path=None if foreground else log_path_of(point))


def _without_trust(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Trust whom `trust-owner=` names, for fstab has no environment; return the other options."""
    words = [word for text in texts for word in text.split(",")]
    for word in words:
        if word.startswith(_TRUST):
            trust_owners(word.removeprefix(_TRUST), "the mount option trust-owner")
    return tuple(word for word in words if not word.startswith(_TRUST))


@click.command("umount", epilog=UMOUNT_EXAMPLES)
@click.argument("point", metavar="MNT", type=POINT)
@click.option("-l", "--lazy", is_flag=True, help="Take it away even if it is in use; who uses it sees errors.")
def umount_command(point: Path, lazy: bool) -> None:
    """End the view at MNT, and wait until its server is gone.

    Who uses the view is given some seconds to let go of it.
    """
    unmount(point, lazy=lazy)
