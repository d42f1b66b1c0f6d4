"""What a sysroot's policy asks of a deployment: with "certified", a trusted signature, and every byte as it was signed.

What was proven when it was written is reused without a second proof; what was not, is written anew (deploy.py). A
rollback is not asked: its deployment passed when it was made, and the way back must not depend on keys. It is told
of where it goes to a tree that nobody certified.
"""

from __future__ import annotations

from store.repository import Repository
from store.schema import id_key
from tools.sysroot.settings import Policy
from tools.sysroot.target import Target


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
