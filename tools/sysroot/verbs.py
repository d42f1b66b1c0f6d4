"""`fsview switch` and `upgrade`, and what they share with `deploy`: another tree becomes current."""

from __future__ import annotations

import os
from typing import Any

import click

from store.errors import NotFoundError, SysrootError
from store.repository import Repository
from store.schema import TreeId
from store.tree import tree_record
from tools.parameters import RevisionType
from tools.render import print_json, progress, say
from tools.sysroot.deploy import MergeOptions, Options, deploy
from tools.sysroot.layout import Stateroot
from tools.sysroot.options import (
    ACCEPT_OPTION,
    DRY_RUN_OPTION,
    JSON_OPTION,
    NO_WAIT_OPTION,
    SNAPSHOT_OPTION,
    changing,
    generation_json,
    stateroot_options,
)  # fmt: skip
from tools.sysroot.outcome import print_outcome, print_plan
from tools.sysroot.source import open_source
from tools.sysroot.target import HEAD, Target, find_target

_MERGE_OPTIONS = (
    click.option("--merge", type=click.Choice(["keep", "text"]), default="keep", show_default=True,
                 help="Files of /etc that both sides changed: keep the admin's, or merge texts line by line."),
    click.option("--no-merge", is_flag=True, help="Take /etc as it was committed."),
    click.option("--strict", is_flag=True, help="Change nothing if there are conflicts in /etc."),
)  # fmt: skip
_DOWNGRADE_OPTION = click.option(
    "--allow-downgrade", is_flag=True, help="Even if it is older than a commit of the same ref that was deployed here."
)


def deployment_options(function: Any) -> Any:
    """Give *function* the options of all commands that deploy, as keywords."""
    more = (ACCEPT_OPTION, SNAPSHOT_OPTION, DRY_RUN_OPTION, NO_WAIT_OPTION, JSON_OPTION)
    for option in reversed((*_MERGE_OPTIONS, _DOWNGRADE_OPTION, *more)):
        function = option(function)
    return function


class SourceType(RevisionType):
    """A revision or a path in a mounted view, kept as it was given: it may name the ref to follow."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value


def change(stateroot: Stateroot, source: str, verb: str, given: dict[str, Any]) -> None:
    """Deploy *source*, or say what would be done, and print what came of it."""
    with (
        changing(stateroot, no_wait=given["no_wait"], dry_run=given["dry_run"]),
        open_source(stateroot.sysroot, source, dry_run=given["dry_run"]) as (repository, revision),
    ):
        with repository.database.reading() as reading:
            target = find_target(reading, source, revision)
        current = stateroot.current()
        if (
            verb == "switch"
            and current
            and (current.origin.commit, current.origin.ref) == (target.checksum, target.ref)
        ):
            _say_nothing(given, f"{source} is what is current; nothing to do", generation_json(current))
            return
        run(stateroot, repository, target, verb, given)


def run(stateroot: Stateroot, repository: Repository, target: Target, verb: str, given: dict[str, Any]) -> None:
    """Deploy *target*; the lock is held."""
    options = Options(
        verb, MergeOptions(given["merge"] == "text", given["strict"], given["no_merge"]), given["accept_data_versions"],
        given["allow_downgrade"], given["snapshot_var"], reuse=verb != "deploy", user_mode=is_user_mode(),
    )  # fmt: skip
    if given["dry_run"]:
        from tools.sysroot.plan import make_plan

        print_plan(make_plan(stateroot, repository, target, options), in_json=given["in_json"])
        return
    with repository.database.reading() as reading:
        entries = tree_record(reading, TreeId(target.place.entry.id)).entries
    with progress("deploying", entries, "entries") as advance:
        outcome = deploy(stateroot, repository, target, options, advance)
    print_outcome(outcome, in_json=given["in_json"])


def is_user_mode() -> bool:
    """Whether what only root can give to files is left out, which is said."""
    if os.geteuid() != 0:
        say("not root: owners, xattrs, setuid and setgid are left out")
    return os.geteuid() != 0


def _say_nothing(given: dict[str, Any], text: str, facts: dict[str, object] | None) -> None:
    if given["in_json"]:
        print_json((facts or {}) | {"changed": False})
    else:
        say(text)


SWITCH_EXAMPLES = """
\b
Examples:
  fsview switch debian/13
  fsview switch --strict debian/13     not if something in /etc was changed on both sides

\b
Changes of /etc are carried over, /var stays as it is. A deployment of the commit that needs no merge is taken as it is.
"""


@click.command("switch", epilog=SWITCH_EXAMPLES)
@click.argument("source", metavar="REF", type=SourceType())
@deployment_options
@stateroot_options
def switch_command(stateroot: Stateroot, /, source: str, **given: Any) -> None:
    """Make another ref current, and follow it from now on."""
    change(stateroot, source, "switch", given)


UPGRADE_EXAMPLES = """
\b
Examples:
  fsview upgrade
  fsview upgrade --dry-run      what would change
"""


@click.command("upgrade", epilog=UPGRADE_EXAMPLES)
@deployment_options
@stateroot_options
def upgrade_command(stateroot: Stateroot, /, **given: Any) -> None:
    """Deploy the head of the ref that is current, if it moved. Nothing to do is no error."""
    with changing(stateroot, no_wait=given["no_wait"], dry_run=given["dry_run"]):
        current = stateroot.current()
        if current is None:
            raise NotFoundError(f"nothing is deployed in {stateroot.name}; begin with: fsview deploy REF")
        ref = current.origin.ref
        if ref is None:
            raise SysrootError("the current generation follows no ref; name one: fsview switch REF")
        with open_source(stateroot.sysroot, ref) as (repository, _):
            with repository.database.reading() as reading:
                target = find_target(reading, ref + HEAD, ref + HEAD)
            if target.checksum == current.origin.commit:
                _say_nothing(
                    given, f"no update: {ref} is at {target.checksum[:8]}, which is current", generation_json(current)
                )
                return
            run(stateroot, repository, target, "upgrade", given)
