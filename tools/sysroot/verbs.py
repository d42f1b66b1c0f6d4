"""`fsview deploy`, `switch` and `upgrade`: another tree becomes current."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import click

from store.errors import NotFoundError, SysrootError
from store.repository import Repository
from store.schema import TreeId
from store.tree import tree_record
from tools.cli import RevisionType
from tools.render import count_text, json_path, print_json, progress, size_text
from tools.sysroot.data_versions import Lower
from tools.sysroot.deploy import Options, Outcome, deploy
from tools.sysroot.layout import Stateroot
from tools.sysroot.merging import MergeOptions, conflict_lines, merge_text
from tools.sysroot.options import (
    ACCEPT_OPTION,
    DRY_RUN_OPTION,
    JSON_OPTION,
    NO_WAIT_OPTION,
    SNAPSHOT_OPTION,
    changing,
    generation_json,
    generation_text,
    say,
    stateroot_options,
)  # fmt: skip
from tools.sysroot.plan import Plan, make_plan, plan_json, plan_lines
from tools.sysroot.source import open_source
from tools.sysroot.target import HEAD, Target, find_target

_MERGE_OPTIONS = (
    click.option("--merge", type=click.Choice(["keep", "text"]), default="keep", show_default=True,
                 help="Files of /etc that both sides changed: keep the admin's, or merge texts line by line."),
    click.option("--no-merge", is_flag=True, help="Take /etc as it was committed."),
    click.option("--strict", is_flag=True, help="Change nothing if there are conflicts in /etc."),
)  # fmt: skip


def _deployment_options(function: Any) -> Any:
    for option in reversed(
        (*_MERGE_OPTIONS, ACCEPT_OPTION, SNAPSHOT_OPTION, DRY_RUN_OPTION, NO_WAIT_OPTION, JSON_OPTION)
    ):
        function = option(function)
    return function


class _SourceType(RevisionType):
    """A revision or a path in a mounted view, kept as it was given: it may name the ref to follow."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value


def change(stateroot: Stateroot, source: str, verb: str, given: dict[str, Any]) -> None:
    """Deploy *source*, or say what would be done, and print what came of it."""
    with (
        changing(stateroot, no_wait=given["no_wait"]),
        open_source(stateroot.sysroot, source) as (repository, revision),
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
        given["snapshot_var"], reuse=verb != "deploy", user_mode=os.geteuid() != 0,
    )  # fmt: skip
    if given["dry_run"]:
        _print_plan(make_plan(stateroot, repository, target, options), in_json=given["in_json"])
        return
    if options.user_mode:
        say("not root: owners, xattrs, setuid and setgid are left out")
    with repository.database.reading() as reading:
        entries = tree_record(reading, TreeId(target.place.entry.id)).entries
    with progress("deploying", entries, "entries") as advance:
        outcome = deploy(stateroot, repository, target, options, advance)
    _print_outcome(outcome, in_json=given["in_json"])


def _print_plan(plan: Plan, *, in_json: bool) -> None:
    if in_json:
        print_json(plan_json(plan))
        return
    for line in plan_lines(plan):
        print(line)


def _print_outcome(outcome: Outcome, *, in_json: bool) -> None:
    if in_json:
        print_json(_outcome_json(outcome))
        return
    for line in _outcome_lines(outcome):
        say(line)
    print(outcome.generation.root)


def _outcome_lines(outcome: Outcome) -> list[str]:
    lines = list(outcome.notes)
    if outcome.written and outcome.links:
        ways = ", ".join(f"{number} {way}" for way, number in asdict(outcome.links).items() if number)
        lines.append(
            f"{count_text(outcome.written.files, 'file')}, {size_text(outcome.written.bytes)} ({ways or 'none'})"
        )
    else:
        lines.append(f"the deployment {outcome.generation.deployment} was there, and no change of /etc to carry over")
    if outcome.merge is not None:
        lines.append(merge_text(outcome.merge))
        lines += conflict_lines(outcome.merge.conflicts)
    lines += [_accepted(lower) for lower in outcome.lower]
    if outcome.generation.origin.packages:
        lines.append(f"packages: {outcome.generation.origin.packages}")
    before = f" (was {generation_text(outcome.previous)})" if outcome.previous else ""
    return [*lines, f"current is now {generation_text(outcome.generation)}{before}"]


def _accepted(lower: Lower) -> str:
    return f"accepted: {lower.text}"


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    merge = outcome.merge
    return generation_json(outcome.generation) | {
        "changed": True,
        "reused": outcome.written is None,
        "written": asdict(outcome.written) if outcome.written else None,
        "links": asdict(outcome.links) if outcome.links else None,
        "etc": None if merge is None else {
            "modified": merge.modified, "added": merge.added, "deleted": merge.deleted,
            "text_merged": [json_path(path) for path in merge.text_merged],
            "skipped": [json_path(path) for path in merge.skipped],
            "conflicts": [
                {"path": json_path(one.path), "what": one.what, "kept": one.kept,
                 "beside": json_path(one.beside) if one.beside else None}
                for one in merge.conflicts
            ],
        },
        "accepted": [lower.text for lower in outcome.lower],
        "notes": outcome.notes,
    }  # fmt: skip


def _say_nothing(given: dict[str, Any], text: str, facts: dict[str, object] | None) -> None:
    if given["in_json"]:
        print_json((facts or {}) | {"changed": False})
    else:
        say(text)


DEPLOY_EXAMPLES = """
\b
Examples:
  fsview deploy --sysroot /srv/web debian/12/amd64/base
  fsview deploy MNT/refs/debian/12/amd64/base     from a mounted view; 'upgrade' will follow the ref
  fsview deploy --dry-run --json debian/13

\b
Files come as reflinks, else as hard links of the repository's own files or of the same files in the deployment before;
else they are copied. Don't write to them in place. What is in etc/ is always a copy.
"""


@click.command("deploy", epilog=DEPLOY_EXAMPLES)
@click.argument("source", type=_SourceType())
@_deployment_options
@stateroot_options
def deploy_command(stateroot: Stateroot, /, source: str, **given: Any) -> None:
    """Write the tree SOURCE, a revision or a path in a mounted view, and make it current."""
    change(stateroot, source, "deploy", given)


SWITCH_EXAMPLES = """
\b
Examples:
  fsview switch debian/13
  fsview switch --strict debian/13     not if something in /etc was changed on both sides

\b
Changes of /etc are carried over, /var stays as it is. A deployment of the commit that needs no merge is taken as it is.
"""


@click.command("switch", epilog=SWITCH_EXAMPLES)
@click.argument("source", metavar="REF", type=_SourceType())
@_deployment_options
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
@click.option("--allow-downgrade", is_flag=True, help="Even if the ref's commit is older than the current one.")
@_deployment_options
@stateroot_options
def upgrade_command(stateroot: Stateroot, /, allow_downgrade: bool, **given: Any) -> None:
    """Deploy the head of the ref that is current, if it moved. Nothing to do is no error."""
    with changing(stateroot, no_wait=given["no_wait"]):
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
            if target.committed < current.origin.committed and not allow_downgrade:
                raise SysrootError(
                    f"{ref} is at {target.checksum[:8]} of {target.committed:%Y-%m-%d %H:%M:%S}, older than what is "
                    f"current, of {current.origin.committed:%Y-%m-%d %H:%M:%S}; --allow-downgrade deploys it anyway"
                )
            run(stateroot, repository, target, "upgrade", given)
