"""What commands have in common on the command line: --repo, revisions and refs as arguments, paths behind "--".

@click.command("ls", epilog=EXAMPLES)
@click.argument("revision", type=REVISION)
@repository_option
def ls_command(repository: Repository, revision: str) -> None:
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

import click

from store.errors import FsviewError, InvalidNameError, NotFoundError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from store.repository import Repository
    from tools.mounted import PathRevisions

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

REPOSITORY_VARIABLE: Final = "FSVIEW_REPO"
PATHS: Final = "fsview.paths"
_PATH_REVISIONS: Final = "fsview.path-revisions"

REPO_OPTION = click.option(
    "--repo",
    metavar="REPO",
    type=click.Path(path_type=Path, readable=False),  # whose it is tells more than a mode
    is_eager=True,  # RevisionType asks for it
    help=f"The repository; else {REPOSITORY_VARIABLE}, else the current directory.",
)


def repository_option(
    function: Callable[Concatenate[Repository, Parameters], Result],
) -> Callable[Parameters, Result]:
    """Give *function* the open repository of --repo as its first argument; it is closed when the command ends."""

    @REPO_OPTION
    @functools.wraps(function)
    def with_repository(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        from store.repository import Repository

        ctx = click.get_current_context()
        kwargs.pop("repo")
        repository = ctx.with_resource(Repository.open(located_repository(ctx)))
        return function(repository, *args, **kwargs)

    return with_repository


def located_repository(ctx: click.Context, given: Path | None = None) -> Path:
    """Return *given*, else the repository of the views in which revisions were named by paths, else as below.

    Raises:
        NotFoundError: as `find_repository`.
        InvalidNameError: paths are in views of another repository than *given*.
    """
    paths: PathRevisions | None = ctx.meta.get(_PATH_REVISIONS)
    if paths is not None and given is not None:
        paths.check(given)
    return given or find_repository((paths and paths.repository) or named_repository(ctx))


def named_repository(ctx: click.Context) -> Path | None:
    """Return the --repo behind the command, else the one before it, else what the environment names."""
    named = given_repository(ctx) or os.environ.get(REPOSITORY_VARIABLE)
    return Path(named) if named else None


def given_repository(ctx: click.Context) -> Path | None:
    """Return the --repo behind the command, else the one before it."""
    # While a command line is parsed, click has a value of its own for what was not given.
    found = (context.params.get("repo") for context in (ctx, ctx.find_root()))
    return next((path for path in found if isinstance(path, Path)), None)


def find_repository(given: Path | None) -> Path:
    """Return the path of the repository: the one that was named, else the current directory if it is one.

    Raises:
        NotFoundError: none was named, and this directory is none.
    """
    from store.repository import SETTINGS_FILE

    if given is None and not Path(SETTINGS_FILE).is_file():
        raise NotFoundError(
            f"no repository was named; use --repo REPO, set {REPOSITORY_VARIABLE}, or change into the repository"
        )
    return given or Path()


def trust_owners(text: str, said_by: str) -> None:
    """Have this process open what belongs to the users in *text*: names or numbers with commas between them, or "*".

    Raises:
        InvalidNameError: there is no such user; *said_by* is where it stands.
    """
    from store.entrance import trust

    names = [name.strip() for name in text.split(",") if name.strip()]
    trust([_uid(name, said_by) for name in names if name != "*"], everybody="*" in names)


def _uid(name: str, said_by: str) -> int:
    import pwd  # seldom needed

    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        raise InvalidNameError(f"{said_by}: there is no user {name!r}; name users, their numbers, or *") from None


def may_be_path(word: str) -> bool:
    """Whether *word* is a path, or begins as one: what is named first in it is there, so it is worth a closer look."""
    if word.startswith(("/", ".")):
        return True
    if "/" not in word:
        return False
    try:
        os.lstat(word.partition("/")[0])
    except FileNotFoundError:
        return False
    except OSError:  # a view that does not answer, because its server was killed or its repository is gone
        pass
    return True


def path_revisions(ctx: click.Context) -> PathRevisions:
    """Return what tells which repository the paths among a command's words are of."""
    from tools.mounted import PathRevisions  # seldom needed

    paths = ctx.meta.setdefault(_PATH_REVISIONS, PathRevisions(ctx))
    assert isinstance(paths, PathRevisions)
    return paths


class RefType(click.ParamType[str]):
    """The name of a ref, or the beginning of one; completes refs."""

    name = "ref"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the refs that begin with *incomplete*; none where anything is wrong.

        The shell takes them for words that the user typed, "$(...)" too. Who can write to the index can write any name
        there, so what is no name of a ref is left out.
        """
        from click.shell_completion import CompletionItem

        try:
            from store.refs import is_ref_name, shown_refs
            from store.repository import Repository

            where = find_repository(named_repository(ctx))
            with Repository.open(where) as repository, repository.database.reading() as reading:
                names = [name for name, _ in shown_refs(reading, incomplete.rpartition("/")[0])]
        except (FsviewError, OSError):
            return []
        return [CompletionItem(name) for name in names if name.startswith(incomplete) and is_ref_name(name)]


class RevisionType(RefType):
    """A revision, or a revision and a path, or a path in a mounted view; completes refs and paths."""

    name = "revision"

    def __init__(self, *, only_with: str = "") -> None:
        """Without the option *only_with*, which must be eager, the word is something else, and left alone."""
        self._only_with = only_with

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return *value* or, of a path in a mounted view, the revision that it shows (tools/mounted.py)."""
        if ctx is None or ctx.resilient_parsing:
            return value
        if self._only_with and not isinstance(ctx.params.get(self._only_with), (str, tuple)):
            return value
        if not may_be_path(value):
            return value
        return path_revisions(ctx).take(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the refs that begin with *incomplete*; what can only be a path is for the shell to complete."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith(("/", ".", "~")):
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, param, incomplete)


class PointType(click.ParamType[Path]):
    """A path that nobody looks at (click.Path calls stat): what is mounted there might be dead, or never answer."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Have the shell complete it."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


POINT: Final = PointType()
REF: Final = RefType()
REVISION: Final = RevisionType()


class PathsCommand(click.Command):
    """A command that takes what stands behind "--" as paths, though there are fewer arguments before it than could be.

    They are in `ctx.meta[PATHS]`, a tuple of strings.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take "--" and what follows out of *args*."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[PATHS] = tuple(args[at + 1 :])
        return super().parse_args(ctx, args[:at])
