"""The files that say whom we trust: OpenSSH's public keys and lists of them, OSTree's public keys, GPG keyrings.

    ssh-ed25519 AAAA… comment                  id_ed25519.pub, authorized_keys
    alice@example.org ssh-ed25519 AAAA…        allowed_signers; the name is alice@example.org
    hM+c…=                                     OSTree's: base64 of the 32 bytes, one a line
    -----BEGIN PGP PUBLIC KEY BLOCK-----       what `gpg --export --armor` writes; binary and keybox files, too

What can't be understood is an error, never passed over: a list that trusts less than its reader thinks is safe, one
whose restrictions ("valid-before=…", "cert-authority") are overlooked is not. Only keys of other kinds are skipped, as
fsview has no signatures by them.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import FormatError
from tools.signing.ed25519 import PUBLIC_BYTES, SSH_TYPE, PublicKey, ssh_blob

_ARMOUR: Final = re.compile(
    rb"^-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(?:[^\r\n]+:[^\r\n]*\r?\n)*[ \t]*\r?\n"
    rb"([A-Za-z0-9+/=\s]+?)(?:\r?\n=[A-Za-z0-9+/]{4}\s*)?-----END PGP PUBLIC KEY BLOCK-----",
    re.MULTILINE,
)
_KEYBOX: Final = slice(8, 12)
_PACKET_BIT, _NEW_FORMAT_BIT, _PUBLIC_KEY_TAG = 0x80, 0x40, 6
_OTHER_TYPES: Final = re.compile(r"(sk-)?(ssh|ecdsa)-[a-z0-9-]+(@openssh\.com)?")


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Keys whose signatures count; of GPG whole keyrings, as gpgv reads them."""

    ed25519: tuple[PublicKey, ...] = ()
    keyrings: tuple[bytes, ...] = ()

    @classmethod
    def load(cls, paths: Iterable[Path]) -> TrustedKeys:
        """Return the keys of all files.

        Raises:
            FormatError: a file has no key in it that fsview knows, or a line that it does not understand.
            OSError: one can't be read.
        """
        keys: dict[PublicKey, PublicKey] = {}
        keyrings: list[bytes] = []
        for path in paths:
            data = path.read_bytes()
            keyring = _keyring(path, data)
            if keyring is not None:
                keyrings.append(keyring)
                continue
            found = list(parse_public_keys(str(path), data))
            if not found:
                raise FormatError(f"{path} has no Ed25519 key in it, which are all that fsview knows besides GPG's")
            keys |= {key: key for key in found if key not in keys or not keys[key].name}
        return cls(tuple(keys.values()), tuple(keyrings))

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return bool(self.ed25519 or self.keyrings)


def parse_public_keys(where: str, data: bytes) -> Iterator[PublicKey]:
    """Yield the Ed25519 keys of a list of OpenSSH's or OSTree's.

    Raises:
        FormatError: there is a line that is neither.
    """
    if b"PRIVATE KEY" in data:
        raise FormatError(f"{where} is a secret key; name the public one, which ssh-keygen wrote to {where}.pub")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise FormatError(f"{where} is no list of public keys: it is not text, and no GPG keyring") from None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            key = _parse_line(f"{where}, line {number}", words)
            if key is not None:
                yield key


def _parse_line(where: str, words: list[str]) -> PublicKey | None:
    if len(words) == 1:
        return PublicKey(_ostree_key(where, words[0]))
    at = next((index for index, word in enumerate(words) if _OTHER_TYPES.fullmatch(word)), -1)
    if at < 0 or at + 1 == len(words):
        raise FormatError(f"{where}: this is no public key, neither OpenSSH's nor OSTree's")
    before = words[:at]
    if len(before) > 1 or any("=" in word or '"' in word or word == "cert-authority" for word in before):
        raise FormatError(
            f"{where}: {' '.join(before)!r} restricts this key, by rules that fsview does not know; "
            f"write the key into a list of its own, without them"
        )
    if before and before[0].startswith("@"):
        raise FormatError(f"{where}: fsview knows no {before[0]!r}; remove the line")
    if words[at] != SSH_TYPE:
        return None
    return PublicKey(_ssh_key(where, words[at + 1]), " ".join(before or words[at + 2 :]))


def _ssh_key(where: str, text: str) -> bytes:
    blob = _decode(where, text)
    if len(blob) < PUBLIC_BYTES or ssh_blob(blob[-PUBLIC_BYTES:]) != blob:
        raise FormatError(f"{where}: the key is damaged; copy it anew")
    return blob[-PUBLIC_BYTES:]


def _ostree_key(where: str, text: str) -> bytes:
    raw = _decode(where, text)
    if len(raw) == 2 * PUBLIC_BYTES:
        raise FormatError(f"{where}: this is a secret key of OSTree's; name the public one, its last 32 bytes")
    if len(raw) != PUBLIC_BYTES:
        raise FormatError(f"{where}: a public key of OSTree's has {PUBLIC_BYTES} bytes, this one {len(raw)}")
    return raw


def _decode(where: str, text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise FormatError(f"{where}: this is no base64, as a public key is") from None


def _keyring(path: Path, data: bytes) -> bytes | None:
    """Return the keyring in a file, without armour; None if it is none."""
    if b"-----BEGIN PGP" in data:
        blocks = [b64decode(match[1]) for match in _ARMOUR.finditer(data)]
        if not blocks:
            raise FormatError(f"{path}: the GPG key is damaged, or no public one; export it with 'gpg --export'")
        return b"".join(blocks)
    if data[_KEYBOX] == b"KBXf":
        return data
    if not data or not data[0] & _PACKET_BIT:
        return None
    tag = data[0] & 0x3F if data[0] & _NEW_FORMAT_BIT else (data[0] & 0x3F) >> 2
    return data if tag == _PUBLIC_KEY_TAG else None
