"""Write the man pages of fsview and of each of its commands:  python .ci/man.py DIRECTORY

The texts are the help texts. click-man makes the pages but for what stands below the options in a help text, examples
mostly, which is added here; and its own command sees only the outermost group, for ours imports a command when it is
called.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path

import click
from click_man.core import generate_man_page

from tools.cli import fsview_command


def main(directory: Path) -> None:
    """Write fsview.1, fsview-init.1 and so on into *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    outer = click.Context(fsview_command, info_name="fsview")
    for name in fsview_command.list_commands(outer):
        command = fsview_command.get_command(outer, name)
        assert command is not None, name
        fsview_command.commands[name] = command  # the page of the group lists them
        page = _page(click.Context(command, info_name=name, parent=outer))
        (directory / f"fsview-{name}.1").write_text(page, "utf-8")
    fsview_command.short_help = (fsview_command.help or "").partition("\n")[0]  # the NAME line; else it is cut short
    (directory / "fsview.1").write_text(_page(outer), "utf-8")


def _page(context: click.Context) -> str:
    page: str = generate_man_page(context, version=version("fsview"))
    return page.replace("\b\n", "") + "".join(map(_section, _paragraphs(context.command.epilog or "")))


def _paragraphs(epilog: str) -> list[str]:
    return [text for text in cleandoc(epilog).split("\n\n") if text.strip("\b\n ")]


def _section(paragraph: str) -> str:
    """Return a paragraph of an epilog in roff; one that click would not wrap ("\\b") keeps its lines."""
    lines = paragraph.split("\n")
    is_kept = lines[0].strip() == "\b"
    lines = [_escaped(line) for line in (lines[1:] if is_kept else lines)]
    heading = ".SH NOTES"
    if lines[0] == "Examples:":
        heading, lines = ".SH EXAMPLES", lines[1:]
    body = [".nf", *lines, ".fi"] if is_kept else lines
    return "\n".join([heading, *body, ""])


def _escaped(line: str) -> str:
    text = line.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


main(Path(sys.argv[1]))
