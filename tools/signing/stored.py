"""Where signatures stand in a commit's detached metadata, and how one is added and removed.

    ostree.sign.ed25519    aay        OSTree's: the signatures, 64 bytes each
    ostree.gpgsigs         aay        OSTree's: OpenPGP signatures, binary
    fsview.sign.made       a(ayay)    of each of the first, in order: the public key, and the commit that was signed

An Ed25519 signature doesn't say whose it is, so OSTree can't tell one by a stranger from one that was damaged. The last
entry lets us: it is a hint for messages, believed of nobody, and nothing is trusted because of it. Where OSTree added
or removed signatures it may be out of step, and is then of less use.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from store.errors import FormatError
from store.gvariant import Variant
from store.objects import Metadata
from tools.signing.ed25519 import PUBLIC_BYTES, PublicKey, SecretKey, verifies

ED25519: Final = "ostree.sign.ed25519"
GPG: Final = "ostree.gpgsigs"
OTHER_SCHEMES: Final = "ostree.sign."
_MADE, _MADE_TYPE = "fsview.sign.made", "a(ayay)"
_SIGNATURES_TYPE: Final = "aay"


class Made(NamedTuple):
    """By whom a signature is said to have been made, and of which commit."""

    public: bytes
    commit: bytes


class Signature(NamedTuple):
    """An Ed25519 signature, and what is said of it."""

    raw: bytes
    made: Made | None


def signature_list(metadata: Metadata, key: str) -> list[bytes]:
    """Return the signatures that stand under *key*.

    Raises:
        FormatError: it is no list of signatures.
    """
    value = dict(metadata).get(key)
    if value is None:
        return []
    if value.signature != _SIGNATURES_TYPE:
        raise FormatError(f"the detached metadata have a {key!r} of type {value.signature!r}, not a list of signatures")
    return [bytes(one) for one in value.value]


def ed25519_signatures(metadata: Metadata) -> list[Signature]:
    """Return the Ed25519 signatures, each with what is said of it."""
    raws, made = signature_list(metadata, ED25519), _made(metadata)
    return [Signature(raw, made[index] if index < len(made) else None) for index, raw in enumerate(raws)]


def with_signature(metadata: Metadata, key: SecretKey, commit: bytes, raw_commit: bytes) -> Metadata:
    """Return *metadata* with a signature by *key*; as they are if there is one."""
    signatures = ed25519_signatures(metadata)
    if any(verifies(key.public.raw, one.raw, raw_commit) for one in signatures):
        return metadata
    return _replaced(metadata, [*signatures, Signature(key.sign(raw_commit), Made(key.public.raw, commit))])


def without_signatures(metadata: Metadata, key: PublicKey, raw_commit: bytes) -> Metadata:
    """Return *metadata* without the signatures by *key*, those included that no longer fit and are said to be its."""
    signatures = ed25519_signatures(metadata)
    left = [
        one
        for one in signatures
        if not (verifies(key.raw, one.raw, raw_commit) or (one.made is not None and one.made.public == key.raw))
    ]
    return _replaced(metadata, left) if len(left) < len(signatures) else metadata


def _made(metadata: Metadata) -> list[Made | None]:
    value = dict(metadata).get(_MADE)
    if value is None or value.signature != _MADE_TYPE:
        return []
    pairs = [Made(bytes(public), bytes(commit)) for public, commit in value.value]
    return [pair if len(pair.public) == PUBLIC_BYTES else None for pair in pairs]


def _replaced(metadata: Metadata, signatures: list[Signature]) -> Metadata:
    """Return *metadata* with other signatures, in the same places."""
    entries = dict(metadata)
    if not signatures:
        return tuple((key, value) for key, value in metadata if key not in (ED25519, _MADE))
    unknown = Made(b"", b"")
    entries[ED25519] = Variant(_SIGNATURES_TYPE, [one.raw for one in signatures])
    entries[_MADE] = Variant(_MADE_TYPE, [tuple(one.made or unknown) for one in signatures])
    return tuple(entries.items())
