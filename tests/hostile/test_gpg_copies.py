"""GPG keys of which there are several copies, made by the real gpg: what any of them says counts, in whatever order.

A keyring grows by appending: first the key as it was, later the one that its owner revoked. gpgv looks at the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.errors import FormatError
from store.gvariant import Variant
from store.objects import pack_detached
from tools.signing import TrustedKeys, Verdict, judge

SIGNED = b"the bytes of a commit"
BEGAN, LATER = "20200101T000000", "20200601T000000"


@dataclass(frozen=True)
class Home:
    """A GNUPGHOME."""

    path: Path

    def gpg(self, *words: str, at: str = "20200301T000000", stdin: bytes = b"") -> bytes:
        """Run gpg as if it were *at* that time."""
        how = [] if "--edit-key" in words else ["--batch"]
        command = ["gpg", "--homedir", str(self.path), *how, "--no-tty", "--yes", "--faked-system-time", f"{at}!"]
        command += ["--pinentry-mode", "loopback", "--passphrase", "", *words]
        return subprocess.run(command, input=stdin, check=True, capture_output=True).stdout

    def fingerprints(self) -> list[str]:
        """Return those of the key and its subkeys."""
        lines = self.gpg("--with-colons", "--list-keys").decode().split("\n")
        return [line.split(":")[9] for line in lines if line.startswith("fpr:")]

    def kill_agent(self) -> None:
        """End the agent that gpg started."""
        subprocess.run(["gpgconf", "--homedir", str(self.path), "--kill", "all"], check=True, capture_output=True)


@dataclass(frozen=True)
class Alice:
    """Her key and its signing subkey, in each of its states, and a signature by each of the two."""

    by_key: bytes
    by_subkey: bytes
    states: dict[str, bytes]
    revocation: bytes  # the armoured certificate alone
    keybox: bytes  # of the state "revoked"


@pytest.fixture(scope="module")
def alice() -> Iterator[Alice]:
    """Return what gpg made of one key."""
    with tempfile.TemporaryDirectory(prefix="gpg-") as top:  # a short path, as agents listen there
        homes: list[Home] = []

        def copy(name: str) -> Home:
            home = Home(Path(top, name))
            if homes:
                shutil.copytree(homes[0].path, home.path, ignore=shutil.ignore_patterns("S.*", "*.lock"))
            else:
                home.path.mkdir(mode=0o700)
            homes.append(home)
            return home

        try:
            yield _make(copy)
        finally:
            for home in homes:
                home.kill_agent()


def _make(copy: Callable[[str], Home]) -> Alice:
    first = copy("first")
    first.gpg("--quick-gen-key", "alice <alice@example.org>", "ed25519", "cert,sign", "0", at=BEGAN)
    (key,) = first.fingerprints()
    first.gpg("--quick-add-key", key, "ed25519", "sign", "0", at=BEGAN)
    subkey = first.fingerprints()[1]
    by_key, by_subkey = (first.gpg("-u", f"{one}!", "--detach-sign", stdin=SIGNED) for one in (key, subkey))
    first.kill_agent()
    states = {"plain": first.gpg("--export")}

    def state(name: str, *words: str, at: str = LATER, stdin: bytes = b"") -> Home:
        home = copy(name)
        home.gpg(*words, at=at, stdin=stdin)
        states[name] = home.gpg("--export")
        return home

    certificate = next((first.path / "openpgp-revocs.d").iterdir()).read_text().replace(":-----BEGIN", "-----BEGIN")
    revocation = certificate[certificate.index("-----BEGIN") :].encode()
    revoked = state("revoked", "--import", stdin=revocation)
    edit = ("--command-fd", "0", "--edit-key", key)
    state("subkey revoked", *edit, stdin=b"key 1\nrevkey\ny\n0\n\ny\nsave\n")
    state("expired", "--quick-set-expire", key, "1d")
    state("expired earlier", "--quick-set-expire", key, "1d", at="20200201T000000")
    state("extended", "--quick-set-expire", key, "50y")
    state("subkey expired", "--quick-set-expire", key, "1d", subkey)
    state("subkey expired earlier", "--quick-set-expire", key, "1d", subkey, at="20200201T000000")
    state("subkey extended", "--quick-set-expire", key, "50y", subkey)
    return Alice(by_key, by_subkey, states, revocation, (revoked.path / "pubring.kbx").read_bytes())


def _verdict(signature: bytes, *files: Path) -> Verdict:
    detached = pack_detached((("ostree.gpgsigs", Variant("aay", [signature])),))
    (verdict,) = judge(SIGNED, detached, TrustedKeys.load(files))
    return verdict


def _orders(where: Path, one: bytes, other: bytes) -> Iterator[list[Path]]:
    """Yield both orders, in one file and in two."""
    for index, parts in enumerate(((one, other), (other, one))):
        files = [where / f"{index}-{number}.gpg" for number in range(3)]
        for file, data in zip(files, (b"".join(parts), *parts), strict=True):
            file.write_bytes(data)
        yield files[:1]
        yield files[1:]


@pytest.mark.parametrize(
    ("states", "of_key", "of_subkey"),
    [
        (("plain", "revoked"), "was revoked", "was revoked"),
        (("plain", "subkey revoked"), "", "was revoked"),
        (("plain", "expired"), "has expired", "has expired"),
        (("expired earlier", "extended"), "", ""),
        (("extended", "revoked"), "was revoked", "was revoked"),
        (("plain", "subkey expired"), "", "has expired"),
        (("subkey expired earlier", "subkey extended"), "", ""),
        (("subkey extended", "subkey revoked"), "", "was revoked"),
        (("subkey revoked", "expired earlier"), "has expired", "was revoked|has expired"),
    ],
)
def test_what_any_copy_says_counts(
    alice: Alice, tmp_path: Path, states: tuple[str, str], of_key: str, of_subkey: str
) -> None:
    for files in _orders(tmp_path, *(alice.states[name] for name in states)):
        for signature, flaw in ((alice.by_key, of_key), (alice.by_subkey, of_subkey)):
            verdict = _verdict(signature, *files)
            assert (not verdict.is_valid) == bool(flaw), (verdict, files)
            assert any(word in verdict.text for word in (flaw or "good GPG signature by alice").split("|")), verdict


def test_the_signatures_are_good_where_no_copy_says_otherwise(alice: Alice, tmp_path: Path) -> None:
    for name, files in (("one", 1), ("two", 2)):
        path = tmp_path / f"{name}.gpg"
        path.write_bytes(alice.states["plain"] * files)
        assert _verdict(alice.by_key, path).is_trusted and _verdict(alice.by_subkey, path).is_trusted


def test_a_revocation_certificate_counts_wherever_it_is_put(alice: Alice, tmp_path: Path) -> None:
    """As `gpg --import` takes it: behind the key, before it, behind another's, or in a file of its own."""
    plain, alone, beside = tmp_path / "plain.gpg", tmp_path / "alone.asc", tmp_path / "both.asc"
    plain.write_bytes(alice.states["plain"])
    alone.write_bytes(alice.revocation)
    for files in ([plain, alone], [alone, plain]):
        assert "was revoked" in _verdict(alice.by_key, *files).text
    armoured = subprocess.run(["gpg", "--enarmor"], input=plain.read_bytes(), capture_output=True, check=True).stdout
    armoured = armoured.replace(b"PGP ARMORED FILE", b"PGP PUBLIC KEY BLOCK")
    for parts in ((armoured, alice.revocation), (alice.revocation, armoured)):
        beside.write_bytes(b"\n".join(parts))
        assert "was revoked" in _verdict(alice.by_subkey, beside).text


