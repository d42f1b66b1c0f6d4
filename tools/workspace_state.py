"""What a workspace is on disk, in DIR.workspace beside the directory where it is mounted, DIR:

    workspace.json    which repository, commit and kind of overlay
    upper             directory: what was changed
    work              directory: overlayfs's own
    view              directory: where the view of the repository is mounted, if not elsewhere

It is beside DIR, so that it is on the file system that was chosen for DIR, and it outlives a reboot. Those of a user
are listed as symlinks in $XDG_STATE_HOME/fsview/workspaces/. The commit is kept by a ref, REF_PREFIX + name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from store.bounds import read_small
from store.errors import FormatError, NotFoundError

REF_PREFIX: Final = "fsview/workspace/"
_SUFFIX: Final = ".workspace"
_FILE: Final = "workspace.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Workspace:
    """A writable tree on top of a commit.

    view: where its repository is mounted, if that is not its own mount; owner_me: with -o owner=me, so that who is not
    root can change what root owned; committed: what `fingerprint` was when all that was changed was committed; suid,
    dev: set-user-ID programs and devices work in it.
    """

    point: Path
    repository: Path
    commit: str  # checksum
    by_kernel: bool
    view: Path | None = None
    owner_me: bool = False
    committed: str = ""
    suid: bool = False
    dev: bool = False

    @property
    def home(self) -> Path:
        """Where everything is that belongs to it."""
        return home_of(self.point)

    @property
    def upper(self) -> Path:
        """What was changed."""
        return self.home / "upper"

    @property
    def own_view(self) -> Path:
        """Where the view is mounted that is its own."""
        return self.home / "view"

    @property
    def name(self) -> str:
        """Return what tells it from others of this machine."""
        return hashlib.sha256(os.fsencode(self.point)).hexdigest()[:16]

    @property
    def flags(self) -> list[str]:
        """What is not permitted where it is mounted, in mount(8)'s words."""
        return ["nosuid"] * (not self.suid) + ["nodev"] * (not self.dev)

    @property
    def ref(self) -> str:
        """Return the ref that keeps its commit."""
        return REF_PREFIX + self.name

    def fingerprint(self) -> str:
        """Return a digest of what was changed, by names and stat: it differs after any further change."""
        seen = hashlib.sha256()
        for directory, below, names, descriptor in os.fwalk(os.fsencode(self.upper), onerror=_raise):
            for name in (b".", *sorted(below + names)):
                one = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                facts = (directory, name, one.st_mode, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
                seen.update(repr(facts).encode())
        return seen.hexdigest()

    def save(self) -> None:
        """Write it down: from now on it is one. The rename is the atomic step."""
        fields = {key: os.fspath(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        new = self.home / f"{_FILE}.new"
        with open(new, "w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump({"format": _FORMAT, **fields}, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(new, self.home / _FILE)
        listed = _registry() / self.name
        listed.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        listed.unlink(missing_ok=True)
        listed.symlink_to(self.home)

    def forget(self) -> None:
        """Take it out of the list."""
        (_registry() / self.name).unlink(missing_ok=True)


def home_of(point: Path) -> Path:
    """Return the directory beside *point* that a workspace there has."""
    return point.with_name(point.name + _SUFFIX)


def load(point: Path) -> Workspace:
    """Return the workspace at *point*.

    Raises:
        NotFoundError: there is none.
        FormatError: what is written of it can't be read.
    """
    real = Path(os.path.realpath(point))
    return _read(home_of(real), real)


def listed() -> Iterator[Workspace]:
    """Yield the workspaces of this user that are still there."""
    for link in sorted(_registry().glob("*")):
        home = Path(os.path.realpath(link))
        try:
            yield _read(home, home.with_name(home.name.removesuffix(_SUFFIX)))
        except NotFoundError:
            link.unlink(missing_ok=True)


def _read(home: Path, point: Path) -> Workspace:
    try:
        found = json.loads(read_small(home / _FILE).decode("utf-8", "surrogateescape"))
        if found["format"] != _FORMAT:
            raise FormatError(f"{home / _FILE} is of a newer fsview, with format {found['format']}; use that")
        view = Path(found["view"]) if found["view"] is not None else None
        repository, owner_me, committed = Path(found["repository"]), found["owner_me"], found["committed"]
        suid, dev = found.get("suid", False), found.get("dev", False)  # those of older programs have neither
        return Workspace(point, repository, found["commit"], found["by_kernel"], view, owner_me, committed, suid, dev)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"{point} is no workspace: {home / _FILE} does not exist; to make one: fsview workspace REV {point}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{home / _FILE} can't be read: {error!r}") from error


def _raise(error: OSError) -> None:
    raise error


def _registry() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state).absolute() / "fsview" / "workspaces"
