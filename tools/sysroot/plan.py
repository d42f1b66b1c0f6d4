"""What a deployment would do, without doing it: `--dry-run`, and what `status` says of an upgrade."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from store.listing import Entry
from store.repository import Repository
from tools.render import json_path
from tools.sysroot.data_versions import Lower, lower_versions, refuse_lower
from tools.sysroot.etc_merge import Merge, merge_etc
from tools.sysroot.layout import Generation, Stateroot
from tools.sysroot.merging import merge_lines, refuse_conflicts
from tools.sysroot.newest import newest_of, refuse_older
from tools.sysroot.package_summary import package_summary
from tools.sysroot.policy import check_policy
from tools.sysroot.shape import shape_of
from tools.sysroot.target import Target
from tools.sysroot.trees import write_etc

if TYPE_CHECKING:
    from tools.sysroot.deploy import Options


@dataclass(slots=True)
class Plan:
    """What would happen."""

    verb: str
    target: Target
    current: Generation | None
    certified: list[str]
    merge: Merge | None = None
    lower: list[Lower] = field(default_factory=list)
    packages: str = ""


def make_plan(stateroot: Stateroot, repository: Repository, target: Target, options: Options) -> Plan:
    """Return what deploying *target* would do; what would be refused is refused.

    Raises:
        SysrootError, UntrustedError: as `deploy` does.
    """
    current = stateroot.current()
    certified = check_policy(stateroot.sysroot, repository, target)
    if not options.allow_downgrade:
        refuse_older(target, newest_of(stateroot.generations()))
    lower = lower_versions(target.declares, current.origin.high_water if current else {})
    if not options.accept_data_versions:
        refuse_lower(lower)
    with repository.database.reading() as reading:
        shape = shape_of(reading, target.place.root)
    packages = package_summary(repository, current, target)
    plan = Plan(options.verb, target, current, certified, lower=lower, packages=packages)
    if current and not options.merge.skip and (current.root / "etc").is_dir():
        plan.merge = _merge(repository, current, shape.etc, options)
        if options.merge.strict:
            refuse_conflicts(plan.merge.conflicts)
    return plan


def _merge(repository: Repository, current: Generation, etc: Entry | None, options: Options) -> Merge:
    with tempfile.TemporaryDirectory(prefix="fsview-etc-") as scratch:
        new = Path(scratch) / "etc"
        write_etc(repository, new, etc, user_mode=options.user_mode)
        return merge_etc(current.pristine_etc, current.root / "etc", new, None, text=options.merge.text)


def plan_lines(plan: Plan) -> list[str]:
    """Return the plan as text."""
    target, origin = plan.target, plan.current.origin if plan.current else None
    lines = [f"would {plan.verb}: {target.ref or target.source} {target.checksum} {target.title}".rstrip()]
    if origin:
        lines.append(f"in place of:  {origin.ref or origin.source} {origin.commit} {origin.title}".rstrip())
    lines += [f"certified by: {', '.join(plan.certified)}"] if plan.certified else []
    lines += merge_lines(plan.merge) if plan.merge else []
    lines += [f"packages:     {plan.packages}"] if plan.packages else []
    return [*lines, *(f"accepted: {lower.text}" for lower in plan.lower)]


def plan_json(plan: Plan) -> dict[str, object]:
    """Return the plan as a JSON object."""
    target = plan.target
    conflicts = plan.merge.conflicts if plan.merge else []
    return {
        "dry_run": True,
        "verb": plan.verb,
        "commit": target.checksum,
        "ref": target.ref,
        "title": target.title,
        "current": plan.current.number if plan.current else None,
        "certified": plan.certified,
        "packages": plan.packages,
        "conflicts": [json_path(one.path) for one in conflicts],
        "accepted": [lower.text for lower in plan.lower],
    }
