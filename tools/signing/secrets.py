"""Files of secret keys: what `ssh-keygen -t ed25519` writes, and OSTree's base64 of 64 bytes (seed and public key).

As ssh does, a file of our own that others may read is refused: such a key is no secret, and nobody would notice.
"""

from __future__ import annotations

import os
import stat
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from pathlib import Path
from typing import Final

from store.errors import AccessError, FormatError
from tools.signing.ed25519 import PUBLIC_BYTES, SEED_BYTES, SecretKey

AskPassphrase = Callable[[Path], str]  # raises AccessError where nobody can be asked

_OPENSSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_BYTES_MAX: Final = 1 << 16
_OTHERS_MAY: Final = 0o077


def load_secret_key(path: Path, ask_passphrase: AskPassphrase) -> SecretKey:
    """Return the secret key in a file; *ask_passphrase* is called if it is encrypted.

    Raises:
        AccessError: others may read it, or the passphrase is wrong or can't be asked for.
        FormatError: it is no secret Ed25519 key.
        OSError: it can't be read.
    """
    data = _read_private(path)
    if data.lstrip().startswith(_OPENSSH):
        return _openssh_key(path, data, ask_passphrase)
    return _ostree_key(path, data)


def _read_private(path: Path) -> bytes:
    with path.open("rb") as file:
        status, data = os.fstat(file.fileno()), file.read(_BYTES_MAX + 1)
    if len(data) > _BYTES_MAX:
        raise FormatError(f"{path} has more than {_BYTES_MAX:,} bytes, as no secret key has")
    if data.startswith(b"ssh-") or len(_decoded(data)) == PUBLIC_BYTES:
        raise FormatError(f"{path} is a public key; to sign takes the secret one")
    is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
    if is_ours and status.st_mode & _OTHERS_MAY:
        raise AccessError(
            f"the secret key {path} can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"mend it with: chmod 600 {path}"
        )
    return data


def _openssh_key(path: Path, data: bytes, ask_passphrase: AskPassphrase) -> SecretKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    passphrase: bytes | None = None
    try:
        try:
            key = load_ssh_private_key(data, None)
        except TypeError:  # its word for: encrypted
            passphrase = ask_passphrase(path).encode()
            key = load_ssh_private_key(data, passphrase)
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase is not None:
            raise AccessError(f"the passphrase is not that of {path}, or the key is damaged") from error
        raise FormatError(f"{path} is no secret key that fsview can read: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise FormatError(f"{path} is no Ed25519 key, as OSTree's signatures need; make one: ssh-keygen -t ed25519")
    return SecretKey.from_seed(key.private_bytes_raw())


def _ostree_key(path: Path, data: bytes) -> SecretKey:
    raw = _decoded(data)
    if len(raw) != SEED_BYTES + PUBLIC_BYTES:
        raise FormatError(f"{path} is no secret Ed25519 key, neither OpenSSH's nor OSTree's (base64 of 64 bytes)")
    key = SecretKey.from_seed(raw[:SEED_BYTES])
    if key.public.raw != raw[SEED_BYTES:]:
        raise FormatError(f"{path} is damaged: its public half does not belong to its secret half")
    return key


def _decoded(data: bytes) -> bytes:
    """Return what is in base64; nothing if it is none."""
    try:
        return b64decode(data.strip(), validate=True)
    except (Base64Error, ValueError):
        return b""
