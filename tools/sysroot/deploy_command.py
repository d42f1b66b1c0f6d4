"""`fsview deploy`: a tree becomes current, or with --dest just a tree."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from store.schema import TreeId
from store.tree import tree_record
from tools.parameters import REPO_OPTION, given_repository, named_repository
from tools.render import one_line, print_json, progress, say
from tools.sysroot.layout import Sysroot
from tools.sysroot.options import OS_OPTION, SYSROOT_OPTION, open_sysroot, policy_sysroot
from tools.sysroot.outcome import written_text
from tools.sysroot.policy import check_policy
from tools.sysroot.settings import SETTINGS_FILE, is_sysroot
from tools.sysroot.target import find_target
from tools.sysroot.verbs import SourceType, change, deployment_options, is_user_mode

_OF_A_GENERATION = ("no_merge", "strict", "accept_data_versions", "allow_downgrade", "snapshot_var")
EXAMPLES = """
\b
Examples:
  fsview deploy --sysroot /srv/web debian/12/amd64/base
  fsview deploy MNT/refs/debian/12/amd64/base     from a mounted view; 'upgrade' will follow the ref
  fsview deploy --dry-run --json debian/13
  fsview deploy --dest /srv/image MNT/refs/debian/12/amd64/base     one tree, outside of any sysroot

\b
Files come as reflinks; else, below /usr (but not in /usr/local), as hard links of the repository's own files or of the
same files in the deployment before, where nobody but root and you can write to them; else they are copied. Don't write
to files below /usr in place.

\b
A path may be in a view of another repository, even of one that can't be opened here: the commit is then copied through
the mount, and every checksum made anew, before anything is deployed.
"""


@click.command("deploy", epilog=EXAMPLES)
@click.argument("source", type=SourceType())
@click.option("--dest", metavar="DIR", type=click.Path(path_type=Path),
              help="Write the tree there, new or an empty directory, and make nothing current.")  # fmt: skip
@deployment_options
@SYSROOT_OPTION
@OS_OPTION
@REPO_OPTION
def deploy_command(
    source: str, dest: Path | None, sysroot: Path | None, os_name: str | None, repo: Path | None, **given: Any
) -> None:
    """Write the tree SOURCE, a revision or a path in a mounted view, and make it current.

    With --dest it is written elsewhere. SOURCE may then be of --repo, too; the
    policy of the sysroot holds all the same, if --sysroot or FSVIEW_SYSROOT
    names one or the current directory is one.
    """
    named = named_repository(click.get_current_context())
    if dest is None:
        if repo is not None:
            raise click.UsageError("a sysroot has a repository of its own; --repo is for --dest")
        change(open_sysroot(sysroot).stateroot(os_name), source, "deploy", given)
        return
    if any(given[name] for name in _OF_A_GENERATION) or os_name or given["merge"] != "keep":
        raise click.UsageError("--dest makes no generation: there is no /etc to merge, no /var, and no stateroot")
    holder = policy_sysroot(sysroot)
    home = None if sysroot is None or given_repository(click.get_current_context()) is not None else holder
    if named is None and holder is not None and (is_sysroot(Path()) or not Path(SETTINGS_FILE).is_file()):
        named = holder.repository_path  # better than none
    _deploy_once(source, dest, holder, home, named, given)


def _deploy_once(
    source: str, dest: Path, sysroot: Sysroot | None, home: Sysroot | None, named: Path | None, given: dict[str, Any]
) -> None:
    """Write one tree as the policy of *sysroot* allows; it comes from the repository of *home*, else of *named*."""
    from tools.sysroot.one_off import deploy_once, open_one_off

    with open_one_off(home, named, source, dest, dry_run=given["dry_run"]) as (repository, revision):
        with repository.database.reading() as reading:
            target = find_target(reading, source, revision)
            entries = tree_record(reading, TreeId(target.place.entry.id)).entries
        facts = {"commit": target.checksum, "ref": target.ref, "title": target.title, "destination": os.fspath(dest)}
        if given["dry_run"]:
            if sysroot is not None:
                check_policy(sysroot, repository, target)
            if given["in_json"]:
                print_json({"dry_run": True} | facts)
            else:
                print(one_line(f"would write {target.checksum} {target.title} to {dest}".replace("  ", " ")))
            return
        with progress("deploying", entries, "entries") as advance:
            made = deploy_once(
                sysroot, repository, target, dest, user_mode=is_user_mode(), advance=advance
            )  # fmt: skip
    if given["in_json"]:
        print_json(facts | {"written": asdict(made.written), "links": asdict(made.links)})
    else:
        say(written_text(made.written, made.links))
        print(dest)
