"""Signatures judged: by whom, and each way of being none with its own words; beside ssh-keygen and OSTree's vectors."""

from __future__ import annotations

import json
import re
import subprocess
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import CorruptionError, FormatError, FsviewError, UntrustedError
from store.gvariant import Variant
from store.objects import Metadata, pack_detached, unpack_detached
from tools.signing import TrustedKeys, Verdict, judge, require_certified
from tools.signing.ed25519 import PublicKey, SecretKey
from tools.signing.openpgp import keyring_of
from tools.signing.secrets import load_secret_key
from tools.signing.stored import ED25519, with_signature, without_signatures

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_EXTRA: dict[str, Any] = json.loads((GOLDEN / "extra.json").read_text())
ONE, TWO = bytes.fromhex(_EXTRA["commit1_hex"]), bytes.fromhex(_EXTRA["commit2_hex"])
SIGNED_TWO = bytes.fromhex(_EXTRA["commitmeta_one_sig_plus_detached_key"])
ALICE = SecretKey.from_seed(b"a" * 32, "alice")
MALLORY = SecretKey.from_seed(b"m" * 32, "mallory")
OF_ALICE = TrustedKeys((ALICE.public,))


def _signed(*keys: SecretKey, raw: bytes = ONE, before: Metadata = ()) -> Metadata:
    for key in keys:
        before = with_signature(before, key, sha256(raw).digest(), raw)
    return before


def _refusal(raw: bytes, metadata: Metadata | None, trusted: TrustedKeys = OF_ALICE) -> str:
    detached = None if metadata is None else pack_detached(metadata)
    with pytest.raises(UntrustedError) as caught:
        require_certified(sha256(raw).hexdigest(), raw, detached, trusted)
    return str(caught.value)


def _golden(directory: Path, name: str) -> Path:
    """Return a copy of a golden file: who has the checkout may be anybody, and it may be writable for a group."""
    path = directory / name
    path.write_bytes((GOLDEN / name).read_bytes())
    return path


def _bare(metadata: Metadata) -> Metadata:
    """Return *metadata* as OSTree would have written them: without what is said of the signatures."""
    return tuple(entry for entry in metadata if entry[0] == ED25519)


def test_a_good_signature_says_by_whom() -> None:
    (verdict,) = require_certified(sha256(ONE).hexdigest(), ONE, pack_detached(_signed(ALICE)), OF_ALICE)
    key = ALICE.public.fingerprint
    text = f"good Ed25519 signature by alice ({key})"
    assert verdict == Verdict("ed25519", key, "alice", is_valid=True, is_trusted=True, text=text)


def test_one_trusted_signature_among_others_is_enough() -> None:
    verdicts = judge(ONE, pack_detached(_signed(MALLORY, ALICE)), OF_ALICE)
    assert [(one.is_valid, one.is_trusted) for one in verdicts] == [(True, False), (True, True)]
    assert require_certified(sha256(ONE).hexdigest(), ONE, pack_detached(_signed(MALLORY, ALICE)), OF_ALICE) == verdicts


def test_each_refusal_has_its_own_words(tmp_path: Path) -> None:
    ((_, value), said) = _signed(ALICE)
    flipped = ((ED25519, Variant("aay", [bytes([value.value[0][0] ^ 1]) + value.value[0][1:]])), said)
    refusals = [
        _refusal(ONE, None),
        _refusal(ONE, _signed(ALICE), TrustedKeys()),
        _refusal(ONE, _signed(MALLORY)),
        _refusal(ONE, flipped),
        _refusal(TWO, _signed(ALICE)),
        _refusal(TWO, _bare(_signed(ALICE))),
        _refusal(ONE, ((ED25519, Variant("s", "x")),)),
        _refusal(ONE, (("ostree.sign.spki", Variant("aay", [b"x"])),)),
        _refusal(ONE, unpack_detached(SIGNED_TWO)),
        _refusal(ONE, unpack_detached(SIGNED_TWO), TrustedKeys.load([_golden(tmp_path, "test-key.pub.asc")])),
    ]
    expected = [
        "it has no signature", "no key is trusted", "a key that is not trusted", "does not fit: it or the commit was",
        f"by alice .* is of another commit, {sha256(ONE).hexdigest()[:12]}", "by another key, or of another commit",
        "not a list of signatures", "of the kind 'spki'", "GPG signature of 3070A90B4F1EF361 is by a key that is not",
        "does not fit this commit",
    ]  # fmt: skip
    for words, found in zip(expected, refusals, strict=True):
        assert re.search(words, found), found
    assert len(set(refusals)) == len(refusals)


