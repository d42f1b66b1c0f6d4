"""What is to be said of each signature of a commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from store.detached import check_detached_size
from store.errors import CorruptionError, FormatError, UntrustedError
from store.objects import Metadata, checksum_of, unpack_detached
from tools.signing.ed25519 import PublicKey, verifies
from tools.signing.gpg import GpgResult, check
from tools.signing.openpgp import SIGNATURES_MAX
from tools.signing.stored import ED25519, GPG, OTHER_SCHEMES, Signature, ed25519_signatures, signature_list
from tools.signing.trusted import TrustedKeys

_REASONS_MAX: Final = 8
_SHOWN_DIGITS: Final = 12


@dataclass(frozen=True)
class Verdict:
    """One signature: *key* is a fingerprint, "" where nobody knows whose it is; *text* is a sentence about it."""

    scheme: str
    key: str
    name: str
    is_valid: bool
    is_trusted: bool
    text: str


def judge(raw_commit: bytes, detached: bytes | None, trusted: TrustedKeys) -> list[Verdict]:
    """Return what is to be said of each signature of a commit; none where it has none.

    Raises:
        FormatError: the detached metadata are damaged, or too much to be looked at.
        FsviewError: gpgv is needed, and not there.
    """
    check_detached_size(0 if detached is None else len(detached))
    metadata: Metadata = () if detached is None else unpack_detached(detached)
    for key in (ED25519, GPG):
        _check_count(key, signature_list(metadata, key))
    return [
        *_judge_ed25519(raw_commit, metadata, trusted),
        *(_gpg_verdict(result) for result in check(raw_commit, signature_list(metadata, GPG), trusted.keyrings)),
        *_judge_others(metadata),
    ]


def require_certified(
    checksum_hex: str, raw_commit: bytes, detached: bytes | None, trusted: TrustedKeys
) -> list[Verdict]:
    """Return what is to be said of the signatures of a commit, one of which at least is valid and trusted.

    Raises:
        UntrustedError: none is.
        CorruptionError: the bytes are not those of this commit.
    """
    found = checksum_of(raw_commit).hex()
    if found != checksum_hex:
        raise CorruptionError("a commit", "the repository", f"sha256 {checksum_hex}", found)
    named = f"the commit {checksum_hex[:_SHOWN_DIGITS]}"
    if not trusted:
        raise UntrustedError(f"{named} is not certified: no key is trusted; name files of keys in 'trusted'")
    try:
        verdicts = judge(raw_commit, detached, trusted)
    except FormatError as error:
        raise UntrustedError(f"{named} is not certified: {error}") from error
    if not verdicts:
        raise UntrustedError(f"{named} is not certified: it has no signature; 'fsview certify' makes one")
    if not any(verdict.is_valid and verdict.is_trusted for verdict in verdicts):
        reasons = "; ".join(verdict.text for verdict in verdicts[:_REASONS_MAX])
        reasons += f"; and {len(verdicts) - _REASONS_MAX} more" if len(verdicts) > _REASONS_MAX else ""
        raise UntrustedError(f"{named} is not certified by a trusted key: {reasons}")
    return verdicts


def _check_count(key: str, signatures: Sequence[bytes]) -> None:
    """Refuse more signatures than somebody would make: each may have to be tried with hundreds of keys."""
    if len(signatures) > SIGNATURES_MAX:
        raise FormatError(
            f"it has {len(signatures)} signatures in {key!r}, where fsview looks at {SIGNATURES_MAX} at most; "
            f"'fsview certify --delete' removes those by a key"
        )


def _judge_ed25519(raw_commit: bytes, metadata: Metadata, trusted: TrustedKeys) -> Iterator[Verdict]:
    signatures = ed25519_signatures(metadata)
    said = {PublicKey(one.made.public): None for one in signatures if one.made is not None}
    strangers = [key for key in said if key not in trusted.ed25519]
    for signature in signatures:
        yield _judge_one(raw_commit, signature, trusted, strangers)


def _own_first(keys: Sequence[PublicKey], signature: Signature) -> list[PublicKey]:
    """Return *keys*, the one first whose the signature is said to be: that may be wrong, so the others follow."""
    return sorted(keys, key=lambda key: signature.made is None or key.raw != signature.made.public)


def _judge_one(raw_commit: bytes, signature: Signature, trusted: TrustedKeys, strangers: list[PublicKey]) -> Verdict:
    for key in _own_first(trusted.ed25519, signature):
        if verifies(key.raw, signature.raw, raw_commit):
            text = f"good Ed25519 signature by {key.text}"
            return Verdict("ed25519", key.fingerprint, key.name, True, True, text)
    for key in _own_first(strangers, signature):
        if verifies(key.raw, signature.raw, raw_commit):
            text = f"the Ed25519 signature is by {key.fingerprint}, a key that is not trusted"
            return Verdict("ed25519", key.fingerprint, "", True, False, text)
    return _misfit(raw_commit, signature, trusted)


def _misfit(raw_commit: bytes, signature: Signature, trusted: TrustedKeys) -> Verdict:
    """Return what is to be said of a signature that fits no key; what it says of itself is only repeated."""
    if signature.made is None:
        text = (
            "an Ed25519 signature fits no trusted key: it is by another key, or of another commit, "
            "or it or the commit was changed"
        )
        return Verdict("ed25519", "", "", False, False, text)
    said = PublicKey(signature.made.public)
    known = next((key for key in trusted.ed25519 if key == said), said)
    text = f"the Ed25519 signature that is said to be by {known.text} "
    if signature.made.commit == checksum_of(raw_commit):
        text += "does not fit: it or the commit was changed"
    else:
        text += f"is of another commit, {signature.made.commit.hex()[:_SHOWN_DIGITS] or 'which is not said'}"
    return Verdict("ed25519", said.fingerprint, known.name, False, known in trusted.ed25519, text)


def _gpg_verdict(result: GpgResult) -> Verdict:
    whose = f"{result.name} ({result.key})" if result.name else result.key
    if not result.flaw:
        return Verdict("gpg", result.key, result.name, True, True, f"good GPG signature by {whose}")
    text = f"the GPG signature{f' of {whose}' if whose else ''} {result.flaw}"
    return Verdict("gpg", result.key, result.name, False, result.is_known, text)


def _judge_others(metadata: Metadata) -> Iterator[Verdict]:
    for key, _ in metadata:
        if key.startswith(OTHER_SCHEMES) and key != ED25519:
            scheme = key.removeprefix(OTHER_SCHEMES)
            yield Verdict(scheme, "", "", False, False, f"fsview can't verify signatures of the kind {scheme!r}")
