"""`fsview rollback`: an earlier deployment becomes current again, as it is; a new generation says so.

It needs no repository, and looks at nothing but the files of the generations: the size of the trees has no say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

from store.errors import SysrootError
from tools.render import say
from tools.sysroot.activate import activate
from tools.sysroot.data_versions import lower_versions, raise_marks, refuse_lower
from tools.sysroot.layout import Generation, Stateroot
from tools.sysroot.newest import newest_of
from tools.sysroot.options import (
    ACCEPT_OPTION,
    DRY_RUN_OPTION,
    JSON_OPTION,
    NO_WAIT_OPTION,
    SNAPSHOT_OPTION,
    changing,
    generation_json,
    generation_text,
    stateroot_options,
)  # fmt: skip
from tools.sysroot.origin import HighWater, Origin
from tools.sysroot.sweep import sweep
from tools.sysroot.var import check_restore, take_snapshot


def find_rollback(stateroot: Stateroot, number: int | None) -> Generation:
    """Return the generation to go back to: *number*, else the one before the current that is another deployment.

    Raises:
        SysrootError: there is none, or it is the current one.
        NotFoundError: there is no such generation.
    """
    current = stateroot.current()
    if current is None:
        raise SysrootError(f"nothing is deployed in {stateroot.name}, so there is nothing to go back to")
    if number is None:
        for earlier in reversed(stateroot.generations()):
            if earlier.deployment != current.deployment:
                return earlier
        raise SysrootError(
            f"{stateroot.name} has no other deployment to go back to; 'fsview status' lists what there is"
        )
    target = stateroot.generation(number)
    if target.deployment == current.deployment:
        raise SysrootError(f"generation {number} has the deployment that is current; nothing was changed")
    return target


def check_rollback(
    stateroot: Stateroot, current: Generation, target: Generation, *, accept: bool, restore: bool
) -> Mapping[str, HighWater]:
    """Refuse what can't be, before anything is written; return the data versions that /var will have.

    Raises:
        SysrootError: data versions forbid it; its tree is gone; /var can't be exchanged.
        NotFoundError: it has no snapshot.
    """
    if restore:
        check_restore(stateroot, target)
    marks = target.origin.high_water if restore else current.origin.high_water  # restored data are as old as the tree
    if not accept:
        refuse_lower(lower_versions(target.origin.declares, marks))
    if not target.root.is_dir():
        raise SysrootError(f"{target.root} is gone; deploy the commit anew: fsview deploy {target.origin.commit}")
    return marks


def roll_back(
    stateroot: Stateroot, target: Generation, *, accept: bool = False, snapshot: bool = False, restore: bool = False
) -> Generation:
    """Make the deployment of *target* current; the caller holds the lock. With *restore*, also its snapshot of /var.

    Raises:
        SysrootError, NotFoundError: as of `check_rollback`.
    """
    current = stateroot.current()
    assert current is not None
    marks = check_rollback(stateroot, current, target, accept=accept, restore=restore)
    if snapshot and not restore:  # a restore keeps what it replaces anyway
        take_snapshot(stateroot, current)
    created = datetime.now(UTC).replace(microsecond=0)
    origin: Origin = replace(
        target.origin, verb="rollback", source=f"generation {target.number}", previous=current.number, created=created,
        pinned=False, packages="", restore_inode=0,
        high_water=raise_marks(marks, target.origin.declares, target.deployment, created),
        newest=newest_of(stateroot.generations()),
    )  # fmt: skip
    return activate(stateroot, origin, restore_from=target if restore else None, is_new_tree=False)


EXAMPLES = """
\b
Examples:
  fsview rollback                   to the deployment before; once more: back again
  fsview rollback --to 3
  fsview rollback --restore-var     also /var, as --snapshot-var kept it when that generation was left

\b
Nothing is merged: /etc is what it was when that deployment was left. /var stays as it is, unless it is restored; what a
restore replaces is kept with the generation that is left.
"""


@click.command("rollback", epilog=EXAMPLES)
@click.option("--to", "number", type=click.IntRange(min=1), metavar="N", help="The generation; else the one before.")
@click.option("--restore-var", is_flag=True, help="Put back the /var that was kept with it.")
@ACCEPT_OPTION
@SNAPSHOT_OPTION
@DRY_RUN_OPTION
@NO_WAIT_OPTION
@JSON_OPTION
@stateroot_options
def rollback_command(stateroot: Stateroot, /, number: int | None, restore_var: bool, **given: Any) -> None:
    """Go back to an earlier deployment, as it was when it was left."""
    with changing(stateroot, no_wait=given["no_wait"], dry_run=given["dry_run"]):
        if not given["dry_run"]:
            sweep(stateroot)
        target = find_rollback(stateroot, number)
        if given["dry_run"]:
            current = stateroot.current()
            assert current is not None
            check_rollback(stateroot, current, target, accept=given["accept_data_versions"], restore=restore_var)
            if given["in_json"]:
                _print(target, {"dry_run": True})
            else:
                print(f"would go back to {generation_text(target)}")
            return
        made = roll_back(
            stateroot, target, accept=given["accept_data_versions"], snapshot=given["snapshot_var"],
            restore=restore_var,
        )  # fmt: skip
    if stateroot.sysroot.policy.is_certified and not made.origin.certified:
        say("nobody certified this deployment: it was made before the policy asked for that")
    if given["in_json"]:
        _print(made, {"changed": True})
        return
    say(f"current is now {generation_text(made)}, as it was in generation {target.number}")
    print(made.root)


def _print(generation: Generation, more: dict[str, object]) -> None:
    from tools.render import print_json

    print_json(generation_json(generation) | more)
