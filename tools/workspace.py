"""`fsview workspace`: a writable tree on top of a commit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tools.parameters import POINT, REVISION, repository_option
from tools.render import print_json, printable, quote_path, table

if TYPE_CHECKING:
    from store.repository import Repository
    from tools.workspace_state import Broken, Workspace

EXAMPLES: Final = """\b
Examples:
  fsview workspace --repo /srv/releases debian/12/amd64/base /srv/work
  chroot /srv/work apt-get -y install hello
  fsview commit --workspace /srv/work -b debian/12/amd64/hello -s "with hello"
  fsview workspace list
  fsview workspace remove /srv/work

\b
What you change is beside DIR, in DIR.workspace/, and costs what it is large; the commit itself stays as it is. After a
reboot 'fsview workspace mount DIR' brings everything back. It is its owner's alone: root uses no other user's. Root
gets an overlay of the kernel's, everybody else fuse-overlayfs (apt install fuse-overlayfs).
"""


class _Group(click.Group):
    """`fsview workspace REV DIR` is short for `fsview workspace add REV DIR`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["add", *args]
        return super().parse_args(ctx, args)


@click.group("workspace", cls=_Group, epilog=EXAMPLES, subcommand_metavar="REV DIR | COMMAND ...")
def workspace_command() -> None:
    """Make a writable tree on top of a commit: nothing is copied until you change it."""


@workspace_command.command("add")
@click.argument("revision", metavar="REV", type=REVISION)
@click.argument("point", metavar="DIR", type=POINT)
@click.option("--view", metavar="MNT", type=POINT, help="Over this view, mounted with -o place-inodes; else its own.")
@click.option("--fuse", is_flag=True, help="Take fuse-overlayfs though root could have the kernel's overlay.")
@click.option("--suid", is_flag=True, help="Let set-user-ID programs and capabilities work in it.")
@click.option("--dev", is_flag=True, help="Let device nodes work in it.")
@repository_option
def add_command(
    repository: Repository, revision: str, point: Path, view: Path | None, fuse: bool, suid: bool, dev: bool
) -> None:
    """Make a workspace on top of REV in DIR, which is empty or not there yet.

    It is mounted nosuid and nodev, like a view, for others may reach it: --suid and --dev, for root, are remembered.
    """
    from tools.workspaces import add

    add(repository, revision, point, view, by_kernel=os.geteuid() == 0 and not fuse, suid=suid, dev=dev)


@workspace_command.command("list")
@click.option("--json", "in_json", is_flag=True, help="JSON.")
def list_command(in_json: bool) -> None:
    """List your workspaces: where, on which commit, whether it is mounted; or why one is broken."""
    from tools.workspace_state import listed

    rows = [_row(one) for one in listed()]
    if in_json:
        print_json(rows)
    elif rows:
        print(table([_columns(row) for row in rows]))


def _columns(row: dict[str, Any]) -> tuple[str, ...]:
    directory = quote_path(os.fsencode(row["directory"]))
    if row["state"] == "broken":
        return directory, "", "broken", printable(row["problem"])
    return directory, row["commit"][:12], row["state"], quote_path(os.fsencode(row["repository"]))


def _row(workspace: Workspace | Broken) -> dict[str, Any]:
    from tools.workspace_state import Broken
    from tools.workspaces import is_mounted

    if isinstance(workspace, Broken):
        return {"directory": os.fspath(workspace.point), "state": "broken", "problem": workspace.problem}
    return {
        "directory": os.fspath(workspace.point),
        "commit": workspace.commit,
        "state": "mounted" if is_mounted(workspace) else "not mounted",
        "repository": os.fspath(workspace.repository),
        "overlay": "kernel" if workspace.by_kernel else "fuse-overlayfs",
        "view": None if workspace.view is None else os.fspath(workspace.view),
    }


@workspace_command.command("mount")
@click.argument("point", metavar="DIR", type=POINT)
def mount_command(point: Path) -> None:
    """Mount a workspace again: after a reboot, or when its server was killed."""
    from tools.workspace_state import load
    from tools.workspaces import mount

    mount(load(point))


@workspace_command.command("umount")
@click.argument("point", metavar="DIR", type=POINT)
@click.option("-l", "--lazy", is_flag=True, help="Take it away even if it is in use.")
def umount_command(point: Path, lazy: bool) -> None:
    """Unmount a workspace; what was changed in it is kept."""
    from tools.workspace_state import load
    from tools.workspaces import unmount

    unmount(load(point), lazy=lazy)


@workspace_command.command("remove")
@click.argument("point", metavar="DIR", type=POINT)
@click.option("--force", is_flag=True, help="Though something was changed in it, which is lost.")
def remove_command(point: Path, force: bool) -> None:
    """Unmount a workspace and delete it, if all that was changed in it is committed."""
    from store.repository import Repository
    from tools.workspace_state import load
    from tools.workspaces import remove

    workspace = load(point)
    with Repository.open(workspace.repository) as repository:
        remove(repository, workspace, force=force)
