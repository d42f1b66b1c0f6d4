"""Signatures of commits: who made them, whether they hold, and whether that key is trusted.

    trusted = TrustedKeys.load(paths)
    verdicts = judge(raw_commit, detached, trusted)            what is to be said of each signature
    require_certified(checksum_hex, raw_commit, detached, trusted)     raises UntrustedError

Signed are the raw bytes of the commit object, as OSTree signs them. The commit names the sha256 of its root, and so on
down: who has checked the signature and then each sha256 has checked the whole tree.
"""

from tools.signing.judging import Verdict, judge, require_certified
from tools.signing.trusted import TrustedKeys

__all__ = ["TrustedKeys", "Verdict", "judge", "require_certified"]