def test_a_block_that_can_not_be_read_is_not_passed_over(alice: Alice, tmp_path: Path) -> None:
    """It might be the revocation."""
    path = tmp_path / "both.asc"
    armoured = subprocess.run(
        ["gpg", "--enarmor"], input=alice.states["plain"], capture_output=True, check=True
    ).stdout.replace(b"PGP ARMORED FILE", b"PGP PUBLIC KEY BLOCK")
    path.write_bytes(armoured + alice.revocation.replace(b"\n-----END", b"\n!-----END"))
    with pytest.raises(FormatError, match="GPG key is damaged"):
        TrustedKeys.load([path])


def test_a_keybox_has_its_revocations(alice: Alice, tmp_path: Path) -> None:
    box, plain = tmp_path / "pubring.kbx", tmp_path / "plain.gpg"
    box.write_bytes(alice.keybox)
    plain.write_bytes(alice.states["plain"])
    assert "was revoked" in _verdict(alice.by_key, box).text
    assert "was revoked" in _verdict(alice.by_key, plain, box).text
    box.write_bytes(alice.keybox[:-5])
    with pytest.raises(FormatError, match="keybox is damaged"):
        TrustedKeys.load([box])


def test_a_forged_revocation_revokes_nothing(alice: Alice, tmp_path: Path) -> None:
    """gpgv verifies it: who can only append to a keyring in transit can't take a key away, nor bring one."""
    path = tmp_path / "forged.gpg"
    revoked = alice.states["revoked"]
    at = next(index for index in range(len(revoked)) if revoked[index : index + 2] == b"\x04\x20")
    forged = bytearray(revoked)
    forged[at + 70] ^= 1
    path.write_bytes(bytes(forged) + alice.states["plain"])
    assert _verdict(alice.by_key, path).is_trusted


def test_what_is_no_signature_alone_never_comes_to_gpgv(
    alice: Alice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gpgv unpacks compressed data, and would do so without end."""
    path, asked, gpgv = tmp_path / "plain.gpg", tmp_path / "asked", tmp_path / "gpgv"
    path.write_bytes(alice.states["plain"])
    gpgv.write_text(f"#!/bin/sh\necho >> {asked}\n")
    gpgv.chmod(0o755)
    packed = subprocess.run(
        ["gpg", "--homedir", str(tmp_path), "--store", "--compress-algo", "zlib"],
        input=bytes(1 << 20), capture_output=True, check=True,
    ).stdout  # fmt: skip
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for signature in (packed, alice.by_key + packed, alice.by_key * 65, b"", b"\xff"):
        assert "can't be read" in _verdict(signature, path).text
    assert not asked.exists()
    _verdict(alice.by_key, path)
    assert asked.exists()


def test_a_secret_key_is_not_taken_for_a_public_one(alice: Alice, tmp_path: Path) -> None:
    path = tmp_path / "secret.gpg"
    path.write_bytes(alice.states["plain"] + bytes((0xC5, 4)) + b"\x04abc")
    with pytest.raises(FormatError, match="secret key"):
        TrustedKeys.load([path])
