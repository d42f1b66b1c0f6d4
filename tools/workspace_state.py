"""What a workspace is on disk, in DIR.workspace beside the directory where it is mounted, DIR:

    workspace.json    which repository, commit and kind of overlay
    upper             directory: what was changed
    work              directory: overlayfs's own
    view              directory: where the view of the repository is mounted, if not elsewhere

It is beside DIR, so that it is on the file system that was chosen for DIR, and it outlives a reboot. What is written
there is believed as tools/workspace_home.py says, each value if it is what it should be. Those of a user are listed as
symlinks in the directory workspaces/ of tools/state.py. The commit is kept by a ref, REF_PREFIX + name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from store.errors import AccessError, FormatError, FsviewError, NotFoundError
from store.own_files import own_directory
from store.walking.walk import Walk
from tools.state import state_directory
from tools.workspace_home import Home

REF_PREFIX: Final = "fsview/workspace/"
_SUFFIX: Final = ".workspace"
_FILE: Final = "workspace.json"
_FORMAT: Final = 1
_CHECKSUM: Final = re.compile(r"[0-9a-f]{64}")
_STATUS_FACTS: Final = ("st_mode", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A writable tree on top of a commit.

    view: where its repository is mounted, if that is not its own mount; owner_me: with -o owner=me, so that who is not
    root can change what root owned; committed: what `fingerprint` was when all that was changed was committed; suid,
    dev: set-user-ID programs and devices work in it.
    """

    point: Path
    home: Home  # where everything is that belongs to it
    repository: Path
    commit: str  # checksum
    by_kernel: bool
    view: Path | None = None
    owner_me: bool = False
    committed: str = ""
    suid: bool = False
    dev: bool = False

    @property
    def upper(self) -> Path:
        """What was changed."""
        return self.home.path / "upper"

    @property
    def own_view(self) -> Path:
        """Where the view is mounted that is its own."""
        return self.home.path / "view"

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
        with self.home.opened("upper") as top, Walk(top, os.fsencode(self.upper), one_mount=False) as walk:
            seen.update(repr(_facts(os.fstat(top))).encode())
            for found in walk.entries():
                seen.update(repr((*walk.names, found.name, _facts(found.status))).encode())
        return seen.hexdigest()

    def save(self) -> None:
        """Write it down: from now on it is one. The rename is the atomic step."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        fields |= {name: os.fspath(value) for name, value in fields.items() if isinstance(value, Path)}
        self.home.write(_FILE, json.dumps({"format": _FORMAT, **fields}, indent=2))
        with _open_list(make=True) as entries:
            with suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=entries)
            os.symlink(self.home.path, self.name, dir_fd=entries)

    def forget(self) -> None:
        """Take it out of the list."""
        with suppress(FileNotFoundError), _open_list() as entries:
            os.unlink(self.name, dir_fd=entries)


class Broken(NamedTuple):
    """What is listed, and can't be used as it is; point: where it should be mounted, or its entry in the list."""

    point: Path
    problem: str


def home_of(point: Path) -> Path:
    """Return the directory beside *point* that a workspace there has."""
    return point.parent / (point.name + _SUFFIX)


def load(point: Path) -> Workspace:
    """Return the workspace at *point*.

    Raises:
        NotFoundError: there is none.
        FormatError: what is written of it can't be read, or is not what it should be.
        AccessError: it is not the caller's.
    """
    real = Path(os.path.realpath(point))
    return _read(home_of(real), real)


def listed() -> Iterator[Workspace | Broken]:
    """Yield the workspaces of this user that are still there; one that is not as it should be hides no other."""
    with suppress(FileNotFoundError), _open_list() as entries:
        for name in sorted(os.listdir(entries)):
            found = _listed(entries, name)
            if found is not None:
                yield found


