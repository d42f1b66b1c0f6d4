"""Write the man pages of fsview and of each of its commands:  python .ci/man.py DIRECTORY

The texts are the help texts. click-man's own command sees only the outermost group, for ours imports a command when it
is called; so all of them are imported first.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import click
from click_man.core import write_man_pages

from tools.cli import fsview_command


def main(directory: Path) -> None:
    """Write fsview.1, fsview-init.1 and so on into *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    context = click.Context(fsview_command, info_name="fsview")
    for name in fsview_command.list_commands(context):
        command = fsview_command.get_command(context, name)
        assert command is not None, name
        fsview_command.commands[name] = command
    fsview_command.short_help = (fsview_command.help or "").partition("\n")[0]  # the NAME line; else it is cut short
    write_man_pages("fsview", fsview_command, version=version("fsview"), target_dir=str(directory))


main(Path(sys.argv[1]))
