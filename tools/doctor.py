"""fsview doctor: what this machine lacks for fsview, and the command that mends it; with REPO also how that is.

Each need is tried, not guessed from packages, so that other distributions and own builds pass, too.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Final

import click

from fsview.mountinfo import is_shared, mount_of
from store.errors import FsviewError
from store.findings import Finding
from tools.parameters import named_repository
from tools.render import count_text, one_line, print_json, say, size_text

_PACKAGE: Final = "Python package "
_PACKAGES: Final = ("click", "cryptography", "lmdb", "packaging", "pathspec", "pyfuse3", "tqdm", "trio", "xxhash")
_CAP_SYS_ADMIN: Final = 21
_NAMED_MAX: Final = 20
_ROOM_BYTES: Final = 1 << 30
_CONTAINER: Final = "in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN"


class State(StrEnum):
    """How it stands with one thing."""

    FINE = "ok"
    LACKING = "missing"  # something does not work
    OPEN = "open"  # everything works; others can do what they should not
    HINT = "hint"  # everything works; something could be better


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at; mend is a command, or what else to do, where something lacks."""

    state: State
    subject: str
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look; tests point it elsewhere."""

    device: Path = Path("/dev/fuse")
    filesystems: Path = Path("/proc/filesystems")
    fuse_settings: Path = Path("/etc/fuse.conf")
    status: Path = Path("/proc/self/status")
    search_path: str | None = None  # None: PATH
    is_root: bool = False


def examine_machine(machine: Machine) -> Iterator[Diagnosis]:
    """Yield how it stands with what mounting, comparing and running at all need."""
    yield _device(machine)
    yield _module(machine)
    yield _permission(machine) if machine.is_root else _helper(machine)
    yield _others(machine)
    yield _diff(machine)
    yield _bubblewrap(machine)
    yield _gpgv(machine)
    yield from map(_package, _PACKAGES)


def _device(machine: Machine) -> Diagnosis:
    name = str(machine.device)
    try:
        os.close(os.open(machine.device, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        mend = f"chmod 666 {name} (as root); {_CONTAINER}"
        return Diagnosis(State.LACKING, name, "this user may not open it, so nothing can be mounted", mend)
    except OSError as error:
        return Diagnosis(State.LACKING, name, f"it can't be opened: {error.strerror}", f"modprobe fuse; {_CONTAINER}")
    return Diagnosis(State.FINE, name, "it can be opened")


def _module(machine: Machine) -> Diagnosis:
    try:
        names = {line.split()[-1] for line in machine.filesystems.read_text().splitlines() if line.split()}
    except OSError:
        names = set()
    if "fuse" in names:
        return Diagnosis(State.FINE, "kernel", "it has the file system fuse")
    return Diagnosis(State.LACKING, "kernel", "it has no file system fuse", "modprobe fuse")


def _permission(machine: Machine) -> Diagnosis:
    """Root mounts by itself, if it may."""
    try:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", machine.status.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is None or int(found[1], 16) >> _CAP_SYS_ADMIN & 1:
        return Diagnosis(State.FINE, "root", "it may mount")
    return Diagnosis(State.LACKING, "root", "it may not mount: the capability SYS_ADMIN is missing", _CONTAINER)


def _helper(machine: Machine) -> Diagnosis:
    """Everybody else needs a program that is set-user-ID root."""
    path = shutil.which("fusermount3", path=machine.search_path)
    if path is None:
        text = "it is missing, without which only root can mount"
        return Diagnosis(State.LACKING, "fusermount3", text, "apt install fuse3")
    status = os.stat(path)
    if status.st_uid != 0 or not status.st_mode & stat.S_ISUID:
        text = "it is not set-user-ID root, so it can't mount for others"
        return Diagnosis(State.LACKING, path, text, f"chown root {path}; chmod u+s {path}")
    return Diagnosis(State.FINE, path, "it is set-user-ID root")


def _others(machine: Machine) -> Diagnosis:
    try:
        text = machine.fuse_settings.read_text()
    except OSError:
        text = ""
    name = str(machine.fuse_settings)
    if re.search(r"^\s*user_allow_other\s*$", text, re.MULTILINE):
        return Diagnosis(State.FINE, name, "users may let others see their mounts (user_allow_other)")
    mend = f"echo user_allow_other >> {name} (as root)"
    return Diagnosis(State.HINT, name, "only root may let others see a mount (no user_allow_other)", mend)


def _diff(machine: Machine) -> Diagnosis:
    if shutil.which("diff", path=machine.search_path):
        return Diagnosis(State.FINE, "diff", "it is there")
    return Diagnosis(State.LACKING, "diff", "it is missing: no differences of contents", "apt install diffutils")


def _bubblewrap(machine: Machine) -> Diagnosis:
    if shutil.which("bwrap", path=machine.search_path):
        return Diagnosis(State.FINE, "bwrap", "it is there")
    return Diagnosis(State.HINT, "bwrap", "it is missing: no 'fsview run'", "apt install bubblewrap")


def _gpgv(machine: Machine) -> Diagnosis:
    if shutil.which("gpgv", path=machine.search_path):
        return Diagnosis(State.FINE, "gpgv", "it is there")
    return Diagnosis(State.HINT, "gpgv", "it is missing: 'fsview verify' knows no GPG signatures", "apt install gpgv")


def _package(name: str) -> Diagnosis:
    from importlib.metadata import PackageNotFoundError, version

    try:
        import_module(name)
        found = version(name)
    except ImportError as error:
        mend = f"pip install {name}" + ("; apt install libfuse3-3" if name == "pyfuse3" else "")
        return Diagnosis(State.LACKING, _PACKAGE + name, f"it can't be imported: {error}", mend)
    except PackageNotFoundError:
        found = "of an unknown version"
    return Diagnosis(State.FINE, _PACKAGE + name, found)


def examine_repository(path: Path) -> Iterator[Diagnosis]:
    """Yield how it stands with the repository at *path*: whether it opens, its room, its state."""
    from store.findings import Severity  # only now: these need packages that may be missing
    from store.repository import Repository
    from tools.fsck import fsck

    try:
        findings = fsck(path, quick=True)
        errors = [finding for finding in findings if finding.severity == Severity.ERROR]
        if not errors:
            Repository.open(path).close()
    except (FsviewError, OSError) as error:
        yield Diagnosis(State.LACKING, str(path), str(error), "name a repository, or make one: fsview init REPO")
        return
    yield _soundness(path, len(errors))
    for finding in errors[:_NAMED_MAX]:
        shown = f"; it shows as {', '.join(finding.visible)}" if finding.visible else ""
        yield Diagnosis(State.LACKING, finding.where, f"{finding.what}{shown}", finding.mend)
    yield from _rights(path, [one for one in findings if one.severity == Severity.OPEN])
    garbage = sum(finding.severity == Severity.GARBAGE for finding in findings)
    if garbage:
        text = f"{count_text(garbage, 'leftover')} of what was killed, or of damage that is mended"
        yield Diagnosis(State.HINT, str(path), text, f"fsview fsck --quick --repo {path}")
    yield from _place(path)


def _rights(path: Path, found: list[Finding]) -> Iterator[Diagnosis]:
    """Yield what others can do with the repository: of many loose files the first one."""
    loose = [finding for finding in found if finding.where != str(path)]
    for finding in (*(one for one in found if one.where == str(path)), *loose[:1]):
        more = f"; so do {len(loose) - 1} more" if finding in loose and len(loose) > 1 else ""
        yield Diagnosis(State.OPEN, finding.where, f"{finding.what}{more}", finding.mend)


def fix(path: Path) -> str:
    """Close the repository at *path* to others; return what was done, in words.

    Raises:
        FsviewError, OSError: as `close_to_others`.
    """
    from store.exposure import close_to_others
    from tools.render import progress

    with progress("renewing", None, "files") as advance:
        closed = close_to_others(path, advance)
    texts = (
        [] if closed.mode_before is None else [f"others could enter it (mode {closed.mode_before:04o}), and can't now"]
    )
    if closed.loose:
        texts.append(f"{count_text(closed.loose, 'loose file')} gave rights; a copy without them is in its place")
    return "; ".join(texts) or "there was nothing to mend"


def _soundness(path: Path, errors: int) -> Diagnosis:
    if errors:
        return Diagnosis(
            State.LACKING, str(path), f"{count_text(errors, 'error')} in a quick check", f"fsview fsck --repo {path}"
        )
    return Diagnosis(State.FINE, str(path), "it opens, and a quick check finds no errors")


def _place(path: Path) -> Iterator[Diagnosis]:
    """Yield how the file system suits the repository."""
    room = os.statvfs(path)
    free = room.f_bavail * room.f_frsize
    enough = free >= _ROOM_BYTES
    mend = "" if enough else f"df -h {path}"
    yield Diagnosis(State.FINE if enough else State.HINT, "room", f"{size_text(free)} are free", mend)
    if is_shared(path):
        mount = mount_of(path)
        text = f"it is {mount.kind if mount else 'unknown'}: an index there must not be used by two machines at once"
        yield Diagnosis(State.HINT, "file system", text, "keep the repository on a local disk")
    yield _reflinks(path)


def _reflinks(path: Path) -> Diagnosis:
    from tools.linking import can_reflink

    try:
        with tempfile.TemporaryDirectory(prefix="doctor-", dir=path / "tmp") as directory:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                works = can_reflink(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        return Diagnosis(State.HINT, "reflinks", f"they can't be tried: {error.strerror}", f"ls -ld {path / 'tmp'}")
    if works:
        return Diagnosis(State.FINE, "reflinks", "checkouts share blocks with the repository")
    text = "this file system has none: checkouts are copies, deployments hard links and copies"
    return Diagnosis(State.HINT, "reflinks", text, "keep the repository on btrfs or XFS (mkfs.xfs -m reflink=1)")


EXAMPLES = """
\b
Examples:
  fsview doctor
  fsview doctor /srv/repo
  fsview doctor --fix /srv/repo         close it to other users: old repositories could be entered by all
  fsview doctor --json | jq -r '.[] | select(.state == "missing") | .mend'

