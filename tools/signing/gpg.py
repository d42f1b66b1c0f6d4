"""OpenPGP signatures, by gpgv: it trusts exactly the keys that it is given, and no more of ~/.gnupg is looked at.

gpgv takes keys that are expired or revoked for good, and says so in its status lines only; here they are refused, as
OSTree refuses them. So GOODSIG, which only a key in good order gets, is what counts, beside gpgv's exit status. What it
gets are signatures alone, and each key once (tools/signing/openpgp.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from store.errors import FormatError, FsviewError
from tools.signing.openpgp import Packet, issuer, merged, signature_packets

_NOT_TRUSTED: Final = "is by a key that is not trusted"
_PREFIX: Final = "[GNUPG:] "
_FLAWS: Final = {
    "BADSIG": "does not fit this commit: one of the two was changed, or it is of another commit",
    "EXPSIG": "has expired",
    "EXPKEYSIG": "is by a key that has expired",
    "REVKEYSIG": "is by a key that was revoked",
}


@dataclass(frozen=True, slots=True)
class GpgResult:
    """What gpgv says of one signature; *flaw* is "" of a good one by a key of the keyrings."""

    key: str
    name: str
    flaw: str
    is_known: bool


def check(data: bytes, signatures: Sequence[bytes], keyrings: Sequence[Sequence[Packet]]) -> Iterator[GpgResult]:
    """Yield what gpgv says of each of the signatures of *data*, by the keys of *keyrings*; without any it isn't asked.

    Raises:
        FsviewError: there is no gpgv.
    """
    if not signatures:
        return
    if not keyrings:
        yield from (_stranger(signature) for signature in signatures)
        return
    program = shutil.which("gpgv")
    if program is None:
        raise FsviewError("gpgv is missing, with which GPG signatures are verified; mend it with: apt install gpgv")
    with tempfile.TemporaryDirectory(prefix="fsview-gpgv-") as directory:
        ring, signed = (_write(Path(directory, name), value) for name, value in (("k", merged(keyrings)), ("d", data)))
        command = [program, "--homedir", directory, "--status-fd", "1", "--keyring", ring, "--"]
        for signature in signatures:
            yield _check_one(command, signature, Path(directory, "s"), signed)


def _check_one(command: Sequence[str], signature: bytes, beside: Path, signed: str) -> GpgResult:
    try:
        signature_packets(signature)
    except FormatError as error:
        return GpgResult("", "", f"can't be read: {error}", is_known=False)
    written = _write(beside, signature)
    done = subprocess.run([*command, written, signed], stdin=subprocess.DEVNULL, capture_output=True)
    return _parse(os.fsdecode(done.stdout), done.returncode)


def _stranger(signature: bytes) -> GpgResult:
    """Return what can be said of a signature where no GPG key is trusted."""
    try:
        key = issuer(signature_packets(signature)[0]).hex().upper()
    except FormatError as error:
        return GpgResult("", "", f"can't be read: {error}", is_known=False)
    return GpgResult(key, "", _NOT_TRUSTED, is_known=False)


def _write(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return str(path)


def _parse(status: str, returncode: int) -> GpgResult:
    lines = [line.removeprefix(_PREFIX).split(" ") for line in status.split("\n") if line.startswith(_PREFIX)]
    words = {line[0]: line[1:] for line in lines}
    fingerprint = words.get("VALIDSIG", [""])[0]
    good = words.get("GOODSIG", [])
    flaw = next((text for word, text in _FLAWS.items() if word in words), "")
    if not flaw and "NO_PUBKEY" in words:
        return GpgResult(words["NO_PUBKEY"][0], "", _NOT_TRUSTED, is_known=False)
    if flaw or returncode or not good or not fingerprint:
        named = next((words[word] for word in (*_FLAWS, "GOODSIG") if words.get(word)), [""])
        flaw = flaw or "can't be read: it is damaged, or of a kind that gpgv does not know"
        return GpgResult(fingerprint or named[0], " ".join(named[1:]), flaw, is_known=bool(named[0]))
    return GpgResult(fingerprint, " ".join(good[1:]), "", is_known=True)
