"""Keyrings of OpenPGP (RFC 4880): taken apart into packets, and all copies of a key put together.

Of two copies of a key gpgv sees the first alone, whatever the other says: that the key, or a subkey, was revoked, or
expires earlier or later. Put together, as `gpg --import` does it, a key has what any copy says of it. What of that is
true gpgv decides, which verifies each signature on a key; it heeds every valid revocation, and of other signatures the
newest. A revocation is told of the key that it names, wherever it stands, as a certificate of its own for example.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator
from hashlib import sha1
from typing import Final, NamedTuple

from store.errors import FormatError

_SIGNATURE, _PUBLIC_KEY, _USER_ID, _SUBKEY, _USER_ATTRIBUTE = 2, 6, 13, 14, 17
_SECRET: Final = (5, 7)
SIGNATURES_MAX: Final = 64
_KEY_REVOCATION: Final = 0x20
_ISSUER, _ISSUER_FINGERPRINT = 16, 33  # subpackets
_KEY_ID_BYTES: Final = 8
_BEGIN: Final = b"-----BEGIN PGP"
_ARMOUR: Final = re.compile(
    rb"^-----BEGIN PGP PUBLIC KEY BLOCK-----[ \t]*\r?\n(?:[^\r\n:]+:[^\r\n]*+\r?\n)*+[ \t]*\r?\n"
    rb"([A-Za-z0-9+/=\s]+?)(?:\r?\n=[A-Za-z0-9+/]{4}\s*)?-----END PGP PUBLIC KEY BLOCK-----",
    re.MULTILINE,
)
_KEYBOX_HEADER_BYTES, _KEYBOX_OPENPGP = 32, 2


class Packet(NamedTuple):
    """One packet: what it is, and its contents."""

    tag: int
    body: bytes

    def pack(self) -> bytes:
        """Return it with a header."""
        return bytes((0xC0 | self.tag, 0xFF)) + len(self.body).to_bytes(4, "big") + self.body


Key = dict[Packet, dict[Packet, None]]  # the key itself, user IDs and subkeys, each with the signatures behind it


def keyring_of(data: bytes) -> list[Packet] | None:
    """Return the packets of a file of public keys: armoured, binary, or gpg's keybox; None if it is none of these.

    Raises:
        FormatError: it is one, and damaged, or has secret keys.
    """
    if _BEGIN in data:
        data = _dearmoured(data)
    elif data[8:12] == b"KBXf":
        data = b"".join(_keybox_blocks(data))
    elif not data or not data[0] & 0x80 or _tag(data[0]) not in (_PUBLIC_KEY, _SIGNATURE):
        return None
    found = list(_packets(data))
    if any(packet.tag in _SECRET for packet in found):
        raise FormatError("it has a secret key in it; export the public one with: gpg --export")
    return found


def signature_packets(data: bytes) -> list[Packet]:
    """Return the signatures that *data* is made of.

    Raises:
        FormatError: it is something else, such as compressed data, which gpgv would unpack without end.
    """
    found = list(_packets(data))
    if not found or any(packet.tag != _SIGNATURE for packet in found):
        raise FormatError("it is no signature, or not only that")
    if len(found) > SIGNATURES_MAX:
        raise FormatError(f"it has {len(found)} signatures, where {SIGNATURES_MAX} are enough")
    return found


def issuer(signature: Packet) -> bytes:
    """Return the key ID that a signature names; b"" if it names none."""
    body = signature.body
    if body[:1] == b"\x03":
        return body[7:15]
    for kind, value in _subpackets(body):
        if kind == _ISSUER:
            return value
        if kind == _ISSUER_FINGERPRINT:
            return value[-_KEY_ID_BYTES:] if value[:1] == b"\x04" else value[1 : 1 + _KEY_ID_BYTES]
    return b""


def merged(keyrings: Iterable[Iterable[Packet]]) -> bytes:
    """Return one keyring with each key of *keyrings* once, and all that any copy says of it."""
    keys: dict[Packet, Key] = {}
    revocations: dict[bytes, dict[Packet, None]] = {}
    for keyring in keyrings:
        _collect(keyring, keys, revocations)
    return b"".join(packet.pack() for primary, key in keys.items() for packet in _flat(primary, key, revocations))


def _collect(keyring: Iterable[Packet], keys: dict[Packet, Key], revocations: dict[bytes, dict[Packet, None]]) -> None:
    key: Key = {}  # what stands before the first key belongs to none
    signatures: dict[Packet, None] = {}
    for packet in keyring:
        if packet.tag == _PUBLIC_KEY:
            key = keys.setdefault(packet, {packet: {}})
            signatures = key[packet]
        elif packet.tag in (_USER_ID, _USER_ATTRIBUTE, _SUBKEY):
            signatures = key.setdefault(packet, {})
        elif packet.tag == _SIGNATURE:
            signatures[packet] = None
            if _kind(packet) == _KEY_REVOCATION:
                revocations.setdefault(issuer(packet), {})[packet] = None


def _flat(primary: Packet, key: Key, revocations: dict[bytes, dict[Packet, None]]) -> Iterator[Packet]:
    """Yield the packets of a key in their order: itself and what is said of it, user IDs, subkeys."""
    own = {packet: None for signatures in key.values() for packet in signatures if _kind(packet) == _KEY_REVOCATION}
    yield primary
    yield from key[primary] | own | revocations.get(_key_id(primary), {})
    for part in sorted((part for part in key if part != primary), key=lambda part: part.tag == _SUBKEY):
        yield part
        yield from (packet for packet in key[part] if _kind(packet) != _KEY_REVOCATION)


def _key_id(primary: Packet) -> bytes:
    """Return the ID of a key; of versions that nobody has any more, and of those that gpgv does not know, b""."""
    if primary.body[:1] != b"\x04":
        return b"none"
    framed = b"\x99" + len(primary.body).to_bytes(2, "big") + primary.body
    return sha1(framed, usedforsecurity=False).digest()[-_KEY_ID_BYTES:]


def _kind(signature: Packet) -> int:
    body = signature.body
    at = 2 if body[:1] == b"\x03" else 1
    return body[at] if len(body) > at else -1


def _subpackets(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (kind, value) of the subpackets of a signature of version 4, hashed ones first; damaged ones end them."""
    at = 4
    for _ in range(2):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        at += 2
        while at < end:
            first = body[at] if at < len(body) else 0
            if first < 192:
                size, at = first, at + 1
            elif first < 255:
                size, at = (first - 192 << 8) + int.from_bytes(body[at + 1 : at + 2], "big") + 192, at + 2
            else:
                size, at = int.from_bytes(body[at + 1 : at + 5], "big"), at + 5
            if size == 0 or at + size > min(end, len(body)):
                return
            yield body[at] & 0x7F, body[at + 1 : at + size]
            at += size