\b
The exit status is 1 if something is missing that is needed, or open to others who could read, run or change what is in
the repository; a hint says what could be better.

\b
--fix gives REPO the mode 0700 (with shared = "group" in its fsview.toml 2770), as 'init' does, and puts copies in the
place of loose files that are set-user-ID, have capabilities or can be written by others. What checkouts and deployments
share with the old files stays as it is. It waits for commits and checkouts that are under way.
"""


@click.command("doctor", epilog=EXAMPLES)
@click.argument("path", metavar="REPO", required=False, type=click.Path(path_type=Path, readable=False))
@click.option("--json", "in_json", is_flag=True, help="A JSON array, one object for each thing looked at.")
@click.option("--fix", "wants_fix", is_flag=True, help="Close REPO to others first; all else you mend yourself.")
@click.pass_context
def doctor_command(ctx: click.Context, path: Path | None, in_json: bool, wants_fix: bool) -> None:
    """Say what this machine lacks, and what would mend it; with REPO also how that repository is."""
    named = path or named_repository(ctx)
    if wants_fix and named is None:
        raise click.UsageError("name the repository that is to be closed: fsview doctor --fix REPO")
    if wants_fix and named is not None:
        say(f"{named}: {fix(named)}")
    diagnoses = list(examine_machine(Machine(is_root=os.geteuid() == 0)))
    if named and not any(one.state == State.LACKING and one.subject.startswith(_PACKAGE) for one in diagnoses):
        diagnoses += examine_repository(named)
    if in_json:
        names = ("state", "subject", "text", "mend")
        print_json([{name: str(getattr(one, name)) for name in names} for one in diagnoses])
    else:
        for one in diagnoses:
            print(one_line(f"{one.state.value:8}{one.subject}: {one.text}"))
            if one.mend:
                print(one_line(f"        -> {one.mend}"))
    if any(one.state in (State.LACKING, State.OPEN) for one in diagnoses):
        ctx.exit(1)
