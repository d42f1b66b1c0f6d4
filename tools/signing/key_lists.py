"""Lists of Ed25519 keys, OpenSSH's and OSTree's, read as OpenSSH reads its own: only a newline ends a line.

    ssh-ed25519 AAAA… comment                  id_ed25519.pub, authorized_keys
    alice@example.org ssh-ed25519 AAAA…        allowed_signers; the name is alice@example.org
    hM+c…=                                     OSTree's: base64 of the 32 bytes, one a line

What can't be understood is an error, never passed over: a list that trusts less than its reader thinks is safe, one
whose restrictions ("valid-before=…", "cert-authority", "!mallory") are overlooked is not. Nor may a line have control
characters, wherever: an editor or a terminal shows something else than what is read. Only keys of other kinds are
skipped, as fsview has no signatures by them.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from typing import Final

from store.errors import FormatError
from tools.signing.ed25519 import PUBLIC_BYTES, SSH_TYPE, PublicKey, ssh_blob, why_no_key

KEYS_MAX: Final = 256
_BLANK: Final = re.compile(r"[ \t]+")
_OTHER_TYPES: Final = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9-]+(@openssh\.com)?")
# What sshd(8) and ssh-keygen(1) know without "=", in any case; those with it are seen by that.
_OPTIONS: Final = re.compile(
    r"(no-)?(agent-forwarding|port-forwarding|pty|user-rc|x11-forwarding|touch-required)"
    r"|cert-authority|restrict|verify-required",
    re.IGNORECASE,
)


def parse_public_keys(where: str, data: bytes) -> Iterator[PublicKey]:
    """Yield the Ed25519 keys of a list of OpenSSH's or OSTree's.

    Raises:
        FormatError: there is a line that is neither, or there are more than KEYS_MAX keys.
    """
    if b"PRIVATE KEY" in data:
        raise FormatError(f"{where} is a secret key; name the public one, which ssh-keygen wrote to {where}.pub")
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise FormatError(f"{where} is no list of public keys: it is not text, and no GPG keyring") from None
    count = 0
    for number, line in enumerate(lines, 1):
        key = _parse_line(f"{where}, line {number}", line.removesuffix("\r"))
        if key is not None:
            yield key
            count += 1
        if count > KEYS_MAX:
            raise FormatError(f"{where} has more than {KEYS_MAX} keys, each of which would be tried; trust fewer")


def _parse_line(where: str, line: str) -> PublicKey | None:
    odd = next((c for c in line if unicodedata.category(c) == "Cc" and c != "\t"), "")
    if odd:
        raise FormatError(f"{where}: there is the control character {odd!r}, which no list of keys has; remove it")
    words = [word for word in _BLANK.split(line) if word]
    if not words or words[0].startswith("#"):
        return None
    if len(words) == 1:
        return PublicKey(_ostree_key(where, words[0]))
    return _ssh_line(where, words)


def _ssh_line(where: str, words: list[str]) -> PublicKey | None:
    at = next((index for index, word in enumerate(words) if _OTHER_TYPES.fullmatch(word)), -1)
    if at < 0 or at + 1 == len(words):
        raise FormatError(f"{where}: this is no public key, neither OpenSSH's nor OSTree's")
    before = words[:at]
    if before and before[0].startswith("@"):
        raise FormatError(f"{where}: fsview knows no {before[0]!r}; remove the line")
    if len(before) > 1 or any(_restricts(word) for word in before):
        raise FormatError(
            f"{where}: {' '.join(before)!r} restricts this key, by rules that fsview does not know; "
            f"write the key into a list of its own, without them"
        )
    if words[at] != SSH_TYPE:
        return None
    return PublicKey(_ssh_key(where, words[at + 1]), " ".join(before or words[at + 2 :]))


def _restricts(word: str) -> bool:
    """Whether a word before the key is more than names: options, or a name that is not meant."""
    return any(c in word for c in '="!') or any(_OPTIONS.fullmatch(part) for part in word.split(","))


def _ssh_key(where: str, text: str) -> bytes:
    blob = _decode(where, text)
    if len(blob) < PUBLIC_BYTES or ssh_blob(blob[-PUBLIC_BYTES:]) != blob:
        raise FormatError(f"{where}: the key is damaged; copy it anew")
    return _checked(where, blob[-PUBLIC_BYTES:])


def _ostree_key(where: str, text: str) -> bytes:
    raw = _decode(where, text)
    if len(raw) == 2 * PUBLIC_BYTES:
        raise FormatError(f"{where}: this is a secret key of OSTree's; name the public one, its last 32 bytes")
    if len(raw) != PUBLIC_BYTES:
        raise FormatError(f"{where}: a public key of OSTree's has {PUBLIC_BYTES} bytes, this one {len(raw)}")
    return _checked(where, raw)


def _checked(where: str, raw: bytes) -> bytes:
    reason = why_no_key(raw)
    if reason:
        raise FormatError(f"{where}: this is no key: {reason}; remove it")
    return raw


def _decode(where: str, text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise FormatError(f"{where}: this is no base64, as a public key is") from None
