"""Refs: names that move from commit to commit, and the log of their moves.

A name is components of letters, digits, "_", "-" and "." joined by "/", as OSTree has it; a remote's ref is stored as
remote:name. No ref is a prefix directory of another. Each ref, and each directory of refs, has an id that is never
given out again: the view numbers its directories with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from store.database import Reading, Writing
from store.errors import ConflictError, CorruptionError, InvalidNameError, NotFoundError
from store.parsing import parsed
from store.presence import check_no_ref, check_refs
from store.schema import CommitNumber, RefId, ReflogRecord, RefName, RefRecord, id_key, key_id, pair_key

VIEW_LAG_S: Final = 0.01  # how long a view may believe where a ref pointed; whoever moves one waits that long …
COMMIT_LAG_S: Final = 1.0  # … and whoever deletes a commit, as long as a view may believe that it is there …
TICKS_S: Final = 0.02  # … and two ticks of the slowest kernel's clock, in which it counts, rounding up
SYSROOT_REFS: Final = "fsview/sysroot/"  # by which sysroots keep what they deployed; not shown unless asked for
_OWN: Final = "fsview"
NAME_BYTES_MAX: Final = 500  # LMDB's keys have 511
_NAME = re.compile(r"[\w][-._\w]*(/[\w][-._\w]*)*")
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


def check_ref_name(name: str) -> None:
    """Refuse what OSTree refuses.

    Raises:
        InvalidNameError: not a ref name, or one that looks like a checksum.
    """
    remote, colon, local = name.rpartition(":")
    if colon and not (_NAME.fullmatch(remote) and "/" not in remote):
        raise InvalidNameError(f"{remote!r} is not the name of a remote: letters, digits, '_', '-' and '.'")
    if not _NAME.fullmatch(local):
        raise InvalidNameError(
            f"{name!r} is not a ref name: use letters, digits, '_', '-' and '.' in components joined by '/', "
            f"none of which begins with '-' or '.' (such as debian/12/amd64/base)"
        )
    if _CHECKSUM.fullmatch(local):
        raise InvalidNameError(f"{name!r} looks like a checksum; a ref can't be named so")
    if len(name.encode()) > NAME_BYTES_MAX or any(len(part.encode()) > 255 for part in local.split("/")):
        raise InvalidNameError(f"the ref name {name[:40]!r}… is too long: {NAME_BYTES_MAX} bytes, 255 a component")


def is_ref_name(name: str) -> bool:
    """Whether a ref can be called so."""
    try:
        check_ref_name(name)
    except InvalidNameError:
        return False
    return True


def find_ref(reading: Reading, name: str) -> RefRecord | None:
    """Return where *name* points, or None.

    Raises:
        CorruptionError: there is such a ref, but where it points is not found.
    """
    key = name.encode("utf-8", "surrogatepass")  # a name that is no text is one that no ref has
    value = reading.get(b"ref", key) if 0 < len(key) <= NAME_BYTES_MAX else None
    if value is None:
        if not isinstance(reading, Writing):  # many may be written together
            check_no_ref(reading, key)
        return None
    return parsed(f"ref {name!r}", reading.where, value, RefRecord.unpack)


def list_refs(reading: Reading, prefix: str = "") -> Iterator[tuple[str, RefRecord]]:
    """Yield the refs whose name is *prefix* or lies below it, by name; all without a prefix.

    Raises:
        CorruptionError: there is another one.
    """
    directory, found = prefix.rstrip("/"), set()
    start = directory.encode("utf-8", "surrogatepass")
    for key, value in reading.items(b"ref", prefix=start):
        found.add(key)
        name = _text(reading, key)
        if not directory or name == directory or name.startswith((directory + "/", directory + ":")):
            yield name, parsed(f"ref {name!r}", reading.where, value, RefRecord.unpack)
    if not isinstance(reading, Writing):
        check_refs(reading, start, found)


def _text(reading: Reading, key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise CorruptionError(f"ref {key.hex()}", reading.where, "a name in UTF-8", "other bytes") from None


def shown_refs(reading: Reading, prefix: str = "") -> Iterator[tuple[str, RefRecord]]:
    """Yield the same, but the refs of sysroots only where *prefix* asks for them."""
    for name, record in list_refs(reading, prefix):
        if prefix.startswith(_OWN) or not name.startswith(SYSROOT_REFS):
            yield name, record


def has_shown_refs(reading: Reading, directory: bytes) -> bool:
    """Whether a directory of refs has any besides those of sysroots."""
    own, sysroots = _OWN.encode(), SYSROOT_REFS.encode()
    if directory + b"/" == sysroots:
        return False
    if directory != own:
        return True
    first = next(reading.items(b"ref", prefix=own + b"/"), None)
    behind = next(reading.items(b"ref", sysroots[:-1] + b"0", own + b"/"), None)  # "0" follows "/"
    return behind is not None or (first is not None and not first[0].startswith(sysroots))


ANYTHING: Final = CommitNumber(-1)


def reflog(reading: Reading, ref_id: RefId, head: CommitNumber | None = ANYTHING) -> Iterator[ReflogRecord]:
    """Yield the moves of a ref, the newest first; *head* is where it is, if that is known.

    Raises:
        CorruptionError: a move is missing: the next one began elsewhere.
    """
    expected = head
    for key in reading.keys_backwards(b"reflog", id_key(ref_id)):
        value = reading.need(b"reflog", key)
        move = parsed(f"the log of ref {ref_id}", reading.where, value, ReflogRecord.unpack)
        if expected not in (ANYTHING, move.new):
            break
        yield move
        expected = move.old
    if expected not in (ANYTHING, None):
        raise CorruptionError(f"the log of ref {ref_id}", reading.where, f"a move to commit {expected}", "none")


def set_ref(
    writing: Writing,
    name: str,
    new: CommitNumber | None,
    *,
    time_s: int,
    message: str,
    expected: CommitNumber | None = ANYTHING,
) -> None:
    """Point *name* at commit *new*, or delete it (None), and log it; part of the caller's transaction.

    Raises:
        InvalidNameError: not a ref name, or it would be a prefix of another ref, or below one.
        ConflictError: the ref is not where *expected* says (None: it must not exist).
        NotFoundError: it is to be deleted, but is not there.
        PrunedError: the commit was deleted since its number was looked up.
    """
    check_ref_name(name)
    current = find_ref(writing, name)
    old = current.commit if current else None
    if expected not in (ANYTHING, old):
        raise ConflictError(f"the ref {name} was moved by another process meanwhile; try again")
    if new is None:
        if current is None:
            raise NotFoundError(f"there is no ref {name}")
        _delete(writing, name, current.ref_id)
        ref_id = current.ref_id
    else:
        writing.need(b"commit", id_key(new))
        ref_id = current.ref_id if current else _create(writing, name)
        writing.put(b"ref", name.encode(), RefRecord(ref_id, new).pack())
    if not name.startswith(SYSROOT_REFS):  # which nobody looks at in a view
        writing.settle_s = VIEW_LAG_S + TICKS_S
    sequence = writing.take_id("reflog")
    writing.put(b"reflog", pair_key(ref_id, sequence), ReflogRecord(old, new, time_s, message).pack())


def _prefixes(name: str) -> list[str]:
    """Return the directories that *name* lies in, the outermost first; of a remote's ref, with the remote."""
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def check_ref_place(reading: Reading, name: str) -> None:
    """Refuse a new ref that another stands in the way of.

    Raises:
        InvalidNameError: it is a directory of refs, or lies below a ref.
    """
    if reading.get(b"refdir", name.encode()) is not None:
        below = _first_below(reading, name)
        raise InvalidNameError(f"{name} can't be a ref, as it is a directory of refs ({below}); choose another name")
    for prefix in _prefixes(name):
        if find_ref(reading, prefix) is not None:
            raise InvalidNameError(f"{name} can't be a ref, as {prefix} is one; choose another name, or delete that")


