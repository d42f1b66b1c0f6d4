"""`fsview sysroot init` and `fsview os-init`: make a sysroot, and a stateroot in it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from store.repository import Repository
from tools.parameters import REPO_OPTION, located_repository
from tools.render import print_json, say
from tools.sysroot.layout import Sysroot
from tools.sysroot.locking import locked
from tools.sysroot.options import DRY_RUN_OPTION, JSON_OPTION, SYSROOT_OPTION, open_sysroot
from tools.sysroot.settings import CERTIFIED, Policy, SysrootSettings

_IDENTITY_BYTES = 8


def init(path: Path, repository: Path, policy: Policy) -> Sysroot:
    """Make a sysroot at *path*, for commits of *repository*.

    Raises:
        SysrootError: something is there already.
        NotFoundError: there is no repository.
        FormatError, AccessError: the keys are none, or somebody else could write them.
    """
    check(repository, policy)
    settings = SysrootSettings(secrets.token_hex(_IDENTITY_BYTES), repository.resolve(), policy)
    return Sysroot.create(path, settings)


def check(repository: Path, policy: Policy) -> None:
    """Refuse a sysroot in which nothing could be deployed.

    Raises:
        NotFoundError, FormatError, AccessError: as `init` does.
    """
    from tools.signing import TrustedKeys  # seldom needed

    Repository.open(repository).close()
    TrustedKeys.load(policy.trusted)


SYSROOT_EXAMPLES = """
\b
Examples:
  fsview sysroot init /srv/web --repo /srv/releases
  fsview os-init main --sysroot /srv/web
  fsview deploy debian/12/amd64/base --sysroot /srv/web
  chroot /srv/web/deploy/main/current/root

\b
Then: upgrade, switch, rollback, status, pin, undeploy, cleanup, etc-diff. See docs/deployments.md.
"""


@click.group("sysroot", epilog=SYSROOT_EXAMPLES)
def sysroot_command() -> None:
    """A sysroot is a directory with deployments: trees between which it is switched, with one /var."""


INIT_EXAMPLES = """
\b
Examples:
  fsview sysroot init /srv/web --repo /srv/releases
  fsview sysroot init /srv/web --repo /srv/releases --require-certified --trust keys/release.pub
"""


@sysroot_command.command("init", epilog=INIT_EXAMPLES)
@click.argument("path", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--require-certified", is_flag=True, help="Deploy only what a trusted key signed; with --trust.")
@click.option("--trust", "trusted", multiple=True, metavar="FILE", type=click.Path(path_type=Path, exists=True),
              help="A file with keys that are trusted; may be repeated.")  # fmt: skip
@DRY_RUN_OPTION
@JSON_OPTION
@REPO_OPTION
@click.pass_context
def init_command(
    ctx: click.Context, path: Path, require_certified: bool, trusted: tuple[Path, ...], repo: Path | None,
    dry_run: bool, in_json: bool,
) -> None:  # fmt: skip
    """Make a sysroot in DIR, a directory that does not exist yet or is empty, for commits of the repository."""
    if require_certified != bool(trusted):  # nothing could be deployed; or anything, though keys are named
        raise click.UsageError("--require-certified and --trust FILE belong together")
    policy = Policy(CERTIFIED if require_certified else "", tuple(key.resolve() for key in trusted))
    repository = located_repository(ctx, repo)
    if dry_run:
        check(repository, policy)
        Sysroot.check_free(path)
    else:
        init(path, repository, policy)
    facts = {"sysroot": os.path.abspath(path), "repository": os.path.realpath(repository), "dry_run": dry_run}
    verb, following = "would be" if dry_run else "is", f"fsview os-init NAME --sysroot {path}"
    _tell(f"{path} {verb} a sysroot now; next: {following}", facts if in_json else None)


OS_INIT_EXAMPLES = """
\b
Examples:
  fsview os-init main --sysroot /srv/web
"""


@click.command("os-init", epilog=OS_INIT_EXAMPLES)
@click.argument("name")
@DRY_RUN_OPTION
@JSON_OPTION
@SYSROOT_OPTION
def os_init_command(name: str, dry_run: bool, in_json: bool, sysroot: Path | None) -> None:
    """Make the stateroot NAME: a line of generations, with a /var of its own."""
    found = open_sysroot(sysroot)
    if dry_run:
        made = found.new_stateroot(name)
    else:
        with locked(found.path):
            made = found.make_stateroot(name)
    facts = {"sysroot": os.fspath(found.path), "stateroot": name, "var": os.fspath(made.var), "dry_run": dry_run}
    verb, following = "would be" if dry_run else "is", f"fsview deploy REF --sysroot {found.path}"
    _tell(f"{made.path} {verb} a stateroot now; next: {following}", facts if in_json else None)


def _tell(text: str, facts: dict[str, object] | None) -> None:
    if facts is None:
        say(text)
    else:
        print_json(facts)
