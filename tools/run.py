"""`fsview run`: try a command in a deployment, or in a commit that is not deployed at all."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from tools.capabilities import KEPT, NAMES
from tools.parameters import PATHS, REPO_OPTION, PathsCommand, located_repository

if TYPE_CHECKING:
    from tools.guardian import Guardian
    from tools.sandbox import Conditions


def _lines(names: Iterable[str]) -> str:
    return textwrap.fill(" ".join(names), width=110, subsequent_indent="  ", break_on_hyphens=False)


EXAMPLES: Final = f"""\b
Examples:
  fsview run debian/13 -- cat /etc/debian_version
  fsview run MNT/refs/debian/13/ -- bash
  fsview run --ephemeral debian/13 -- sh -c 'echo x > /etc/motd; cat /etc/motd'
  fsview run --sysroot /srv/staging -- systemctl --version
  fsview run --sysroot /srv/staging --generation 3 --ephemeral -- bash
  fsview run --cap-add NET_RAW debian/13 -- ping -c 1 localhost

\b
With no SOURCE the command runs in the current deployment of a sysroot, or in that of generation N: the tree is
read-only, /etc and /var are the deployment's own, and what is written there stays. A SOURCE is a revision, REV:/PATH,
or a directory in a mounted view; it is not copied. Then /etc is the tree's, read-only, and /var is thrown away.
With --ephemeral /etc and /var can be written to, and are thrown away in any case.

\b
/proc, /dev, /tmp and /run are new, /proc and /sys read-only. Network, user and environment are yours, as with chroot;
set-user-ID programs give nobody more rights, and neither user namespaces nor keyrings are to be had. Processes that the
command leaves end with it. Files to which you redirect its input and outputs are passed on through pipes; other open
files are not handed to it. Exit status: the command's; 128 + N if a signal N ended it; 1 if there is no such command;
18 if none can be run here. It takes bubblewrap with --bind-fd, as Debian 12 has it (apt install bubblewrap).

\b
Root inside is root, with few capabilities:
  {_lines(KEPT)}
--cap-add takes these, too; with many of them (SYS_ADMIN, SYS_PTRACE, DAC_READ_SEARCH, MKNOD ...) the command can take
over the machine:
  {_lines(sorted(set(NAMES) - set(KEPT)))}

