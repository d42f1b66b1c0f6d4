"""`fsview etc-diff`: what the admin changed in /etc."""

from __future__ import annotations

import click

from store.errors import NotFoundError
from tools.render import json_path, print_json, quote_path
from tools.sysroot.etc_changes import Change, find_changes
from tools.sysroot.layout import Generation, Stateroot
from tools.sysroot.options import JSON_OPTION, stateroot_options


def changes_of(generation: Generation) -> list[Change]:
    """Return what is different in a deployment's etc from the commit's.

    Raises:
        NotFoundError: it has no etc.
    """
    admin = generation.root / "etc"
    if not admin.is_dir():
        if any(generation.pristine_etc.iterdir()):
            raise NotFoundError(f"{admin} is gone")
        return []
    return find_changes(generation.pristine_etc, admin)


EXAMPLES = """
\b
Examples:
  fsview etc-diff                   M: modified, A: added, D: deleted
  fsview etc-diff --generation 3
"""


@click.command("etc-diff", epilog=EXAMPLES)
@click.option("--generation", "number", type=click.IntRange(min=1), metavar="N", help="Of this one; else the current.")
@JSON_OPTION
@stateroot_options
def etc_diff_command(stateroot: Stateroot, number: int | None, in_json: bool) -> None:
    """List what was changed in /etc since it was deployed; paths are relative to etc."""
    generation = stateroot.current() if number is None else stateroot.generation(number)
    if generation is None:
        raise NotFoundError(f"nothing is deployed in {stateroot.name}")
    changes = changes_of(generation)
    if in_json:
        print_json([{"path": json_path(one.path), "kind": one.kind.value} for one in changes])
        return
    for one in changes:
        print(f"{one.kind.value}    {quote_path(one.path)}")
