"""Lists of trusted keys that look like one thing and are another; ssh-keygen is the judge of what OpenSSH reads."""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from store.errors import AccessError, FormatError
from store.gvariant import Variant
from store.objects import pack_detached
from tests.marks import needs_root
from tests.users import NOBODY
from tools.signing import TrustedKeys, judge
from tools.signing.ed25519 import PublicKey, SecretKey, ssh_blob, verifies, why_no_key
from tools.signing.openpgp import SIGNATURES_MAX
from tools.signing.stored import ED25519, with_signature
from tools.trust_files import BYTES_MAX

ALICE, MALLORY = SecretKey.from_seed(b"a" * 32, "alice"), SecretKey.from_seed(b"m" * 32, "mallory")
RAW = b"the bytes of a commit"
ENDS = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"]  # of lines, to str.splitlines
ENDS_IDS = [f"U+{ord(end):04X}" for end in ENDS]


def _line(key: SecretKey) -> str:
    return f"ssh-ed25519 {b64encode(ssh_blob(key.public.raw)).decode()}"


def _trusted(path: Path) -> set[bytes]:
    """Return the keys that fsview trusts by a file; none if it refuses it."""
    try:
        return {key.raw for key in TrustedKeys.load([path]).ed25519}
    except FormatError:
        return set()


def _authorized(path: Path) -> set[str]:
    """Return the fingerprints of the keys that ssh-keygen sees in a file, as sshd does in authorized_keys."""
    done = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, errors="replace")
    return {line.split(" ")[1] for line in done.stdout.split("\n") if " SHA256:" in line}


def _allowed(tmp_path: Path, path: Path, key: SecretKey, name: str) -> bool:
    """Whether ssh-keygen takes a signature by *key* as that of *name*, by a file as allowed_signers."""
    secret, data = tmp_path / "secret", tmp_path / "data"
    secret.unlink(missing_ok=True)
    secret.write_bytes(_openssh(key))
    secret.chmod(0o600)
    data.write_bytes(RAW)
    data.with_name("data.sig").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", secret, "-n", "file", data], check=True)
    command: list[str | Path] = [
        "ssh-keygen",
        "-q",
        "-Y",
        "verify",
        "-f",
        path,
        "-I",
        name,
        "-n",
        "file",
        "-s",
        f"{data}.sig",
    ]
    return subprocess.run(command, input=RAW, capture_output=True).returncode == 0


def _openssh(key: SecretKey) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


@pytest.mark.parametrize("end", ENDS, ids=ENDS_IDS)
@pytest.mark.parametrize("comment", ["# note", "ssh-rsa AAAA note", "{alice} note"], ids=["comment", "rsa", "ours"])
def test_a_comment_adds_no_key(tmp_path: Path, end: str, comment: str) -> None:
    """What is behind the odd character is a part of the comment to OpenSSH; a list that has it is refused, or it is."""
    path = tmp_path / "keys"
    text = comment.replace("{alice}", _line(ALICE)) + end + _line(MALLORY) + "\n"
    path.write_bytes(text.encode())
    assert MALLORY.public.raw not in _trusted(path)
    assert MALLORY.public.fingerprint not in _authorized(path)


@pytest.mark.parametrize("end", ENDS, ids=ENDS_IDS)
def test_a_name_adds_no_key_to_allowed_signers(tmp_path: Path, end: str) -> None:
    path = tmp_path / "allowed_signers"
    path.write_bytes(f"alice {_line(ALICE)} x{end}mallory {_line(MALLORY)}\n".encode())
    assert _allowed(tmp_path, path, ALICE, "alice") and not _allowed(tmp_path, path, MALLORY, "mallory")
    assert MALLORY.public.raw not in _trusted(path)


