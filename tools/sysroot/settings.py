"""What SYSROOT/fsview.toml says.

    [sysroot]
    format = 1
    id = "4b0d7c6a9f3e2d18"         of this sysroot alone; its refs in the repository are named by it
    repository = "/srv/releases"    relative to the sysroot, if it is no absolute path

    [policy]
    require = "certified"           deploy only what a trusted key signed; "" (the default): anything
    trusted = ["keys/release.pub"]  files of keys; relative to the sysroot, if they are no absolute paths

A repository's file of the same name has no [sysroot], and a sysroot's no top-level "format": neither is mistaken for
the other. A key that is unknown is an error, or a misspelt policy would be none.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from store.errors import FormatError
from tools.sysroot.durable import write_durably

SETTINGS_FILE: Final = "fsview.toml"
CERTIFIED: Final = "certified"
SYSROOT_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """What a sysroot accepts: with require "certified", only commits that a key of *trusted* (files) signed."""

    require: str = ""
    trusted: tuple[Path, ...] = ()

    @property
    def is_certified(self) -> bool:
        """Whether only signed commits are accepted."""
        return self.require == CERTIFIED

    def relative_to(self, directory: Path) -> Policy:
        """Return the same, the paths relative to *directory*."""
        return Policy(self.require, tuple(directory / path for path in self.trusted))


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
        policy = {"require": self.policy.require, "trusted": [os.fspath(key) for key in self.policy.trusted]}
        try:
            text = tomli_w.dumps({"sysroot": sysroot, "policy": policy})
            write_durably(path, "# An fsview sysroot; see 'fsview sysroot --help'.\n" + text)
        except UnicodeEncodeError:
            raise FormatError(f"{path} can't name a path that is not UTF-8: {self.repository!r}") from None

    @classmethod
    def load(cls, path: Path) -> Self:
        """Parse the file at *path*.

        Raises:
            FormatError: it is not TOML, not a sysroot's, of a newer format, or has keys or values that are not valid.
        """
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: {error}; correct the file by hand") from error
        if "sysroot" not in values and "format" in values:
            raise FormatError(f"{path.parent} is a repository, not a sysroot; name the sysroot with --sysroot")
        reader = _Reader(path)
        sysroot = reader.table(values, "sysroot", {"format", "id", "repository"})
        policy = reader.table(values, "policy", {"require", "trusted"})
        reader.refuse_unknown(values, {"sysroot", "policy"}, "")
        return cls(*reader.sysroot(sysroot), reader.policy(policy))


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def table(self, values: dict[str, Any], name: str, known: set[str]) -> dict[str, Any]:
        found = values.get(name, {})
        if not isinstance(found, dict):
            raise self._wrong(name, found, "a table")
        self.refuse_unknown(found, known, f"{name}.")
        return found

    def refuse_unknown(self, values: dict[str, Any], known: set[str], prefix: str) -> None:
        unknown = sorted(values.keys() - known)
        if unknown:
            raise FormatError(
                f"{self._path}: unknown key {prefix + unknown[0]!r}; known are {', '.join(sorted(known))}. "
                f"Correct the file by hand, or use a newer fsview"
            )

    def sysroot(self, values: dict[str, Any]) -> tuple[str, Path]:
        version, identity, repository = (values.get(key) for key in ("format", "id", "repository"))
        if type(version) is not int or version < 1:
            raise self._wrong("sysroot.format", version, "a number from 1")
        if version > SYSROOT_FORMAT:
            raise FormatError(f"{self._path}: the sysroot has format {version}; use a newer fsview")
        if not isinstance(identity, str) or not identity.isalnum():
            raise self._wrong("sysroot.id", identity, "hex digits")
        if not isinstance(repository, str) or not repository:
            raise self._wrong("sysroot.repository", repository, "a path")
        return identity, Path(repository)

    def policy(self, values: dict[str, Any]) -> Policy:
        require, trusted = values.get("require", ""), values.get("trusted", [])
        if require not in ("", CERTIFIED):
            raise self._wrong("policy.require", require, f'"{CERTIFIED}" or ""')
        if not isinstance(trusted, list) or not all(isinstance(key, str) and key for key in trusted):
            raise self._wrong("policy.trusted", trusted, "a list of paths")
        return Policy(require, tuple(Path(key) for key in trusted))

    def _wrong(self, key: str, value: object, expected: str) -> FormatError:
        return FormatError(f"{self._path}: {key!r} must be {expected}, not {value!r}; correct the file by hand")