def _listed(entries: int, name: str) -> Workspace | Broken | None:
    """Return what an entry of the list leads to; None if that is gone, and the entry then, too."""
    try:
        home = Path(os.readlink(name, dir_fd=entries))
    except OSError:
        return Broken(_registry() / name, f"is no symlink, as all in the list are; rm -r {_registry() / name}")
    if not home.is_absolute() or not home.name.removesuffix(_SUFFIX) or not home.name.endswith(_SUFFIX):
        return Broken(_registry() / name, f"leads to {home}, which is no workspace; rm {_registry() / name}")
    point = home.with_name(home.name.removesuffix(_SUFFIX))
    try:
        return _read(home, point)
    except NotFoundError:
        os.unlink(name, dir_fd=entries)
        return None
    except FsviewError as error:
        return Broken(point, str(error))
    except OSError as error:
        return Broken(point, f"{home} can't be read: {error.strerror}")


def _read(home: Path, point: Path) -> Workspace:
    where = home / _FILE
    try:
        opened = Home(home)
        found = json.loads(opened.read(_FILE))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"{point} is no workspace: {where} does not exist; to make one: fsview workspace REV {point}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON ({error}); {_MEND}") from error
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise FormatError(f"{where} does not say its format; {_MEND}")
    if found["format"] != _FORMAT:
        raise FormatError(f"{where} is of a newer fsview, with format {found['format']}; use that")
    return Workspace(point, opened, **{name: _value(where, found, name) for name in _FIELDS})


def _value(where: Path, found: dict[str, Any], name: str) -> Any:
    """Return one of the values, checked: anybody may have edited it, and then it need not even be of its type."""
    if name not in found and name in _NOT_ALWAYS_THERE:
        return _NOT_ALWAYS_THERE[name]
    expected, is_right, made = _FIELDS[name]
    value = found.get(name)
    if name not in found or not is_right(value):
        raise FormatError(f"{where}: {name!r} must be {expected}, not {value!r:.200}; {_MEND}")
    return made(value)


def _is_path(value: object) -> bool:
    """Whether it is an absolute path that the system can take."""
    try:
        return isinstance(value, str) and value.startswith("/") and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _is_path_or_none(value: object) -> bool:
    return value is None or _is_path(value)


def _path_or_none(value: str | None) -> Path | None:
    return None if value is None else Path(value)


def _is_checksum(value: object) -> bool:
    return isinstance(value, str) and _CHECKSUM.fullmatch(value) is not None


def _is_bool(value: object) -> bool:
    return type(value) is bool


_MEND: Final = "correct the file by hand; what was changed is in upper/ beside it"
_FIELDS: Final[dict[str, tuple[str, Callable[[object], bool], Callable[[Any], Any]]]] = {
    "repository": ("an absolute path", _is_path, Path),
    "commit": ("a checksum, 64 hex digits", _is_checksum, str),
    "by_kernel": ("true or false", _is_bool, bool),
    "view": ("an absolute path or null", _is_path_or_none, _path_or_none),
    "owner_me": ("true or false", _is_bool, bool),
    "committed": ('64 hex digits or ""', lambda value: value == "" or _is_checksum(value), str),
    "suid": ("true or false", _is_bool, bool),
    "dev": ("true or false", _is_bool, bool),
}
_NOT_ALWAYS_THERE: Final = {"suid": False, "dev": False}  # older programs did not write these


def _facts(status: os.stat_result) -> tuple[int, ...]:
    return tuple(getattr(status, name) for name in _STATUS_FACTS)


@contextmanager
def _open_list(*, make: bool = False) -> Iterator[int]:
    """Open the list of this user's workspaces.

    Raises:
        FileNotFoundError: there is none.
        AccessError: somebody else could lead elsewhere on the way to it.
    """
    try:
        entries = own_directory(_registry(), make=make)
    except PermissionError as error:
        raise AccessError(
            f"the list of workspaces, {_registry()}, can't be used: {error.strerror}; "
            f"set XDG_STATE_HOME to a directory of your own"
        ) from error
    try:
        yield entries
    finally:
        os.close(entries)


def _registry() -> Path:
    return state_directory() / "workspaces"