def test_what_a_signature_says_of_itself_is_believed_by_nobody() -> None:
    (signatures, (key, _)) = _signed(MALLORY)
    boast = (key, Variant("a(ayay)", [(ALICE.public.raw, sha256(ONE).digest())]))
    (verdict,) = judge(ONE, pack_detached((signatures, boast)), OF_ALICE)
    assert not verdict.is_valid and "said to be by alice" in verdict.text


def test_bytes_of_another_commit_are_damage() -> None:
    with pytest.raises(CorruptionError):
        require_certified(sha256(TWO).hexdigest(), ONE, pack_detached(_signed(ALICE)), OF_ALICE)


def test_damaged_detached_metadata_certify_nothing() -> None:
    with pytest.raises(UntrustedError, match="not certified: "):
        require_certified(sha256(ONE).hexdigest(), ONE, b"\1\2\3", OF_ALICE)


def test_signing_again_changes_nothing_and_removing_leaves_what_was_there() -> None:
    note: Metadata = (("note", Variant("s", "n")),)
    both = _signed(ALICE, MALLORY, before=note)
    assert _signed(MALLORY, ALICE, before=both) == both
    assert without_signatures(both, MALLORY.public, ONE) == _signed(ALICE, before=note)
    assert without_signatures(_signed(ALICE, before=note), ALICE.public, ONE) == note
    assert without_signatures(_bare(both), ALICE.public, ONE) != _bare(both)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 8 * (len(ONE) + 64) - 1), st.booleans())
def test_any_flipped_bit_of_commit_or_signature_makes_it_invalid(bit: int, is_bare: bool) -> None:
    raw, metadata = bytearray(ONE), _signed(ALICE)
    signature = bytearray(metadata[0][1].value[0])
    at, mask = bit // 8, 1 << bit % 8
    if at < len(raw):
        raw[at] ^= mask
    else:
        signature[at - len(raw)] ^= mask
    flipped: Metadata = ((ED25519, Variant("aay", [bytes(signature)])), *metadata[1:])
    verdicts = judge(bytes(raw), pack_detached(_bare(flipped) if is_bare else flipped), OF_ALICE)
    assert [verdict.is_valid for verdict in verdicts] == [False]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_the_detached_metadata_never_makes_another_trusted(data: st.DataObject) -> None:
    raw = bytearray(pack_detached(_signed(MALLORY)))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(UntrustedError):
        require_certified(sha256(ONE).hexdigest(), ONE, bytes(raw), OF_ALICE)


@pytest.mark.parametrize("name", ["test-key.pub.asc", "test-key.pub.gpg"])
def test_a_gpg_signature_made_by_ostree(tmp_path: Path, name: str) -> None:
    trusted = TrustedKeys.load([_golden(tmp_path, name)])
    (verdict,) = judge(TWO, SIGNED_TWO, trusted)
    assert verdict.is_valid and verdict.is_trusted and verdict.scheme == "gpg"
    assert verdict.key == _EXTRA["gpg_fingerprint"] and "throwaway test key" in verdict.name
    assert len(judge(ONE, bytes.fromhex(_EXTRA["commitmeta_two_sigs"]), trusted)) == 2


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_flipped_bit_of_a_gpg_signed_commit_makes_it_invalid(data: st.DataObject) -> None:
    raw = bytearray(TWO)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    keyring = keyring_of((GOLDEN / "test-key.pub.gpg").read_bytes())
    assert keyring is not None
    (verdict,) = judge(bytes(raw), SIGNED_TWO, TrustedKeys((), (tuple(keyring),)))
    assert not verdict.is_valid


def test_gpgv_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FsviewError, match="apt install gpgv"):
        judge(TWO, SIGNED_TWO, TrustedKeys.load([_golden(tmp_path, "test-key.pub.gpg")]))
    assert "3070A90B4F1EF361 is by a key that is not trusted" in judge(TWO, SIGNED_TWO, OF_ALICE)[0].text
    assert judge(ONE, pack_detached(_signed(ALICE)), OF_ALICE)[0].is_trusted


def test_lists_of_keys(tmp_path: Path) -> None:
    listed = tmp_path / "allowed_signers"
    line = _line(ALICE.public)
    listed.write_text(f"# ours\n\nalice@example.org {line}\nssh-rsa AAAA old\n{_line(MALLORY.public)} a comment\n")
    trusted = TrustedKeys.load([listed, _file(tmp_path, "one.pub", line)])
    assert [(key.raw, key.name) for key in trusted.ed25519] == [
        (ALICE.public.raw, "alice@example.org"), (MALLORY.public.raw, "a comment"),
    ]  # fmt: skip


