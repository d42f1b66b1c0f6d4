"""What a sysroot's policy asks of a deployment: with "certified", a trusted signature, and every byte as it was signed.

A rollback is not asked: its deployment passed when it was made, and the way back must not depend on keys. It is told
of where it goes to a tree that nobody certified.
"""

from __future__ import annotations

from pathlib import Path

from store.repository import Repository
from store.schema import id_key
from tools.sysroot.proof import Prover
from tools.sysroot.settings import Policy
from tools.sysroot.target import Target
from tools.sysroot.trees import Built, Shape


def check_signature(policy: Policy, repository: Repository, target: Target) -> list[str]:
    """Return by whom a commit is certified, if the policy asks for that.

    Raises:
        UntrustedError: by nobody who is trusted.
    """
    if not policy.is_certified:
        return []
    from tools.signing import TrustedKeys, require_certified  # seldom needed

    with repository.database.reading() as reading:
        detached = reading.get(b"detached", id_key(target.number))
    verdicts = require_certified(target.checksum, target.raw, detached, TrustedKeys.load(policy.trusted))
    return [verdict.name or verdict.key for verdict in verdicts if verdict.is_valid and verdict.is_trusted]


class ContentCheck:
    """Proves what was written of one commit."""

    def __init__(self, repository: Repository, target: Target, shape: Shape, *, user_mode: bool) -> None:
        self._prover = Prover(repository, target.checksum, target.raw, user_mode=user_mode)
        self._shape = shape

    def check(self, built: Built) -> None:
        """Compare a tree, before /etc is merged, and its pristine etc with the commit.

        Raises:
            CorruptionError: they differ.
        """
        is_usr_etc = self._shape.is_usr_etc
        more = (b"etc", b"var") if is_usr_etc else (b"var",)
        self._prover.prove(built.root, self._prover.root, hollow=(b"/var",), more=more)
        if self._shape.etc is None:
            return
        etc = self._prover.below(*((b"usr", b"etc") if is_usr_etc else (b"etc",)))
        for top in (built.pristine, *([built.root / "etc"] if is_usr_etc else [])):
            self._prover.prove(top, etc)

    def check_var(self, new: Path) -> None:
        """Compare what /var is to be filled with."""
        self._prover.prove(new, self._prover.below(b"var"))
