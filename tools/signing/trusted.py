"""Whom we trust: files of OpenSSH's and OSTree's public keys (tools/signing/key_lists.py) and GPG keyrings.

A keyring is what `gpg --export` writes, armoured ("-----BEGIN PGP PUBLIC KEY BLOCK-----") or not, or gpg's keybox file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from store.errors import FormatError
from tools.signing.ed25519 import PublicKey
from tools.signing.key_lists import KEYS_MAX, parse_public_keys
from tools.signing.openpgp import Packet, keyring_of
from tools.trust_files import read_trusted


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """Keys whose signatures count; of GPG whole keyrings."""

    ed25519: tuple[PublicKey, ...] = ()
    keyrings: tuple[tuple[Packet, ...], ...] = ()

    @classmethod
    def load(cls, paths: Iterable[Path]) -> TrustedKeys:
        """Return the keys of all files.

        Raises:
            FormatError: a file has no key in it that fsview knows, or something that it does not understand.
            AccessError: somebody else could write it.
            OSError: one can't be read.
        """
        keys: dict[PublicKey, PublicKey] = {}
        keyrings: list[tuple[Packet, ...]] = []
        for path in paths:
            data = read_trusted(path)
            keyring = _keyring(path, data)
            if keyring is not None:
                keyrings.append(keyring)
                continue
            found = list(parse_public_keys(str(path), data))
            if not found:
                raise FormatError(f"{path} has no Ed25519 key in it, which are all that fsview knows besides GPG's")
            keys |= {key: key for key in found if key not in keys or not keys[key].name}
        if len(keys) > KEYS_MAX:
            raise FormatError(f"{len(keys)} keys are trusted, each of which would be tried; trust {KEYS_MAX} at most")
        return cls(tuple(keys.values()), tuple(keyrings))

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return bool(self.ed25519 or self.keyrings)


def _keyring(path: Path, data: bytes) -> tuple[Packet, ...] | None:
    try:
        found = keyring_of(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    return None if found is None else tuple(found)
