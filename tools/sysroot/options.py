"""What the commands of sysroots share: their options, the lock, and how they say what they did."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import click

from store.errors import NotFoundError
from tools.render import one_line
from tools.sysroot.layout import Generation, Stateroot, Sysroot
from tools.sysroot.locking import locked
from tools.sysroot.settings import is_sysroot

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
SYSROOT_VARIABLE: Final = "FSVIEW_SYSROOT"

SYSROOT_OPTION = click.option("--sysroot", metavar="DIR", type=click.Path(path_type=Path),
                              help=f"The sysroot; else {SYSROOT_VARIABLE}, else the current directory.")  # fmt: skip
OS_OPTION = click.option("--os", "os_name", metavar="NAME", help="The stateroot; else the only one.")
JSON_OPTION = click.option("--json", "in_json", is_flag=True, help="A JSON object.")
DRY_RUN_OPTION = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
NO_WAIT_OPTION = click.option("--no-wait", is_flag=True, help="Fail if another command is changing the sysroot.")
ACCEPT_OPTION = click.option("--accept-data-versions", is_flag=True,
                             help="Even if the tree is made for older data than /var has.")  # fmt: skip
SNAPSHOT_OPTION = click.option(
    "--snapshot-var", is_flag=True, help="Keep a copy of /var with the generation that is left."
)


def stateroot_options(
    function: Callable[Concatenate[Stateroot, Parameters], Result],
) -> Callable[Parameters, Result]:
    """Give *function* the stateroot of --sysroot and --os as its first argument."""

    @SYSROOT_OPTION
    @OS_OPTION
    @functools.wraps(function)
    def with_stateroot(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        sysroot: Any = kwargs.pop("sysroot")
        name: Any = kwargs.pop("os_name")
        return function(open_sysroot(sysroot).stateroot(name), *args, **kwargs)

    return with_stateroot


def open_sysroot(given: Path | None) -> Sysroot:
    """Return the sysroot that was named, else that of the environment, else that of the current directory.

    Raises:
        NotFoundError: there is none.
    """
    named = given or os.environ.get(SYSROOT_VARIABLE)
    if named is None and not Path("fsview.toml").is_file():
        raise NotFoundError(f"no sysroot was named; use --sysroot DIR, set {SYSROOT_VARIABLE}, or change into it")
    return Sysroot.open(Path(named or "."))


def policy_sysroot(given: Path | None) -> Sysroot | None:
    """Return the sysroot whose policy holds for what is written outside of all: the same as `open_sysroot`; else None.

    Raises:
        NotFoundError: the one that was named, here or in the environment, is not there.
        FormatError: what it asks for can't be understood.
    """
    if given is not None or os.environ.get(SYSROOT_VARIABLE) or is_sysroot(Path()):
        return open_sysroot(given)
    return None


@contextmanager
def changing(stateroot: Stateroot, *, no_wait: bool, dry_run: bool = False) -> Iterator[None]:
    """Hold the sysroot's lock; a dry run needs none, so whoever may read the sysroot can do it."""
    if dry_run:
        yield
        return
    with locked(stateroot.sysroot.path, wait=not no_wait):
        yield


def generation_json(generation: Generation) -> dict[str, object]:
    """Return what is known of a generation as a JSON object."""
    origin = generation.origin
    return {
        "generation": generation.number,
        "deployment": generation.deployment,
        "root": os.fspath(generation.root),
        "commit": origin.commit,
        "ref": origin.ref,
        "title": origin.title,
        "committed": origin.committed.isoformat(),
        "source": origin.source,
        "verb": origin.verb,
        "previous": origin.previous,
        "created": origin.created.isoformat(),
        "pinned": origin.pinned,
        "certified": list(origin.certified),
        "packages": origin.packages,
        "conflicts": origin.conflicts,
        "data_versions": dict(origin.declares),
        "high_water": {
            name: {"version": mark.version, "deployment": mark.deployment, "created": mark.created.isoformat()}
            for name, mark in origin.high_water.items()
        },
        "snapshot_of_var": generation.has_snapshot,
    }


def generation_text(generation: Generation) -> str:
    """Return what a generation is, in a line."""
    origin = generation.origin
    parts = [origin.ref or "", origin.title and f"({origin.title})", origin.commit[:8]]
    return one_line(f"generation {generation.number}: {' '.join(part for part in parts if part)}")
