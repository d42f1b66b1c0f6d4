"""`fsview status`: what is deployed, what was, and what `upgrade` would bring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from store.errors import FsviewError
from tools.render import one_line, print_json
from tools.sysroot.data_versions import lower_versions
from tools.sysroot.layout import Generation, Stateroot
from tools.sysroot.options import JSON_OPTION, OS_OPTION, SYSROOT_OPTION, generation_json, open_sysroot
from tools.sysroot.sweep import left_over

if TYPE_CHECKING:
    from store.repository import Repository
    from tools.sysroot.target import Target


@dataclass(frozen=True, slots=True)
class Update:
    """Where the ref is that the current generation follows; text: why that is not known.

    is_older: than what was deployed, so that `upgrade` takes --allow-downgrade; refused: why the policy forbids it.
    """

    text: str = ""
    commit: str = ""
    title: str = ""
    committed: str = ""
    is_older: bool = False
    refused: str = ""


def find_update(stateroot: Stateroot, current: Generation) -> Update | None:
    """Return what `upgrade` would bring; None: nothing."""
    ref = current.origin.ref
    if ref is None:
        return Update("no ref is followed")
    from tools.sysroot.newest import newer_than, newest_of
    from tools.sysroot.source import open_source
    from tools.sysroot.target import HEAD, find_target

    try:
        with open_source(stateroot.sysroot, ref + HEAD) as (repository, revision):
            with repository.database.reading() as reading:
                target = find_target(reading, revision, revision)
            if target.checksum == current.origin.commit:
                return None
            refused = _why_refused(stateroot, repository, target)
    except (FsviewError, OSError) as error:
        return Update(str(error))
    is_older = newer_than(target, newest_of(stateroot.generations())) is not None
    return Update("", target.checksum, target.title, target.committed.isoformat(), is_older, refused)


def _why_refused(stateroot: Stateroot, repository: Repository, target: Target) -> str:
    from tools.sysroot.policy import check_policy

    try:
        check_policy(stateroot.sysroot, repository, target)
    except (FsviewError, OSError) as error:  # such as keys that can't be read: an `upgrade` fails by them as well
        return str(error)
    return ""


def _block(generation: Generation, *, is_current: bool, marks: Generation) -> Iterator[str]:
    origin = generation.origin
    flags = (["pinned"] if origin.pinned else []) + (["/var snapshot"] if generation.has_snapshot else [])
    head = f"{'*' if is_current else ' '} {generation.number}  {origin.ref or origin.source}"
    yield head + (f"  ({', '.join(flags)})" if flags else "")
    facts = {
        "Version": f"{origin.title} ({origin.committed:%Y-%m-%dT%H:%M:%SZ})".strip(),
        "Commit": origin.commit,
        "Deployed": f"{origin.created:%Y-%m-%dT%H:%M:%SZ} ({origin.verb})",
        "Certified by": ", ".join(origin.certified),
        "Packages": origin.packages,
        "Conflicts": f"{origin.conflicts} in /etc, see *.fsview-new" if origin.conflicts else "",
        "Data": ", ".join(f"{name} {version}" for name, version in sorted(origin.declares.items())),
    }
    for name, text in facts.items():
        if text:
            yield f"{name:>16}: {one_line(text)}"
    for lower in lower_versions(origin.declares, marks.origin.high_water):
        yield f"{'Too old for /var':>16}: {one_line(lower.text)}"


def _print_stateroot(stateroot: Stateroot) -> None:
    generations = stateroot.generations()
    print(f"{one_line(stateroot.name)}:")
    if not generations:
        print("  nothing is deployed yet")
        return
    current = generations[-1]
    for generation in reversed(generations):
        for line in _block(generation, is_current=generation is current, marks=current):
            print(line)
        if generation is current:  # whose ref it is
            print(f"{'Upgrade':>16}: {_update_text(find_update(stateroot, current))}")
    for path in left_over(stateroot):
        print(one_line(f"  left over: {path}, in use or not to be removed; 'fsview cleanup' tries again and says why"))


def _update_text(update: Update | None) -> str:
    if update is None:
        return "nothing new"
    if update.text:
        return one_line(update.text)
    older = ", older than what was deployed: see upgrade --allow-downgrade" if update.is_older else ""
    refused = f", refused: {update.refused}" if update.refused else ""
    return one_line(f"{update.commit[:8]} {update.title} ({update.committed}){older}{refused}")


def _json(stateroot: Stateroot) -> dict[str, object]:
    generations = stateroot.generations()
    update = find_update(stateroot, generations[-1]) if generations else None
    return {
        "os": stateroot.name,
        "current": generations[-1].number if generations else None,
        "generations": [generation_json(generation) for generation in reversed(generations)],
        "upgrade": None if update is None else {
            "commit": update.commit or None, "title": update.title, "committed": update.committed or None,
            "older": update.is_older, "refused": update.refused or None,
            "unknown": update.text or None,
        },
        "left_over": [str(path) for path in left_over(stateroot)],
    }  # fmt: skip


EXAMPLES = """
\b
Examples:
  fsview status --sysroot /srv/web
  fsview status --json | jq '.[0].generations[0].commit'
"""


@click.command("status", epilog=EXAMPLES)
@SYSROOT_OPTION
@OS_OPTION
@JSON_OPTION
def status_command(sysroot: Path | None, os_name: str | None, in_json: bool) -> None:
    """List the generations of all stateroots, the current one first and marked, and what 'upgrade' would bring."""
    found = open_sysroot(sysroot)
    stateroots = [found.stateroot(name) for name in ([os_name] if os_name else found.names())]
    if in_json:
        print_json([_json(stateroot) for stateroot in stateroots])
        return
    if not stateroots:
        print("no stateroot yet; make one: fsview os-init NAME")
    for stateroot in stateroots:
        _print_stateroot(stateroot)