def _packets(data: bytes) -> Iterator[Packet]:
    at = 0
    while at < len(data):
        tag, start, size = _header(data, at)
        at = start + size
        if at > len(data):
            raise FormatError("it is cut off: a packet of OpenPGP has less bytes than it says")
        yield Packet(tag, data[start:at])


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Return (tag, where the contents begin, their size)."""
    first = data[at]
    if not first & 0x80:
        raise FormatError(f"at byte {at} there is no packet of OpenPGP")
    if not first & 0x40:
        width = 1 << (first & 3)
        if width == 8:
            raise FormatError(f"at byte {at} there is a packet without a length, as no key has")
        return _tag(first), at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width], "big")
    second = data[at + 1] if at + 1 < len(data) else 0
    if second < 192:
        return _tag(first), at + 2, second
    if second < 224:
        return _tag(first), at + 3, (second - 192 << 8) + int.from_bytes(data[at + 2 : at + 3], "big") + 192
    if second == 255:
        return _tag(first), at + 6, int.from_bytes(data[at + 2 : at + 6], "big")
    raise FormatError(f"at byte {at} there is a packet in parts, as no key is")


def _tag(first: int) -> int:
    """Return what a packet is, by its first byte."""
    return first & 0x3F if first & 0x40 else (first & 0x3C) >> 2


def _dearmoured(data: bytes) -> bytes:
    blocks = [match[1] for match in _ARMOUR.finditer(data)]
    if not blocks or len(blocks) != data.count(_BEGIN):  # one that is passed over might be a revocation
        raise FormatError("the GPG key is damaged, or no public one; export it with 'gpg --export'")
    try:
        return b"".join(b64decode(b"".join(block.split()), validate=True) for block in blocks)
    except (Base64Error, ValueError) as error:
        raise FormatError(f"the GPG key is damaged: {error}; export it with 'gpg --export'") from None


def _keybox_blocks(data: bytes) -> Iterator[bytes]:
    """Yield the keys of a keybox file: blobs of (size u32, kind u8, version u8, flags u16, offset u32, size u32)."""
    at = 0
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 5]
        if size < _KEYBOX_HEADER_BYTES or at + size > len(data):
            raise FormatError("the keybox is damaged; export its keys with: gpg --export")
        if kind == bytes((_KEYBOX_OPENPGP,)):
            start, length = (int.from_bytes(data[at + to : at + to + 4], "big") for to in (8, 12))
            if start + length > size:
                raise FormatError("the keybox is damaged; export its keys with: gpg --export")
            yield data[at + start : at + start + length]
        at += size
