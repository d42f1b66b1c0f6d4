"""The command line: the table of commands, and the only place that shows errors and exits.

A command is a library function first and a thin click command below it, called <verb>_command, in the module that
COMMANDS names; what commands share is in tools/parameters.py. It is imported when it is called, so that `fsview log`
starts quickly. Results go to stdout, talk to stderr. A command that fails raises (store/errors.py); one that ran but
found nothing, as grep, calls `ctx.exit(1)`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from store.entrance import TRUST_VARIABLE
from store.errors import FsviewError
from store.locking import on_waiting
from tools.parameters import REPO_OPTION, trust_owners
from tools.render import one_line, printable, say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS: Final = {  # name: (module:attribute, what it does)
    "init": ("tools.init:init_command", "Make a repository."),
    "commit": ("tools.commit:commit_command", "Store a directory or an archive as a commit."),
    "log": ("tools.log:log_command", "Show the commits that led to a revision."),
    "show": ("tools.show:show_command", "Show one commit, or one object in it, in full."),
    "ls": ("tools.ls:ls_command", "List what is in a commit."),
    "cat": ("tools.cat:cat_command", "Write files of a commit to standard output."),
    "diff": ("tools.diff:diff_command", "Show what differs between two revisions."),
    "packages": ("tools.packages.command:packages_command", "List the packages that are installed in a commit."),
    "packages-diff": ("tools.packages.command:packages_diff_command", "Show which packages differ in two commits."),
    "grep": ("tools.grep:grep_command", "Search the files of commits for a pattern."),
    "refs": ("tools.refs:refs_command", "List, make, move and delete refs; show their log."),
    "tag": ("tools.refs:tag_command", "Name a commit for good."),
    "rev-parse": ("tools.refs:rev_parse_command", "Print the checksums that revisions stand for."),
    "checkout": ("tools.checkout:checkout_command", "Write a commit, or a part of it, to a directory."),
    "mount": ("tools.mount:mount_command", "Show all commits and refs as read-only directories."),
    "umount": ("tools.mount:umount_command", "End a mount."),
    "mounts": ("tools.mounts:mounts_command", "List what is mounted, and who serves it."),
    "workspace": ("tools.workspace:workspace_command", "Make a writable tree on top of a commit."),
    "sysroot": ("tools.sysroot.setup:sysroot_command", "Make a directory for deployments."),
    "os-init": ("tools.sysroot.setup:os_init_command", "Make a stateroot: a line of deployments with one /var."),
    "deploy": ("tools.sysroot.deploy_command:deploy_command", "Write a tree to a sysroot, and make it current."),
    "switch": ("tools.sysroot.verbs:switch_command", "Make another ref current."),
    "upgrade": ("tools.sysroot.verbs:upgrade_command", "Deploy what the current ref has become."),
    "rollback": ("tools.sysroot.rollback:rollback_command", "Go back to an earlier deployment."),
    "status": ("tools.sysroot.status:status_command", "Show what is deployed, and what 'upgrade' would bring."),
    "pin": ("tools.sysroot.manage:pin_command", "Keep a generation from being cleaned up."),
    "unpin": ("tools.sysroot.manage:unpin_command", "Let a generation be cleaned up again."),
    "undeploy": ("tools.sysroot.manage:undeploy_command", "Remove generations."),
    "cleanup": ("tools.sysroot.manage:cleanup_command", "Remove old generations."),
    "etc-diff": ("tools.sysroot.etc_diff:etc_diff_command", "Show what was changed in /etc since it was deployed."),
    "run": ("tools.run:run_command", "Run a command inside a commit or a deployment."),
    "certify": ("tools.signing.commands:certify_command", "Sign a commit."),
    "verify": ("tools.signing.commands:verify_command", "Say who signed a commit."),
    "prune": ("tools.prune:prune_command", "Delete commits that nobody wants, and what only they held."),
    "fsck": ("tools.fsck:fsck_command", "Check everything that is stored."),
    "debug": ("tools.debug:debug_command", "Print any record, node number or object as text."),
    "doctor": ("tools.doctor:doctor_command", "Say what this machine lacks, and what would mend it."),
    "completion": ("tools.completion:completion_command", "Print the script that completes fsview in your shell."),
}
CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_INTERRUPTED, _PIPE_CLOSED = 128 + 2, 128 + 13  # as a shell reports SIGINT and SIGPIPE


def main() -> None:
    """Run the command line of this process and exit."""
    open_missing_streams()
    sys.exit(run(sys.argv[1:]))


def open_missing_streams() -> None:
    """Put /dev/null where the caller closed a standard stream, as git does, lest a file of ours gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def run(arguments: Sequence[str]) -> int:
    """Run `fsview ARGUMENTS`; return its exit status, having told what went wrong."""
    on_waiting(_complain)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if named := os.environ.get(TRUST_VARIABLE):
            trust_owners(named, TRUST_VARIABLE)
        status = fsview_command.main(list(arguments), prog_name="fsview", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        text = StringIO()
        error.show(text)
        _talk(lambda: print(printable(text.getvalue()), end="", file=sys.stderr))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    except FsviewError as error:
        _complain(str(error))
        return error.exit_status
    except OSError as error:
        _complain(_system_text(error))
        return 1


def _complain(text: str) -> None:
    _talk(lambda: say(text))


def _talk(say: Callable[[], object]) -> None:
    """Say something on stderr; that nobody listens changes no exit status."""
    try:
        say()
        sys.stderr.flush()
    except BrokenPipeError:
        _drop_output(2)


def _system_text(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    return one_line(": ".join([" -> ".join(names)] * bool(names) + [error.strerror or str(error)]))


class _Group(click.Group):
    """The commands of the table, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        target, summary = COMMANDS[cmd_name]
        module, _, attribute = target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        command.short_help = summary
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = "".join(f"; did you mean {name}?" for name in get_close_matches(args[0], COMMANDS, 1))
            ctx.fail(f"there is no command {args[0]!r}{near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        items = [CompletionItem(name, help=help) for name, (_, help) in COMMANDS.items() if name.startswith(incomplete)]
        return items + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command and see its output off, so that neither click nor the interpreter meets a closed pipe."""
        try:
            result = super().invoke(ctx)
            _flush_output()
            return result
        except BrokenPipeError:
            _drop_output()
            ctx.exit(_PIPE_CLOSED)
        except click.exceptions.Exit:
            _flush_output()
            raise


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise OSError(error.errno, error.strerror, "standard output") from error


def _drop_output(number: int = 1) -> None:
    """Send what is still in a stream's buffer nowhere, lest the interpreter try again when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from fsview.status import program_version

        click.echo(f"fsview {program_version()}")
        ctx.exit()


def _trust_owners(ctx: click.Context, _: click.Parameter, named: tuple[str, ...]) -> None:
    if not ctx.resilient_parsing:
        for names in named:
            trust_owners(names, "--trust-owner")


@click.group("fsview", cls=_Group, context_settings=CONTEXT)
@REPO_OPTION
@click.option("--trust-owner", metavar="USER", multiple=True, is_eager=True, expose_value=False, callback=_trust_owners,
              help=f"Open what belongs to this user, too, or to any: *. Else {TRUST_VARIABLE}.")  # fmt: skip
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
def fsview_command(repo: Path | None) -> None:
    """Whole directory trees as commits, and every commit as a read-only directory.

    A commit is the state of a directory tree, with its parent, a subject and a time. A ref (debian/12/amd64/base) is
    a name that moves from commit to commit. A revision is any name of a commit: a ref, a checksum or its beginning,
    REV^, REV~2, REF@{1}, REF@{2026-11-01}; REV:/path is what is at /path in it. A path in a mounted view is a revision,
    too, and needs no --repo: MNT/refs/debian/12/etc is debian/12:/etc.

    A repository that belongs neither to you nor to root is refused, as its owner could have your command write where
    he likes, unless FSVIEW_TRUST_OWNER or --trust-owner names him: users or their numbers with commas between them, or
    *. With sudo you are root: sudo fsview --trust-owner "$USER" log.

    'fsview COMMAND --help' tells more, with examples.
    """
