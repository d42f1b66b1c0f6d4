"""Versions are ordered as the package managers' own programs order them."""

from __future__ import annotations

import shutil
import subprocess
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.packages.versions import compare_versions

LONG = "1:" + "9" * 5000
ASCENDING = {  # each older than the next
    "dpkg": f"0~~ 0~ 0 1.0~rc1-1 1.0-1~bpo1 1.0-1 1.0-1+b1 1.0+dfsg-1 1.0.1-1 1.10-1 1:0.1-1 {LONG}",
    "rpm": f"1.0~rc1-1 1.0-1 1.0^git1-1 1.0a-1 1.0.1-1 1.2-1 1.10-1 1.10-1.fc40 1.10-10 1:0-1 {LONG}",
    "pacman": f"1.0a 1.0alpha 1.0b 1.0beta 1.0p 1.0pre 1.0rc 1.0 1.0.a 1.0.1 1.1-1 1.1-2 1:0.5-1 {LONG}",
    "apk": "1.0_alpha_pre2-r0 1.0_alpha-r0 1.0_alpha2-r0 1.0_beta-r0 1.0_pre3-r0 1.0_rc1-r0 1.0-r0 1.0-r10 1.0_cvs-r0 "
    "1.0_git20240102-r0 1.0_p9-r0 1.0_p10-r0 1.0a-r0 1.0.1-r0 1.01-r0 1.1-r0 1.9-r0 1.10-r0 20240101-r0",
    "python": "unversioned 1.0.dev1 1.0a1 1.0rc1 1.0 1.0+local 1.0.post1 1.1 1.10 1!0.1",
}


@pytest.mark.parametrize("manager", ASCENDING)
def test_versions_are_in_order(manager: str) -> None:
    for older, newer in combinations(ASCENDING[manager].split(), 2):
        assert compare_versions(manager, older, newer) < 0, (older, newer)
        assert compare_versions(manager, newer, older) > 0, (older, newer)


@pytest.mark.parametrize(
    ("manager", "one", "other"),
    [
        ("dpkg", "0:1.0-0", "1.0"),
        ("dpkg", "1.01-1", "1.1-1"),
        ("rpm", "0:1.0-1", "1.0-1"),
        ("rpm", "1.0-1", "1_0-1"),
        ("rpm", "1.05-1", "1.5-1"),
        ("pacman", "1.0-1", "1.0"),
        ("apk", "1.0_p01", "1.0_p1"),
        ("python", "1.0", "1.0.0"),
        ("python", "1.0-rc1", "1.0RC1"),
    ],
)
def test_versions_that_look_different_can_be_equal(manager: str, one: str, other: str) -> None:
    assert compare_versions(manager, one, other) == compare_versions(manager, other, one) == 0


@pytest.mark.parametrize("manager", ASCENDING)
@given(texts=st.tuples(st.text("019ab.-+~^_:r é", max_size=12), st.text("019ab.-+~^_:r é", max_size=12)))
def test_any_two_texts_can_be_compared(manager: str, texts: tuple[str, str]) -> None:
    one, other = texts
    assert compare_versions(manager, one, other) == -compare_versions(manager, other, one)
    assert compare_versions(manager, one, one) == 0


def _texts(characters: str) -> st.SearchStrategy[tuple[str, str]]:
    text = st.text(characters, max_size=7).map(lambda rest: "1" + rest + "0")
    longer = st.tuples(text, st.text(characters, max_size=3)).map(lambda pair: (pair[0], pair[0] + pair[1] + "0"))
    return st.tuples(text, text) | longer


@settings(max_examples=40)
@given(pair=_texts("0012ab.+~-Z"))
def test_dpkg_itself_agrees(pair: tuple[str, str]) -> None:
    if shutil.which("dpkg") is None:
        pytest.skip("dpkg is not installed")

    def says(relation: str) -> bool:
        return subprocess.run(["dpkg", "--compare-versions", pair[0], relation, pair[1]]).returncode == 0

    assert compare_versions("dpkg", *pair) == says("gt") - says("lt")


@settings(max_examples=20)
@given(pairs=st.lists(_texts("0012ab.+~^_Z"), min_size=20, max_size=200))
def test_rpm_itself_agrees(pairs: list[tuple[str, str]]) -> None:
    calls = "".join(f"print(rpm.vercmp('{one}', '{other}')..' ') " for one, other in pairs)
    said = subprocess.run(["rpm", "--eval", f"%{{lua:{calls}}}"], capture_output=True, text=True, check=True).stdout
    assert [compare_versions("rpm", *pair) for pair in pairs] == [int(word) for word in said.split()]
