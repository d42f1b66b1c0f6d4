"""Where the parts of a sysroot are, and what they are called.

    SYSROOT/fsview.toml                         tools/sysroot/settings.py
    SYSROOT/lock                                tools/sysroot/locking.py
    SYSROOT/in-use                              tools/sysroot/in_use.py
    SYSROOT/deploy/<stateroot>/
        var/                                    shared by all deployments, never rolled back
        deployments/<commit>.<n>/               a tree; its etc/ merged and the admin's, its var/ an empty directory
        deployments/<commit>.<n>.etc-pristine/  the commit's etc, untouched: what merging compares with
        deployments/building.tmp/               trees that are under way; nobody else may enter
        generations/<g>/origin.toml             tools/sysroot/origin.py
        generations/<g>/root                    -> ../../deployments/<commit>.<n>
        generations/<g>/snapshot/var/           /var as it was when this generation was left, if that was asked for
        generations/<g>/restored/var/           /var to be, see tools/sysroot/var.py
        current                                 -> generations/<g>

Each change makes a new generation and renames `current`, which is the atomic step (tools/sysroot/activate.py). So
generations above the current one were never active; they, deployments that no generation names, and what ends in
".tmp" are garbage of a command that was killed, and swept by the next one (tools/sysroot/sweep.py).

What building.tmp/, snapshot/ and restored/ hold has directories of other users. They are 0700, so that nobody plants
something in what will be used or put back, and nobody runs or reads what is there no more. Before them a snapshot was
generations/<g>/var-snapshot/ itself; such a one is still found, and moved by the next command that changes something.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from store.errors import InvalidNameError, NotFoundError, SysrootError
from store.repository import sync_directory
from tools.sysroot.origin import ORIGIN_FILE, Origin
from tools.sysroot.settings import SETTINGS_FILE, Policy, SysrootSettings
from tools.sysroot.trusted import check_directory, check_link, check_sysroot

TEMPORARY: Final = ".tmp"
PRISTINE: Final = ".etc-pristine"
BUILDING: Final = "building" + TEMPORARY
SNAPSHOT: Final = "snapshot"
_OLD_SNAPSHOT: Final = "var-snapshot"
_DEPLOY, _CURRENT, _GENERATIONS, _DEPLOYMENTS, _VAR, _ROOT = (
    "deploy", "current", "generations", "deployments", "var", "root",
)  # fmt: skip
_STATEROOT: Final = re.compile(r"[A-Za-z0-9_][-._A-Za-z0-9]{0,63}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")
_MODE: Final = 0o755  # never more, not even for a moment, whatever the umask is
_DEPLOYMENT: Final = re.compile(r"[0-9a-f]{64}\.[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Generation:
    """One state that a stateroot was in: a deployment, and how it came to be current."""

    number: int
    path: Path
    origin: Origin

    @property
    def deployment(self) -> str:
        """The name of the deployment: <commit>.<n>."""
        return self.origin.deployment

    @property
    def root(self) -> Path:
        """The deployment's tree."""
        return self.path.parent.parent / _DEPLOYMENTS / self.origin.deployment

    @property
    def pristine_etc(self) -> Path:
        """The commit's etc, as it was committed; empty if it has none."""
        return self.root.with_name(self.root.name + PRISTINE)

    @property
    def snapshot(self) -> Path:
        """The directory, nobody else's to enter, with /var as it was when this generation was left."""
        return self.path / SNAPSHOT

    @property
    def snapshot_of_var(self) -> Path:
        """That /var."""
        return self.snapshot / _VAR

    @property
    def old_snapshot(self) -> Path:
        """The same, where it was before: all could enter."""
        return self.path / _OLD_SNAPSHOT

    @property
    def has_snapshot(self) -> bool:
        """Whether there is one; that others may know, too."""
        return self.snapshot.is_dir() or self.old_snapshot.is_dir()


