"""Ed25519 by the `cryptography` library, which is imported only where something is signed or verified."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

PUBLIC_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SSH_TYPE: Final = "ssh-ed25519"


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
        return cls(seed, PublicKey(public, name))

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature of *data*; the same each time."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(data)


def verifies(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether *signature* is one of *data* by this key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def ssh_blob(public: bytes) -> bytes:
    """Return a public key as OpenSSH has it behind "ssh-ed25519", before base64."""
    fields = (SSH_TYPE.encode(), public)
    return b"".join(len(each).to_bytes(4, "big") + each for each in fields)