\b
What a command can do all the same, so run none as root that you would not trust with this:
  - in a deployment, without --ephemeral, root inside changes all of /etc and /var, which stay: it can leave
    set-user-ID programs there, which are root's to any user of the machine who gets at them, programs with
    capabilities, sockets, and files that services of the deployment believe;
  - it reaches what listens on the machine's network, also on localhost and on abstract unix sockets, which believe root
    inside to be root (--no-network bars it from all of that, but not from vsock, a virtual machine's way to its host);
  - it reads all of the tree, the environment that you give it, and most of /proc and /sys;
  - it writes to your terminal, but can't type there; if you are not root, it can let other users read it, too;
  - it takes memory, processor time and disk space without bounds.
Who is not root inside has no capabilities at all, and nothing but the rights of that user.
"""


class _Capability(click.Choice[str]):
    """One of the kernel's capabilities, with or without CAP_, in capitals or not."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(value.upper().removeprefix("CAP_"), param, ctx)


@click.command("run", cls=PathsCommand, epilog=EXAMPLES, options_metavar="[OPTIONS]")
@click.argument("source", metavar="[SOURCE] -- COMMAND...", required=False)
@click.option("--generation", metavar="N", type=click.IntRange(1), help="In this generation's deployment.")
@click.option(
    "--sysroot",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The sysroot; else FSVIEW_SYSROOT, else the current directory.",
)
@click.option("--os", "stateroot", metavar="NAME", help="The stateroot in it, where there are several.")
@click.option("--ephemeral", is_flag=True, help="Throw away what the command writes to /etc and /var.")
@click.option("--chdir", metavar="DIR", default="/", help="Where the command starts, in the tree; else in /.")
@click.option("--no-network", is_flag=True, help="With no network but a loopback of its own.")
@click.option(
    "--cap-add",
    "added",
    metavar="CAP",
    multiple=True,
    type=_Capability(NAMES),
    help="Let root inside have this capability, too; may be repeated.",
)
@REPO_OPTION
@click.pass_context
def run_command(
    ctx: click.Context,
    /,
    source: str | None,
    generation: int | None,
    sysroot: Path | None,
    stateroot: str | None,
    ephemeral: bool,
    chdir: str,
    no_network: bool,
    added: tuple[str, ...],
    **_: object,
) -> None:
    """Run COMMAND inside a tree, without changing the tree."""
    from tools.sandbox import Conditions
    from tools.streams import fill_closed

    fill_closed()
    command = list(ctx.meta[PATHS])
    if not command:
        raise click.UsageError("put the command behind --, as: fsview run debian/13 -- cat /etc/debian_version")
    if added and os.geteuid() != 0:
        raise click.UsageError("only root has capabilities to give to a command; leave out --cap-add")
    conditions = Conditions(ephemeral=ephemeral, chdir=chdir, has_network=not no_network, added=added)
    if source is not None:
        if generation is not None or stateroot is not None:
            raise click.UsageError("a SOURCE is no deployment; leave out --generation and --os, or the SOURCE")
        ctx.exit(run_in_source(ctx, source, command, conditions))
    ctx.exit(run_in_generation(sysroot, stateroot, generation, command, conditions))


def run_in_generation(
    sysroot: Path | None, stateroot_name: str | None, number: int | None, command: list[str], conditions: Conditions
) -> int:
    """Run *command* in the deployment of generation *number*, else of the current one; return its exit status.

    Raises:
        NotFoundError: there is no such sysroot, stateroot or generation.
        SysrootError: the sysroot is damaged.
    """
    from store.errors import NotFoundError
    from tools.sandbox import sandbox
    from tools.sysroot.in_use import using
    from tools.sysroot.options import open_sysroot

    stateroot = open_sysroot(sysroot).stateroot(stateroot_name)
    generation = stateroot.current() if number is None else stateroot.generation(number)
    if generation is None:
        raise NotFoundError(f"nothing was deployed to {stateroot.name} yet; see: fsview deploy --help")
    with using(stateroot.sysroot.path, generation.root):
        return sandbox(generation.root, command, conditions, var=stateroot.var)


def run_in_source(ctx: click.Context, source: str, command: list[str], conditions: Conditions) -> int:
    """Run *command* in a revision, or in a directory of a mounted view; return its exit status.

    Raises:
        NotFoundError, MountError: there is no such thing, or it can't be mounted.
    """
    from fsview.locate import locate
    from tools.sandbox import check_sandbox, sandbox

    check_sandbox()
    if _is_path(ctx, source):
        locate(source)  # in a commit, not above
        return sandbox(Path(os.path.realpath(source)), command, conditions)
    return _run_in_revision(located_repository(ctx), source, command, conditions)


def _is_path(ctx: click.Context, source: str) -> bool:
    from tools.parameters import may_be_path, path_revisions

    return source.startswith(("/", ".")) or (may_be_path(source) and path_revisions(ctx).take(source) != source)


def _run_in_revision(repository: Path, revision: str, command: list[str], conditions: Conditions) -> int:
    from tools.guardian import Guardian
    from tools.sandbox import sandbox

    pinned = _pinned(repository, revision)
    with Guardian() as guardian:
        root = _mount(repository, pinned, guardian)
        return sandbox(root, command, conditions, guardian=guardian)


def _pinned(repository_path: Path, revision: str) -> str:
    """Return a directory of a commit as a revision that always means it.

    Raises:
        NotFoundError: there is no such revision, or no such path in it.
        FsviewError: it is no directory.
    """
    from store.errors import FsviewError
    from store.repository import Repository
    from store.revisions import find_place
    from store.tree import commit_record

    with Repository.open(repository_path) as repository, repository.database.reading() as reading:
        place = find_place(reading, revision, now_s=int(time.time()))
        if not place.entry.is_directory:
            raise FsviewError(f"{revision} is no directory; name the root of a tree")
        checksum = commit_record(reading, place.commit).checksum.hex()
    return f"{checksum}:{os.fsdecode(place.path)}" if place.path else checksum


def _mount(repository: Path, pinned: str, guardian: Guardian) -> Path:
    """Mount one directory of one commit for the time of a command."""
    from fsview.background import start
    from fsview.options import MountOptions

    is_root = os.geteuid() == 0
    point = guardian.path / "view"
    point.mkdir()
    options = MountOptions(
        root=pinned,
        allow_other=is_root,  # those that root may become in there
        owner_me=not is_root,  # else what is root's alone could not be read
        place_inodes=True,  # /var has an overlay over it
        place_st_ino=True,
    )
    start(repository, point, options, guardian.path / "view.log")
    return point