class Stateroot:
    """One line of generations, with one /var."""

    def __init__(self, sysroot: Sysroot, name: str) -> None:
        self.sysroot, self.name = sysroot, name
        self.path = sysroot.path / _DEPLOY / name

    @property
    def var(self) -> Path:
        """What all its deployments have as /var."""
        return self.path / _VAR

    @property
    def deployments(self) -> Path:
        """The directory of all deployments."""
        return self.path / _DEPLOYMENTS

    @property
    def building(self) -> Path:
        """The directory of deployments that are under way, nobody else's to enter."""
        return self.deployments / BUILDING

    @property
    def generations_directory(self) -> Path:
        """The directory of all generations."""
        return self.path / _GENERATIONS

    @property
    def current_link(self) -> Path:
        """The symlink that says which generation is current."""
        return self.path / _CURRENT

    def current_number(self) -> int:
        """Return the number of the current generation; 0 if nothing was deployed yet.

        Raises:
            SysrootError: `current` is not what fsview made.
        """
        try:
            target = os.readlink(self.current_link)
            check_link(self.current_link)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise SysrootError(f"{self.current_link} is no symlink ({error.strerror}); {_mend(self)}") from error
        directory, _, number = target.rpartition("/")
        if directory != _GENERATIONS or not _NUMBER.fullmatch(number):
            raise SysrootError(f"{self.current_link} points at {target!r}, not at a generation; {_mend(self)}")
        return int(number)

    def current(self) -> Generation | None:
        """Return the current generation; None if nothing was deployed yet.

        Raises:
            SysrootError: it is not there, or damaged.
        """
        number = self.current_number()
        return self.generation(number) if number else None

    def generation(self, number: int) -> Generation:
        """Return a generation that is or was current.

        Raises:
            NotFoundError: there is none with this number.
            SysrootError: it is damaged.
        """
        path = self.generations_directory / str(number)
        if number > self.current_number() or not path.is_dir():
            known = ", ".join(str(one) for one in self.numbers()) or "none yet"
            raise NotFoundError(f"there is no generation {number} in {self.name}; there are: {known}")
        check_directory(path)
        generation = Generation(number, path, Origin.load(path / ORIGIN_FILE))
        _check_root(generation)
        return generation

    def numbers(self) -> list[int]:
        """Return the numbers of all generations that are or were current, in order."""
        current = self.current_number()
        try:
            names = os.listdir(self.generations_directory)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name) and int(name) <= current)

    def generations(self) -> list[Generation]:
        """Return all generations that are or were current, in order.

        Raises:
            SysrootError: one is damaged.
        """
        return [self.generation(number) for number in self.numbers()]

    def deployment_names(self) -> list[str]:
        """Return the names of all deployments, also of those that no generation names."""
        return sorted(name for name in os.listdir(self.deployments) if _DEPLOYMENT.fullmatch(name))


