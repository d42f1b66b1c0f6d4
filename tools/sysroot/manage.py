"""`fsview pin`, `unpin`, `undeploy` and `cleanup`: which generations stay."""

from __future__ import annotations

from typing import Any

import click

from store.errors import FsviewError, NotFoundError, SysrootError
from tools.render import print_json, say
from tools.sysroot.layout import Generation, Stateroot
from tools.sysroot.options import (
    DRY_RUN_OPTION,
    JSON_OPTION,
    NO_WAIT_OPTION,
    changing,
    generation_text,
    stateroot_options,
)  # fmt: skip
from tools.sysroot.origin import ORIGIN_FILE
from tools.sysroot.removing import refuse_mounts, remove
from tools.sysroot.sweep import sweep


def find_generation(stateroot: Stateroot, number: int | None) -> Generation:
    """Return a generation, the current one without *number*.

    Raises:
        NotFoundError: there is none.
    """
    generation = stateroot.current() if number is None else stateroot.generation(number)
    if generation is None:
        raise NotFoundError(f"nothing is deployed in {stateroot.name}")
    return generation


def set_pin(stateroot: Stateroot, number: int | None, pinned: bool) -> Generation:
    """Pin or unpin a generation, the current one without *number*; the caller holds the lock.

    Raises:
        NotFoundError: there is none.
    """
    generation = find_generation(stateroot, number)
    if generation.origin.pinned != pinned:
        generation.origin.with_pin(pinned).save(generation.path / ORIGIN_FILE)
    return generation


def removable(stateroot: Stateroot, numbers: tuple[int, ...]) -> list[Generation]:
    """Return the generations with these numbers, which may all be removed.

    Raises:
        SysrootError: one may not.
        NotFoundError: one is not there.
    """
    current = stateroot.current_number()
    found = [stateroot.generation(number) for number in sorted(set(numbers))]
    for generation in found:
        if generation.number == current:
            raise SysrootError(f"generation {current} is current, and stays; switch or roll back first")
        if generation.origin.pinned:
            raise SysrootError(f"generation {generation.number} is pinned, and stays; fsview unpin {generation.number}")
    return found


def superfluous(stateroot: Stateroot, keep: int) -> list[Generation]:
    """Return all but the last *keep* generations, the current, that to which a rollback goes, and pinned ones."""
    from tools.sysroot.rollback import find_rollback

    generations = stateroot.generations()
    if not generations:
        return []
    stay = {one.number for one in generations[-max(keep, 1) :]} | {generations[-1].number}
    stay |= {one.number for one in generations if one.origin.pinned}
    if len({one.deployment for one in generations}) > 1:
        stay.add(find_rollback(stateroot, None).number)
    return [one for one in generations if one.number not in stay]


def remove_generations(stateroot: Stateroot, generations: list[Generation]) -> set[str]:
    """Remove generations, and what only they had; return which deployments stay. The caller holds the lock.

    Each is gone with the rename of its directory; the trees that nobody names then are garbage, also if we are killed.

    Raises:
        SysrootError: something is mounted in one; nothing was changed.
    """
    stay = {one.deployment for one in stateroot.generations() if one not in generations}
    trees = {tree for one in generations if one.deployment not in stay for tree in (one.root, one.pristine_etc)}
    refuse_mounts([*(one.path for one in generations), *sorted(trees)], "generations can't be removed")
    for generation in generations:
        remove(generation.path)
    kept = sweep(stateroot)
    _release(stateroot, kept)
    for name in sorted({one.deployment for one in generations} - kept):
        if (stateroot.deployments / name).exists():
            say(f"{name} is in use ('fsview run'); a later command removes it")
    return kept


def _release(stateroot: Stateroot, kept: set[str]) -> None:
    """Let 'fsview prune' have the commits of what was removed; without the repository, that is for the next command."""
    from store.repository import Repository
    from tools.sysroot.keeping import keep_only

    try:
        with Repository.open(stateroot.sysroot.repository_path) as repository, repository.lock():
            keep_only(repository, stateroot, kept)
    except (FsviewError, OSError) as error:
        say(f"the refs that kept the commits stay for now: {error}")


