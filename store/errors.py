"""Every error that fsview raises on purpose, in one tree.

    FsviewError                     exit 1   EIO
    ├── NotFoundError               exit 1   ENOENT   a name that nothing has
    │   └── PrunedError             exit 1   ESTALE   what was here until a prune deleted it
    ├── InvalidNameError            exit 2   EINVAL   a name or an argument that nothing can have
    ├── FormatError                 exit 10  EIO      not a store, a newer version, an object not in normal form
    ├── ConflictError               exit 11  EAGAIN   somebody else was faster: retry
    ├── AccessError                 exit 1   EACCES   this user may not
    ├── CorruptionError             exit 12  EIO      stored bytes are not what was written
    ├── SysrootError                exit 15  EIO      a sysroot that is not as it should be, or refuses a change
    ├── SourceError                 exit 16  EIO      the tree to be committed can't be read or recorded
    ├── MountError                  exit 17  EIO      a view can't be mounted or unmounted
    ├── SandboxError                exit 18  EIO      a command can't be run inside a tree
    └── UntrustedError              exit 19  EIO      a commit that nobody signed who is trusted

One class for each decision that a caller can take. The text says what, where and what would mend it.
`exit_status` is the process's, `errno` the one a FUSE request gets. OSError passes as it is, with its path;
AssertionError is our own bug and is never caught.
"""

from __future__ import annotations

from errno import EACCES, EAGAIN, EINVAL, EIO, ENOENT, ESTALE
from typing import ClassVar


class FsviewError(Exception):
    """Base of all; raised itself only where no caller can do better than to show it."""

    exit_status: ClassVar[int] = 1
    errno: ClassVar[int] = EIO


class NotFoundError(FsviewError):
    """A revision, ref, path or object that is not there."""

    errno = ENOENT


class PrunedError(NotFoundError):
    """What was here until a prune deleted it; the kernel looks the path up again."""

    errno = ESTALE


class InvalidNameError(FsviewError):
    """A name, an option's value or a combination of options that is never valid."""

    exit_status, errno = 2, EINVAL


class FormatError(FsviewError):
    """Bytes that are not what they should be: a repository, an object, a stream."""

    exit_status = 10


class ConflictError(FsviewError):
    """Another process changed what this one stood on; nothing was done, a retry may pass."""

    exit_status, errno = 11, EAGAIN


class AccessError(FsviewError):
    """What this user may not read or write."""

    errno = EACCES


class CorruptionError(FsviewError):
    """Stored bytes are not what was written."""

    exit_status = 12

    def __init__(self, what: str, where: str, expected: str, found: str) -> None:
        super().__init__(
            f"{what} in {where} is damaged: expected {expected}, found {found}; "
            f"run 'fsview fsck' to see what else is, and restore it from a copy of the repository"
        )
        self.what, self.where, self.expected, self.found = what, where, expected, found

    def __reduce__(self) -> tuple[type[CorruptionError], tuple[str, str, str, str]]:
        """Let other processes raise it."""
        return type(self), (self.what, self.where, self.expected, self.found)


class SysrootError(FsviewError):
    """A sysroot is damaged, or what was asked for would break what it keeps."""

    exit_status = 15


class SourceError(FsviewError):
    """The tree to be committed can't be read, or holds what a commit can't."""

    exit_status = 16


class MountError(FsviewError):
    """A view can't be mounted, found or unmounted."""

    exit_status = 17


class SandboxError(FsviewError):
    """A command can't be run inside a tree; it was not started."""

    exit_status = 18


class UntrustedError(FsviewError):
    """A commit that must be certified, and is not: no signature by a trusted key that is valid."""

    exit_status = 19