@pytest.mark.parametrize(
    "before",
    [
        "cert-authority,restrict", "CERT-AUTHORITY", "Cert-Authority,no-pty", "restrict", "no-pty", "verify-required",
        'restrict,command="true"', "expiry-time=20200101", "Valid-Before=20200101", "!alice", "*,!mallory", "@revoked",
        "@cert-authority", "x cert-authority", 'alice namespaces="git"', 'x valid-before="20200101"',
    ],
)  # fmt: skip
def test_what_restricts_a_key_is_not_passed_over(tmp_path: Path, before: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{before} {_line(MALLORY)}\n")
    with pytest.raises(FormatError, match=r"restricts this key|knows no '@"):
        TrustedKeys.load([path])


@pytest.mark.parametrize(
    "text",
    [
        "alice\x00 {key}", "{key}\x00", "\x1b[2K# {key}", "# {key}\x1b[1A", "\ufeff{key}", "alice\u00a0{key}",
        "{key}\r\r", "x\x07 {key}", "SSH-ED25519 {blob}", "ssh-ed25519\u2003{blob}", "ssh-ed25519 {blob}\u00a0x",
    ],
)  # fmt: skip
def test_odd_characters_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text.format(key=_line(MALLORY), blob=_line(MALLORY).split()[1]) + "\n", newline="")
    with pytest.raises(FormatError, match="keys, line 1: "):
        TrustedKeys.load([path])


@pytest.mark.parametrize(
    "text", ["{key}", "\t {key}\tnote", "{key} ein Schlüssel\r", "alice,bob {key}", "# x\n\n   # y\n{key}\n", "* {key}"]
)
def test_what_is_a_key_for_openssh_is_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text.format(key=_line(ALICE)) + "\n", newline="")
    assert _trusted(path) == {ALICE.public.raw}
    assert _authorized(path) == {ALICE.public.fingerprint} or _allowed(tmp_path, path, ALICE, "alice")


_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493


