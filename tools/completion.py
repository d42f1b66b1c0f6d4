"""`fsview completion`: the script that completes commands, options and refs in a shell."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Final

import click
from click.shell_completion import get_completion_class

_HINTS: Final = {
    "bash": '# In ~/.bashrc:  eval "$(fsview completion bash)"',
    "zsh": '# In ~/.zshrc, behind compinit:  eval "$(fsview completion zsh)"',
    "fish": "# Once:  fsview completion fish > ~/.config/fish/completions/fsview.fish",
}


def completion_script(shell: str, program: click.Command) -> str:
    """Return the script for *shell*, one of bash, zsh and fish, with a comment that says where to put it."""
    completion = get_completion_class(shell)
    assert completion is not None
    return f"{_HINTS[shell]}\n{completion(program, {}, 'fsview', '_FSVIEW_COMPLETE').source()}"


EXAMPLES = """
\b
Examples:
  eval "$(fsview completion bash)"                                      in ~/.bashrc
  eval "$(fsview completion zsh)"                                       in ~/.zshrc
  fsview completion fish > ~/.config/fish/completions/fsview.fish
"""


@click.command("completion", epilog=EXAMPLES)
@click.argument("shell", type=click.Choice(list(_HINTS)), required=False)
def completion_command(shell: str | None) -> None:
    """Print the script that completes commands, options and refs in SHELL (else the one in the variable SHELL)."""
    name = shell or PurePath(os.environ.get("SHELL", "")).name
    if name not in _HINTS:
        raise click.UsageError(f"name the shell: one of {', '.join(_HINTS)}")
    print(completion_script(name, click.get_current_context().find_root().command))
