"""The names of xattrs that overlayfs keeps for itself, escaped and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fsview.overlay_xattrs import PREFIXES, escaped, unescaped

parts = st.sampled_from([b"user.", b"trusted.", b"overlay.", b"opaque", b"k"])
xattrs = st.dictionaries(st.lists(parts, min_size=1, max_size=4).map(b"".join), st.binary(max_size=2)).map(
    lambda found: tuple(sorted(found.items()))
)


@given(xattrs)
def test_what_is_escaped_comes_back_and_no_overlay_obeys_it(found: tuple[tuple[bytes, bytes], ...]) -> None:
    shown = escaped(found)
    assert unescaped(shown, PREFIXES) == found and shown == tuple(sorted(shown))
    for name, _ in shown:
        for prefix in PREFIXES:
            assert not name.startswith(prefix) or name.startswith(prefix + b"overlay.")


def test_what_an_overlay_noted_is_left_out() -> None:
    noted = ((b"trusted.overlay.opaque", b"y"), (b"trusted.overlay.overlay.opaque", b"x"), (b"user.k", b""))
    assert unescaped(noted, PREFIXES) == ((b"trusted.overlay.opaque", b"x"), (b"user.k", b""))
    assert unescaped(((b"user.overlay.k", b"1"),), (b"trusted.overlay.",)) == ((b"user.overlay.k", b"1"),)
