"""Ed25519 by the `cryptography` library, which is imported only where something is signed or verified."""

from __future__ import annotations

import functools
from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

PUBLIC_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SSH_TYPE: Final = "ssh-ed25519"

_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
# The eight points whose order divides 8, by y, which two of them share but for 1 and -1 (libsodium has the same list).
# With such a key everybody can sign: its part of the equation that is verified is 0, or is it in one case of eight.
_LOW_ORDER_Y: Final = frozenset((
    0, 1, _P - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The 32 bytes of a public key; *name* is what the file that it comes from calls it, and makes no difference."""

    raw: bytes
    name: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        """Return what `ssh-keygen -l` shows of the key."""
        return "SHA256:" + b64encode(sha256(ssh_blob(self.raw)).digest()).decode().rstrip("=")

    @property
    def text(self) -> str:
        """Return name and fingerprint for a message."""
        return f"{self.name} ({self.fingerprint})" if self.name else self.fingerprint


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A key that signs: the 32 bytes from which RFC 8032 derives all else."""

    seed: bytes = field(repr=False)
    public: PublicKey

    @classmethod
    def from_seed(cls, seed: bytes, name: str = "") -> SecretKey:
        """Return the key of a seed."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        assert not why_no_key(public), "RFC 8032 makes no such key of any seed"
        return cls(seed, PublicKey(public, name))

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature of *data*; the same each time."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(data)


def verifies(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether *signature* is one of *data* by this key; none is by what is no key, whatever the equation says."""
    if why_no_key(public):
        return False
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=1024)
def why_no_key(public: bytes) -> str:
    """Return why these 32 bytes are no key; "" if they are one.

    A key is a point of the curve in its one canonical encoding (RFC 8032, 5.1.3), which is none of the eight points of
    low order. OpenSSL, which verifies, looks at none of this.

    >>> why_no_key(bytes(32)), why_no_key(bytes([2]) + bytes(31))
    ('it is a point of low order, for which everybody can make signatures', 'it is no point of the curve')
    """
    y = int.from_bytes(public, "little") & (1 << 255) - 1
    if y % _P in _LOW_ORDER_Y:
        return "it is a point of low order, for which everybody can make signatures"
    if y >= _P:
        return "it is not in its canonical encoding"
    square, divisor = (y * y - 1) % _P, (_D * y * y + 1) % _P
    is_on_curve = pow(square * divisor, (_P - 1) // 2, _P) == 1  # whether their quotient, x * x, is a square
    return "" if is_on_curve else "it is no point of the curve"


def ssh_blob(public: bytes) -> bytes:
    """Return a public key as OpenSSH has it behind "ssh-ed25519", before base64."""
    fields = (SSH_TYPE.encode(), public)
    return b"".join(len(each).to_bytes(4, "big") + each for each in fields)
