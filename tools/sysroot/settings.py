"""What SYSROOT/fsview.toml says.

    [sysroot]
    format = 1
    id = "4b0d7c6a9f3e2d18"         of this sysroot alone; its refs in the repository are named by it
    repository = "/srv/releases"    relative to the sysroot, if it is no absolute path

    [policy]
    require = "certified"           deploy only what a trusted key signed; "" (the default): anything
    trusted = ["keys/release.pub"]  files of keys; relative to the sysroot, if they are no absolute paths
    ref-bindings = "ignore"         under any ref, as where refs are moved to promote what is signed; "obey" (the
                                    default): what says for which refs it was made under no other
    collection = "org.example.Os"   only commits that are bound to this collection of OSTree's

A repository's file of the same name has no [sysroot], and a sysroot's no top-level "format": neither is mistaken for
the other. A key that is unknown is an error, or a misspelt policy would be none; so are others without "require".
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from store.errors import FormatError, FsviewError
from tools.sysroot.durable import write_durably
from tools.sysroot.trusted import read_text

SETTINGS_FILE: Final = "fsview.toml"
CERTIFIED: Final = "certified"
OBEY, IGNORE = "obey", "ignore"
SYSROOT_FORMAT: Final = 1
_POLICY: Final = ("require", "trusted", "ref-bindings", "collection")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a sysroot accepts: with require "certified", only commits that a key of *trusted* (files) signed."""

    require: str = ""
    trusted: tuple[Path, ...] = ()
    ref_bindings: str = OBEY
    collection: str = ""

    @property
    def is_certified(self) -> bool:
        """Whether only signed commits are accepted."""
        return self.require == CERTIFIED

    def relative_to(self, directory: Path) -> Policy:
        """Return the same, the paths relative to *directory*."""
        return replace(self, trusted=tuple(directory / path for path in self.trusted))

    def table(self) -> dict[str, object]:
        """Return what is written of it."""
        table: dict[str, object] = {"require": self.require, "trusted": [os.fspath(key) for key in self.trusted]}
        table |= {"ref-bindings": self.ref_bindings} if self.ref_bindings != OBEY else {}
        return table | ({"collection": self.collection} if self.collection else {})


@dataclass(frozen=True, slots=True)
class SysrootSettings:
    """The file's contents."""

    identity: str
    repository: Path
    policy: Policy = field(default_factory=Policy)

    def save(self, path: Path) -> None:
        """Write the file, durably."""
        import tomli_w

        sysroot = {"format": SYSROOT_FORMAT, "id": self.identity, "repository": os.fspath(self.repository)}
        try:
            text = tomli_w.dumps({"sysroot": sysroot, "policy": self.policy.table()})
            write_durably(path, "# An fsview sysroot; see 'fsview sysroot --help'.\n" + text)
        except UnicodeEncodeError:
            raise FormatError(f"{path} can't name a path that is not UTF-8: {self.repository!r}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Parse the file at *path*.

        Raises:
            FormatError: it is not TOML, not a sysroot's, of a newer format, or has keys or values that are not valid.
            AccessError: it is somebody else's.
        """
        try:
            values = tomllib.loads(read_text(path))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"{path}: {error}; correct the file by hand") from error
        if "sysroot" not in values and "format" in values:
            raise FormatError(f"{path.parent} is a repository, not a sysroot; name the sysroot with --sysroot")
        reader = _Reader(path)
        sysroot = reader.table(values, "sysroot", ("format", "id", "repository"))
        policy = reader.table(values, "policy", _POLICY)
        reader.refuse_unknown(values, ("sysroot", "policy"), "")
        return cls(*reader.sysroot(sysroot), reader.policy(policy))


def is_sysroot(directory: Path) -> bool:
    """Whether a directory is a sysroot, or might be one, as its settings can't be read; a repository isn't."""
    path = directory / SETTINGS_FILE
    try:
        return "sysroot" in tomllib.loads(read_text(path))
    except FileNotFoundError:
        return False
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, FsviewError, OSError):
        return True


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, values: dict[str, Any], name: str, known: Sequence[str]) -> dict[str, Any]:
        found = values.get(name, {})
        if not isinstance(found, dict):
            raise self._wrong(name, found, "a table")
        self.refuse_unknown(found, known, f"{name}.")
        return found

    def refuse_unknown(self, values: dict[str, Any], known: Sequence[str], prefix: str) -> None:
        unknown = sorted(values.keys() - set(known))
        if unknown:
            raise FormatError(
                f"{self._path}: unknown key {prefix + unknown[0]!r}; known are {', '.join(known)}. "
                f"Correct the file by hand, or use a newer fsview"
            )

    def sysroot(self, values: dict[str, Any]) -> tuple[str, Path]:
        version, identity, repository = (values.get(key) for key in ("format", "id", "repository"))
        if type(version) is not int or version < 1:
            raise self._wrong("sysroot.format", version, "a number from 1")
        if version > SYSROOT_FORMAT:
            raise FormatError(f"{self._path}: the sysroot has format {version}; use a newer fsview")
        if not isinstance(identity, str) or not (identity.isalnum() and identity.isascii()):
            raise self._wrong("sysroot.id", identity, "hex digits")
        if not isinstance(repository, str) or not repository:
            raise self._wrong("sysroot.repository", repository, "a path")
        return identity, Path(repository)

    def policy(self, values: dict[str, Any]) -> Policy:
        require, trusted, bindings, collection = map(values.get, _POLICY, (None, [], OBEY, ""))
        if require not in (None, "", CERTIFIED):
            raise self._wrong("policy.require", require, f'"{CERTIFIED}" or ""')
        if not isinstance(trusted, list) or not all(isinstance(key, str) and key for key in trusted):
            raise self._wrong("policy.trusted", trusted, "a list of paths")
        if bindings not in (OBEY, IGNORE):
            raise self._wrong("policy.ref-bindings", bindings, f'"{OBEY}" or "{IGNORE}"')
        if not isinstance(collection, str):
            raise self._wrong("policy.collection", collection, "a string")
        if require is None and values:
            raise FormatError(
                f"{self._path}: there is a [policy] without 'require', so nothing would be asked for; "
                f'say require = "{CERTIFIED}", or "" for no policy'
            )
        return Policy(require or "", tuple(Path(key) for key in trusted), bindings, collection)

    def _wrong(self, key: str, value: object, expected: str) -> FormatError:
        return FormatError(f"{self._path}: {key!r} must be {expected}, not {value!r}; correct the file by hand")