def _low_order() -> set[tuple[int, int]]:
    """Return the eight points whose order divides 8, by adding points of the curve."""
    d = -121665 * pow(121666, -1, _P) % _P

    def add(one: tuple[int, int], two: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = one, two
        k = d * x1 * x2 * y1 * y2
        return (x1 * y2 + x2 * y1) * pow(1 + k, -1, _P) % _P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, _P) % _P

    def times(number: int, point: tuple[int, int]) -> tuple[int, int]:
        result = (0, 1)
        for bit in bin(number)[2:]:
            result = add(result, result)
            result = add(result, point) if bit == "1" else result
        return result

    found: set[tuple[int, int]] = set()
    y = 2
    while len(found) < 8:
        square = (y * y - 1) * pow(d * y * y + 1, -1, _P) % _P
        for x in (pow(square, (_P + 3) // 8, _P), pow(square, (_P + 3) // 8, _P) * pow(2, (_P - 1) // 4, _P) % _P):
            if x * x % _P == square:
                torsion = times(_ORDER, (x, y))
                found |= {times(number, torsion) for number in range(8)}
        y += 1
    return found


def _encodings() -> list[bytes]:
    """Return all 32 bytes that are decoded to points of low order by somebody."""
    ys = {y + more for _, y in _low_order() for more in (0, _P) if y + more < 1 << 255}
    return [(y + (sign << 255)).to_bytes(32, "little") for y in sorted(ys) for sign in (0, 1)]


@pytest.mark.parametrize("raw", _encodings(), ids=bytes.hex)
def test_points_of_low_order_are_no_keys(tmp_path: Path, raw: bytes) -> None:
    """For the identity any R = [S]B signs everything; for the others, one message in a few."""
    path = tmp_path / "keys"
    for text in (b64encode(raw).decode(), f"ssh-ed25519 {b64encode(ssh_blob(raw)).decode()} x"):
        path.write_text(text + "\n")
        with pytest.raises(FormatError, match=r"low order|canonical"):
            TrustedKeys.load([path])


def test_a_signature_that_fits_all_is_by_nobody(tmp_path: Path) -> None:
    identity = (1).to_bytes(32, "little")
    scalar = int.from_bytes(_secret_scalar(b"s" * 32), "little") % _ORDER
    forged = SecretKey.from_seed(b"s" * 32).public.raw + scalar.to_bytes(32, "little")
    made = Variant("a(ayay)", [(identity, b"")])
    metadata = ((ED25519, Variant("aay", [forged])), ("fsview.sign.made", made))
    for trusted in (TrustedKeys((PublicKey(identity),)), TrustedKeys((ALICE.public,))):
        (verdict,) = judge(RAW, pack_detached(metadata), trusted)
        assert not verdict.is_valid


def _secret_scalar(seed: bytes) -> bytes:
    from hashlib import sha512

    raw = bytearray(sha512(seed).digest()[:32])
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return bytes(raw)


@pytest.mark.parametrize(
    ("number", "words"), [(2, "no point of the curve"), (_P + 3, "canonical"), (2**255 - 1, "canonical")]
)
def test_bytes_that_are_no_point(number: int, words: str) -> None:
    assert words in why_no_key(number.to_bytes(32, "little"))


def test_each_signature_is_tried_with_its_own_key_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []

    def noted(key: bytes, signature: bytes, data: bytes) -> bool:
        tried.append(key)
        return verifies(key, signature, data)

    monkeypatch.setattr("tools.signing.judging.verifies", noted)
    keys = [SecretKey.from_seed(bytes([number]) * 32) for number in range(100)]
    metadata = with_signature((), keys[99], b"", RAW)
    verdicts = judge(RAW, pack_detached(metadata), TrustedKeys(tuple(key.public for key in keys)))
    assert verdicts[0].is_trusted and tried == [keys[99].public.raw]


def test_signatures_and_keys_are_bounded(tmp_path: Path) -> None:
    many = pack_detached(((ED25519, Variant("aay", [bytes(64)] * (SIGNATURES_MAX + 1))),))
    with pytest.raises(FormatError, match="certify --delete"):
        judge(RAW, many, TrustedKeys((ALICE.public,)))
    many = pack_detached((("ostree.gpgsigs", Variant("aay", [b"x"] * (SIGNATURES_MAX + 1))),))
    with pytest.raises(FormatError, match=r"ostree\.gpgsigs"):
        judge(RAW, many, TrustedKeys((ALICE.public,)))
    path = tmp_path / "keys"
    keys = [SecretKey.from_seed(number.to_bytes(32, "big")) for number in range(257)]
    path.write_text("".join(_line(key) + "\n" for key in keys))
    with pytest.raises(FormatError, match="more than 256 keys"):
        TrustedKeys.load([path])


def test_without_a_keyring_gpgv_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a program was started"))
    detached = pack_detached((("ostree.gpgsigs", Variant("aay", [b"\x88\x03\x04\x00\x00"])),))
    assert "not trusted" in judge(RAW, detached, TrustedKeys((ALICE.public,)))[0].text


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Return a list of one key, which only its owner may write."""
    directory = tmp_path / "keys.d"
    directory.mkdir()
    path = directory / "keys"
    path.write_text(_line(ALICE) + "\n")
    return path


def test_a_file_that_others_may_write_is_refused(keys: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(keys)
    for path in (keys, link):
        assert _trusted(path) == {ALICE.public.raw}
        for place, mode in ((keys, 0o664), (keys, 0o646), (keys.parent, 0o775), (keys.parent, 0o757)):
            before = place.stat().st_mode
            place.chmod(mode)
            with pytest.raises(AccessError, match=f"can be written by others .* chmod go-w {place}$"):
                TrustedKeys.load([path])
            place.chmod(before)


@needs_root
def test_a_file_of_another_user_is_refused(keys: Path, tmp_path: Path) -> None:
    """Nor may he have put the symlink there, or the directory."""
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    link = sticky / "link"
    link.symlink_to(keys)
    assert _trusted(link) == {ALICE.public.raw}
    for place in (keys, keys.parent, link):
        os.chown(place, NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(AccessError, match=f"{place}.* belongs to another user"):
            TrustedKeys.load([link])
        os.chown(place, 0, 0, follow_symlinks=False)


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    large, fifo = tmp_path / "large", tmp_path / "fifo"
    with large.open("wb") as file:
        file.truncate(BYTES_MAX + 1)
    os.mkfifo(fifo)
    with pytest.raises(FormatError, match="more than 64 MiB"):
        TrustedKeys.load([large])
    for path in (fifo, Path("/dev/zero"), tmp_path):
        with pytest.raises((FormatError, OSError), match="no regular file"):
            TrustedKeys.load([path])


def test_symlinks_in_a_circle(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        (tmp_path / one).symlink_to(other)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        TrustedKeys.load([tmp_path / "a"])