def _create(writing: Writing, name: str) -> RefId:
    check_ref_place(writing, name)
    for prefix in _prefixes(name):
        if writing.get(b"refdir", prefix.encode()) is None:
            directory_id = RefId(writing.take_id("ref"))
            writing.put(b"refdir", prefix.encode(), id_key(directory_id))
            writing.put(b"refid", id_key(directory_id), RefName(True, True, prefix.encode()).pack())
    ref_id = RefId(writing.take_id("ref"))
    writing.put(b"refid", id_key(ref_id), RefName(False, True, name.encode()).pack())
    return ref_id


def _delete(writing: Writing, name: str, ref_id: RefId) -> None:
    writing.delete(b"ref", name.encode())
    writing.put(b"refid", id_key(ref_id), RefName(False, False, name.encode()).pack())
    for prefix in reversed(_prefixes(name)):
        if _first_below(writing, prefix) is not None:
            return
        directory_id = key_id(writing.need(b"refdir", prefix.encode()))
        writing.delete(b"refdir", prefix.encode())
        writing.put(b"refid", id_key(directory_id), RefName(True, False, prefix.encode()).pack())


def _first_below(reading: Reading, directory: str) -> str | None:
    """Return a ref in *directory*, if there is one; the refs of a remote that is called so are not in it."""
    return next((key.decode() for key, _ in reading.items(b"ref", prefix=f"{directory}/".encode())), None)