NUMBERS = click.argument("numbers", metavar="GENERATION...", nargs=-1, required=True, type=click.IntRange(min=1))
NUMBER = click.argument("number", metavar="[GENERATION]", required=False, type=click.IntRange(min=1))
PIN_EXAMPLES = """
\b
Examples:
  fsview pin        the current generation
  fsview pin 3
  fsview unpin 3
"""


@click.command("pin", epilog=PIN_EXAMPLES)
@NUMBER
@DRY_RUN_OPTION
@NO_WAIT_OPTION
@JSON_OPTION
@stateroot_options
def pin_command(stateroot: Stateroot, /, number: int | None, **given: Any) -> None:
    """Keep a generation, the current one or GENERATION, from being cleaned up."""
    _pin(stateroot, number, True, given)


@click.command("unpin", epilog=PIN_EXAMPLES)
@NUMBER
@DRY_RUN_OPTION
@NO_WAIT_OPTION
@JSON_OPTION
@stateroot_options
def unpin_command(stateroot: Stateroot, /, number: int | None, **given: Any) -> None:
    """Let a generation be cleaned up again."""
    _pin(stateroot, number, False, given)


def _pin(stateroot: Stateroot, number: int | None, pinned: bool, given: dict[str, Any]) -> None:
    dry_run = given["dry_run"]
    with changing(stateroot, no_wait=given["no_wait"], dry_run=dry_run):
        generation = find_generation(stateroot, number) if dry_run else set_pin(stateroot, number, pinned)
    if given["in_json"]:
        print_json({"dry_run": dry_run, "generation": generation.number, "pinned": pinned})
    else:
        state = "pinned" if pinned else "not pinned any more"
        say(f"generation {generation.number} {'would be' if dry_run else 'is'} {state}")


UNDEPLOY_EXAMPLES = """
\b
Examples:
  fsview undeploy 3 4

\b
Neither the current generation nor a pinned one can be removed. A tree stays as long as a generation has it.
"""


@click.command("undeploy", epilog=UNDEPLOY_EXAMPLES)
@NUMBERS
@DRY_RUN_OPTION
@NO_WAIT_OPTION
@JSON_OPTION
@stateroot_options
def undeploy_command(stateroot: Stateroot, /, numbers: tuple[int, ...], **given: Any) -> None:
    """Remove generations, and the trees that no other generation has."""
    with changing(stateroot, no_wait=given["no_wait"], dry_run=given["dry_run"]):
        _remove(stateroot, removable(stateroot, numbers), given)


CLEANUP_EXAMPLES = """
\b
Examples:
  fsview cleanup              the current generation and the one before stay, and pinned ones
  fsview cleanup --keep 5     the last five
"""


@click.command("cleanup", epilog=CLEANUP_EXAMPLES)
@click.option("--keep", type=click.IntRange(min=0), default=2, metavar="N", show_default=True,
              help="How many of the last generations stay.")  # fmt: skip
@DRY_RUN_OPTION
@NO_WAIT_OPTION
@JSON_OPTION
@stateroot_options
def cleanup_command(stateroot: Stateroot, /, keep: int, **given: Any) -> None:
    """Remove old generations: never the current one, the one that 'rollback' goes to, or a pinned one."""
    with changing(stateroot, no_wait=given["no_wait"], dry_run=given["dry_run"]):
        _remove(stateroot, superfluous(stateroot, keep), given)


def _remove(stateroot: Stateroot, generations: list[Generation], given: dict[str, Any]) -> None:
    before = {one.deployment for one in stateroot.generations()}
    gone = {one.number for one in generations}
    stay = {one.deployment for one in stateroot.generations() if one.number not in gone}
    if not given["dry_run"]:
        remove_generations(stateroot, generations)
    if given["in_json"]:
        print_json({"dry_run": given["dry_run"], "generations": sorted(gone), "deployments": sorted(before - stay)})
        return
    for generation in generations:
        print(f"{'would remove' if given['dry_run'] else 'removed'} {generation_text(generation)}")
    if not generations:
        say("nothing to remove")
