"""What origin.toml says of a generation: where it comes from, and what must be known to leave it.

    [origin]
    commit = "5b8e…"            deployed, from
    ref = "debian/12/base"      what `upgrade` follows; missing where a commit was named without a ref
    deployment = "5b8e….0"
    source = "debian/12/base"   as it was named; a path in full
    verb = "deploy"             deploy, switch, upgrade or rollback
    previous = 3                the generation that was current before; 0: none
    created = 2026-11-23T10:15:00Z
    pinned = false
    title = "Debian 12.4"       the commit's version or subject
    committed = 2026-11-20T08:00:00Z
    certified = ["release"]     the trusted keys that signed the commit, when it was deployed
    packages = "12 upgraded"    against the generation before
    conflicts = 0               in /etc, when it was merged

    [declares]                  data versions of the commit (fsview.data-versions)
    postgresql = "15"

    [high-water.postgresql]     the highest that ever was current in this stateroot, carried from one to the next
    version = "15"
    deployment = "5b8e….0"
    created = 2026-11-23T10:15:00Z

    [newest."debian/12/base"]   of each ref the newest commit that ever was deployed in its name, carried on as well
    commit = "5b8e…"
    committed = 2026-11-20T08:00:00Z

    [restore]                   /var is to be exchanged with the directory var-restored here, unless it is that already
    inode = 1234

It is written once and renamed into place; pinning writes it anew. An unknown key is an error: the file was edited by
hand, or is of a newer fsview, and what it means can't be guessed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from store.errors import SysrootError
from tools.sysroot.durable import write_durably
from tools.sysroot.trusted import read_text

ORIGIN_FILE: Final = "origin.toml"
_DEPLOYMENT: Final = re.compile(r"([0-9a-f]{64})\.[0-9]{1,9}")
_TYPES: Final[dict[str, type]] = {
    "commit": str, "ref": str, "deployment": str, "source": str, "verb": str, "previous": int, "created": datetime,
    "pinned": bool, "title": str, "committed": datetime, "certified": list, "packages": str, "conflicts": int,
}  # fmt: skip
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_NEEDED: Final = ("commit", "deployment", "created")


@dataclass(frozen=True, slots=True)
class HighWater:
    """The highest version of some data that ever was current: of which deployment, and since when."""

    version: str
    deployment: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest commit of a ref that ever was deployed, and its time."""

    commit: str
    committed: datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """See the module."""

    commit: str
    deployment: str
    created: datetime
    ref: str | None = None
    source: str = ""
    verb: str = "deploy"
    previous: int = 0
    pinned: bool = False
    title: str = ""
    committed: datetime = _EPOCH
    certified: tuple[str, ...] = ()
    packages: str = ""
    conflicts: int = 0
    declares: Mapping[str, str] = field(default_factory=dict)
    high_water: Mapping[str, HighWater] = field(default_factory=dict)
    newest: Mapping[str, Newest] = field(default_factory=dict)
    restore_inode: int = 0

    def save(self, path: Path) -> None:
        """Write the file, durably."""
        import tomli_w

        origin = {key: getattr(self, key) for key in _TYPES if getattr(self, key) is not None}
        tables: dict[str, Any] = {"origin": origin | {"certified": list(self.certified)}}
        tables["declares"] = dict(self.declares)
        tables["high-water"] = {name: asdict(mark) for name, mark in self.high_water.items()}
        tables["newest"] = {ref: asdict(newest) for ref, newest in self.newest.items()}
        if self.restore_inode:
            tables["restore"] = {"inode": self.restore_inode}
        write_durably(path, tomli_w.dumps(tables))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Parse the file at *path*.

        Raises:
            SysrootError: it is not there, or is not what fsview wrote.
            FormatError, AccessError: it is no plain file, or somebody else's.
        """
        try:
            return cls(**_fields(tomllib.loads(read_text(path))))
        except FileNotFoundError:
            raise SysrootError(f"{path} is missing: the generation is damaged; {_ADVICE}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, _WrongError) as error:
            raise SysrootError(f"{path}: {error}; correct the file by hand, or {_ADVICE}") from error

    def with_pin(self, pinned: bool) -> Origin:
        """Return the same, pinned or not."""
        return replace(self, pinned=pinned)


_ADVICE: Final = "remove its directory if it is not the current generation"


class _WrongError(Exception):
    """A value of the file is not what it should be."""


def _fields(values: dict[str, Any]) -> dict[str, Any]:
    _refuse_unknown(values, {"origin", "declares", "high-water", "newest", "restore"}, "")
    origin = _table(values, "origin")
    _refuse_unknown(origin, set(_TYPES), "origin.")
    missing = [key for key in _NEEDED if key not in origin]
    if missing:
        raise _WrongError(f"'origin.{missing[0]}' is missing")
    for key, value in origin.items():
        _check_type(f"origin.{key}", value, _TYPES[key])
    match = _DEPLOYMENT.fullmatch(origin["deployment"])
    if match is None or match[1] != origin["commit"]:
        raise _WrongError(f"'origin.deployment' is {origin['deployment']!r}, no deployment of the commit")
    if origin.get("previous", 0) < 0:
        raise _WrongError(f"'origin.previous' is {origin['previous']}, no generation")
    origin["certified"] = tuple(str(name) for name in origin.get("certified", ()))
    return origin | {
        "declares": _declares(_table(values, "declares")),
        "high_water": {name: _mark(name, value) for name, value in _table(values, "high-water").items()},
        "newest": {ref: _newest(ref, value) for ref, value in _table(values, "newest").items()},
        "restore_inode": _inode(_table(values, "restore")),
    }


def _declares(values: dict[str, Any]) -> dict[str, str]:
    for name, value in values.items():
        _check_type(f"declares.{name}", value, str)
    return values


def _mark(name: str, value: Any) -> HighWater:
    _check_table(f"high-water.{name}", value, {"version": str, "deployment": str, "created": datetime})
    if not _DEPLOYMENT.fullmatch(value["deployment"]):
        raise _WrongError(f"'high-water.{name}.deployment' is {value['deployment']!r}, no deployment")
    return HighWater(**value)


def _newest(ref: str, value: Any) -> Newest:
    _check_table(f"newest.{ref}", value, {"commit": str, "committed": datetime})
    return Newest(**value)


def _check_table(name: str, value: Any, types: Mapping[str, type]) -> None:
    """Refuse what does not have just these keys, with values of their types."""
    _check_type(name, value, dict)
    _refuse_unknown(value, set(types), f"{name}.")
    for key, kind in types.items():
        _check_type(f"{name}.{key}", value.get(key), kind)


def _inode(values: dict[str, Any]) -> int:
    _refuse_unknown(values, {"inode"}, "restore.")
    inode = values.get("inode", 0)
    _check_type("restore.inode", inode, int)
    return int(inode)


def _table(values: dict[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name, {})
    _check_type(name, found, dict)
    assert isinstance(found, dict)
    return found


def _check_type(key: str, value: object, kind: type) -> None:
    if type(value) is not kind or (isinstance(value, datetime) and value.tzinfo is None):
        names = {str: "a string", int: "a number", bool: "true or false", list: "a list", dict: "a table"}
        raise _WrongError(f"{key!r} must be {names.get(kind, 'a time with its zone')}, not {value!r}")


def _refuse_unknown(values: dict[str, Any], known: set[str], prefix: str) -> None:
    unknown = sorted(values.keys() - known)
    if unknown:
        raise _WrongError(f"unknown key {prefix + unknown[0]!r}")