def test_a_list_of_ostrees(tmp_path: Path) -> None:
    text = "".join(b64encode(key.public.raw).decode() + "\n" for key in (ALICE, MALLORY))
    assert TrustedKeys.load([_file(tmp_path, "keys", text)]).ed25519 == (ALICE.public, MALLORY.public)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no Ed25519 key"),
        ("ssh-rsa AAAA old", "no Ed25519 key"),
        ("hello world", "line 1: this is no public key"),
        ("ssh-ed25519 AAAA", "damaged"),
        ("ssh-ed25519 ä", "no base64"),
        (b64encode(b"a" * 64).decode(), "secret key of OSTree"),
        (b64encode(b"a" * 31).decode(), "has 32 bytes, this one 31"),
        ('valid-before="20200101" {key}', "restricts this key"),
        ("x cert-authority {key}", "restricts this key"),
        ("cert-authority {key}", "restricts this key"),
        ("@revoked {key}", "'@revoked'"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\n", "is a secret key"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n", "GPG key is damaged"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = _file(tmp_path, "keys", text.replace("{key}", _line(ALICE.public)))
    with pytest.raises(FormatError, match=words):
        TrustedKeys.load([path])


def test_a_fingerprint_is_what_ssh_keygen_shows(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", path], check=True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True).stdout
    (key,) = TrustedKeys.load([path.with_suffix(".pub")]).ed25519
    assert shown.split()[1] == key.fingerprint and key.name == "a comment"


def _line(key: PublicKey) -> str:
    from tools.signing.ed25519 import ssh_blob

    return f"ssh-ed25519 {b64encode(ssh_blob(key.raw)).decode()}"


def _file(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text)
    return path


_MADE_BY_OSTREE: dict[str, str] = json.loads((GOLDEN / "ed25519.json").read_text())


def test_an_ed25519_signature_made_by_ostree(tmp_path: Path) -> None:
    raw, meta = (bytes.fromhex(_MADE_BY_OSTREE[name]) for name in ("commit_hex", "commitmeta_hex"))
    trusted = TrustedKeys.load([_file(tmp_path, "key", _MADE_BY_OSTREE["public_key"] + "\n")])
    assert [one.is_trusted for one in require_certified(_MADE_BY_OSTREE["commit"], raw, meta, trusted)] == [True]
    with pytest.raises(UntrustedError, match="by another key, or of another commit"):
        require_certified(_MADE_BY_OSTREE["commit"], raw, meta, OF_ALICE)


def test_the_same_key_signs_as_ostree_does_bit_for_bit(tmp_path: Path) -> None:
    raw, meta = (bytes.fromhex(_MADE_BY_OSTREE[name]) for name in ("commit_hex", "commitmeta_hex"))
    path = _file(tmp_path, "secret", _MADE_BY_OSTREE["secret_key"])
    path.chmod(0o600)
    ours = with_signature((), load_secret_key(path, lambda path: ""), sha256(raw).digest(), raw)
    assert pack_detached(_bare(ours)) == meta


_GPG: dict[str, Any] = json.loads((GOLDEN / "gpg.json").read_text())["cases"]


def _gpg_verdict(signature: bytes, keyring: str) -> Verdict:
    trusted = TrustedKeys((), (tuple(keyring_of(bytes.fromhex(keyring)) or ()),))
    (verdict,) = judge(ONE, pack_detached((("ostree.gpgsigs", Variant("aay", [signature])),)), trusted)
    return verdict


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("EXPKEYSIG", "is by a key that has expired"),
        ("EXPSIG", "of Brief <brief@example.org> .* has expired"),
        ("REVKEYSIG", "is by a key that was revoked"),
    ],
)
def test_what_gpgv_accepts_and_we_do_not(case: str, words: str) -> None:
    verdict = _gpg_verdict(bytes.fromhex(_GPG[case]["signature_hex"]), _GPG[case]["keyring_hex"])
    assert not verdict.is_valid and re.search(words, verdict.text)


def test_one_element_with_several_gpg_signatures_needs_all_of_them() -> None:
    good, old = (bytes.fromhex(_GPG[case]["signature_hex"]) for case in ("good", "EXPKEYSIG"))
    assert _gpg_verdict(good, _GPG["good"]["keyring_hex"]).is_valid
    assert not _gpg_verdict(good + old, _GPG["good"]["keyring_hex"]).is_valid
    assert not _gpg_verdict(good + old, _GPG["good"]["keyring_hex"] + _GPG["EXPKEYSIG"]["keyring_hex"]).is_valid


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x88\x75\x04"])
def test_gpg_signatures_that_are_none(junk: bytes) -> None:
    verdict = _gpg_verdict(junk, _GPG["good"]["keyring_hex"])
    assert not verdict.is_valid and "can't be read" in verdict.text