class Sysroot:
    """A directory with deployments."""

    def __init__(self, path: Path, settings: SysrootSettings) -> None:
        """Use Sysroot.create or Sysroot.open."""
        self.path, self._settings = path, settings

    @property
    def identity(self) -> str:
        """Hex digits that no other sysroot has: its refs in the repository are named by them."""
        return self._settings.identity

    @property
    def repository_path(self) -> Path:
        """Where its repository is."""
        return self.path / self._settings.repository  # an absolute one stays what it is

    @property
    def policy(self) -> Policy:
        """What it accepts."""
        return self._settings.policy.relative_to(self.path)

    @classmethod
    def create(cls, path: Path, settings: SysrootSettings) -> Self:
        """Make a sysroot at *path*, which must not exist, be empty, or be an earlier `sysroot init` that was killed.

        Raises:
            SysrootError: something is there already.
        """
        cls.check_free(path)
        path.mkdir(_MODE, parents=True, exist_ok=True)
        (path / _DEPLOY).mkdir(_MODE, exist_ok=True)
        settings.save(path / SETTINGS_FILE)  # from now on it is a sysroot
        return cls(path, settings)

    @staticmethod
    def check_free(path: Path) -> None:
        """Refuse a place where no sysroot can be made.

        Raises:
            SysrootError: something is there already.
        """
        if (path / SETTINGS_FILE).exists():
            raise SysrootError(f"{path} has a {SETTINGS_FILE} already, so it is a sysroot or a repository")
        there = {entry.name for entry in path.iterdir()} if path.exists() else set()
        foreign = there - {_DEPLOY, SETTINGS_FILE + TEMPORARY}
        if foreign:
            raise SysrootError(f"{path} is not empty (it has {min(foreign)!r}); name a new or an empty directory")

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the sysroot at *path*.

        Raises:
            NotFoundError: there is none.
            FormatError: its settings can't be understood.
            AccessError: it is somebody else's.
        """
        path = Path(os.path.abspath(path))
        if not os.path.lexists(path / SETTINGS_FILE):
            raise NotFoundError(
                f"{path} is not a sysroot (it has no {SETTINGS_FILE}); make one: fsview sysroot init {path} --repo REPO"
            )
        check_sysroot(path)
        return cls(path, SysrootSettings.load(path / SETTINGS_FILE))

    def names(self) -> list[str]:
        """Return the names of all stateroots."""
        try:
            entries = os.listdir(self.path / _DEPLOY)
        except FileNotFoundError:
            return []
        return sorted(name for name in entries if (self.path / _DEPLOY / name / _GENERATIONS).is_dir())

    def stateroot(self, name: str | None = None) -> Stateroot:
        """Return the stateroot *name*, or the only one.

        Raises:
            NotFoundError: there is no such one, or none at all.
            InvalidNameError: there are several.
            SysrootError, AccessError: a directory of it is none, or somebody else's.
        """
        names = self.names()
        if name is None and len(names) > 1:
            raise InvalidNameError(f"{self.path} has several stateroots; name one with --os: {', '.join(names)}")
        if name is None and names:
            name = names[0]
        if name is None:
            raise NotFoundError(
                f"{self.path} has no stateroot yet; make one: fsview os-init NAME --sysroot {self.path}"
            )
        if name not in names:
            raise NotFoundError(f"{self.path} has no stateroot {name!r}; it has: {', '.join(names) or 'none'}")
        found = Stateroot(self, name)
        for directory in (self.path / _DEPLOY, found.path, found.deployments, found.generations_directory):
            if os.path.lexists(directory):
                check_directory(directory)
        return found

    def new_stateroot(self, name: str) -> Stateroot:
        """Return the stateroot that `make_stateroot` would make.

        Raises:
            InvalidNameError: it can't be called so.
            SysrootError: it exists.
        """
        if not _STATEROOT.fullmatch(name):
            raise InvalidNameError(f"{name!r} can't be a stateroot: letters, digits, '_', '-' and '.', at most 64")
        if name in self.names():
            raise SysrootError(f"{self.path} has a stateroot {name} already; nothing was changed")
        return Stateroot(self, name)

    def make_stateroot(self, name: str) -> Stateroot:
        """Make a stateroot; there is one as soon as it has a directory of generations: the atomic step.

        Raises:
            InvalidNameError: it can't be called so.
            SysrootError: it exists.
        """
        made = self.new_stateroot(name)
        for directory in (made.path, made.var, made.deployments):
            directory.mkdir(_MODE, parents=True, exist_ok=True)
            directory.chmod(_MODE)
        made.generations_directory.mkdir(_MODE, exist_ok=True)
        made.generations_directory.chmod(_MODE)
        for directory in (made.path, made.path.parent):
            sync_directory(directory)
        return made


def _check_root(generation: Generation) -> None:
    """Refuse a generation by whose name, or by whose deployment's, people come to another tree than it is of."""
    link, expected = generation.path / _ROOT, f"../../{_DEPLOYMENTS}/{generation.deployment}"
    if os.path.lexists(link) and not (link.is_symlink() and os.readlink(link) == expected):
        raise SysrootError(f"{link} does not lead to its deployment; point it there: ln -sfn {expected} {link}")
    for directory in (generation.root, generation.pristine_etc):
        if directory.is_symlink():
            raise SysrootError(f"{directory} is a symlink, where a sysroot has a directory; put that itself there")


def _mend(stateroot: Stateroot) -> str:
    return f"point it at the right one: ln -sfn generations/NUMBER {stateroot.current_link}"
