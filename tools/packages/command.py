"""`fsview packages` and `fsview packages-diff`: what is installed in a tree, and what differs between two."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import click

from store.database import Reading
from store.errors import FormatError, FsviewError, NotFoundError
from store.repository import Repository
from store.revisions import find_place
from tools.packages.changes import PackageChanges, Replaced, compare
from tools.packages.listing import LOOKED_FOR, list_packages
from tools.packages.package import Package
from tools.packages.tree import StoredTree
from tools.parameters import REVISION, repository_option
from tools.render import json_path, one_line, print_json, quote_path, say, table


class _Lists:
    """Reads the packages of revisions; a database that is damaged is told of on stderr, and noted."""

    def __init__(self, repository: Repository, reading: Reading) -> None:
        self._repository, self._reading = repository, reading
        self.damaged = False

    def of(self, revision: str) -> list[Package]:
        """Return the packages of REV, or of the directory REV:/PATH.

        Raises:
            NotFoundError: there is no such directory, or no package database in it.
        """
        place = find_place(self._reading, revision, now_s=int(time.time()))
        if not place.entry.is_directory:
            raise FsviewError(f"{quote_path(place.path)} is no directory; name the root of a tree")
        was_damaged, self.damaged = self.damaged, False
        found = list_packages(StoredTree(self._repository, self._reading, place.entry), self._tell)
        if not found and not self.damaged:
            raise NotFoundError(f"{revision} has no package in it: no database was found of {LOOKED_FOR}")
        self.damaged |= was_damaged
        return found

    def _tell(self, error: FormatError) -> None:
        self.damaged = True
        say(one_line(str(error)))


def _package_json(package: Package) -> dict[str, str]:
    names = ("manager", "name", "version", "architecture")
    return {name: json_path(getattr(package, name).encode("utf-8", "surrogateescape")) for name in names}


def _replaced_json(pair: Replaced) -> dict[str, str | None]:
    old, new = _package_json(pair.old), _package_json(pair.new)
    more = {"old_architecture": old["architecture"]} if old["architecture"] != new["architecture"] else {}
    names = ("manager", "name", "architecture")
    return {**{name: new[name] for name in names}, **more, "old": old["version"], "new": new["version"]}


def _changes_json(changes: PackageChanges) -> dict[str, Any]:
    return {
        "upgraded": [_replaced_json(pair) for pair in changes.upgraded],
        "downgraded": [_replaced_json(pair) for pair in changes.downgraded],
        "removed": [_package_json(package) for package in changes.removed],
        "added": [_package_json(package) for package in changes.added],
    }


def changes_lines(changes: PackageChanges) -> list[str]:
    """Return what differs as `rpm-ostree db diff` has it.

    Where there are several managers each line says which it is of, and so does that of a package which is there for
    several architectures.
    """
    packages = [pair.new for pair in changes.upgraded + changes.downgraded] + changes.removed + changes.added
    managers = {package.manager for package in packages}
    names = Counter((one[0], one[1]) for one in {(each.manager, each.name, each.architecture) for each in packages})

    def named(package: Package) -> str:
        which = [package.architecture] * (names[package.manager, package.name] > 1)
        which += [package.manager] * (len(managers) > 1)
        return f"{package.name} ({', '.join(which)})" if any(which) else package.name

    found: list[str] = []
    for title, pairs in (("Upgraded:", changes.upgraded), ("Downgraded:", changes.downgraded)):
        found += [title] * bool(pairs)
        found += [f"  {named(pair.new)} {pair.old.version} -> {pair.new.version}" for pair in pairs]
    for title, singles in (("Removed:", changes.removed), ("Added:", changes.added)):
        found += [title] * bool(singles)
        found += [f"  {named(package)} {package.version}" for package in singles]
    return [one_line(line) for line in found]


PACKAGES_EXAMPLES = """
\b
Examples:
  fsview packages debian/12
  fsview packages MNT/refs/debian/12^/
  fsview packages debian/12:/srv/chroot       a tree in a tree
  fsview packages --json debian/12 | jq -r '.[].name'

\b
Read are the databases of dpkg, rpm (in SQLite), apk, pacman, and what Python's installers put below /usr/lib,
/usr/local, /opt and /srv. No program of the tree is run. A line has: manager, name, version, architecture.
Exit status 1: there is no package database, or one is damaged; what could be read of it is printed.
"""


@click.command("packages", epilog=PACKAGES_EXAMPLES)
@click.argument("revision", type=REVISION)
@click.option("--json", "in_json", is_flag=True, help="A JSON array, one object a package.")
@repository_option
def packages_command(repository: Repository, revision: str, in_json: bool) -> None:
    """List the packages that are installed in the tree of REVISION, or of REVISION:/PATH."""
    with repository.database.reading() as reading:
        lists = _Lists(repository, reading)
        found = lists.of(revision)
    if in_json:
        print_json([_package_json(package) for package in found])
    elif found:
        print(table([(one.manager, one.name, one.version, one.architecture) for one in found]))
    if lists.damaged:
        click.get_current_context().exit(1)


DIFF_EXAMPLES = """
\b
Examples:
  fsview packages-diff debian/12^ debian/12
  fsview packages-diff MNT/refs/debian/12/ MNT/refs/debian/13/
  fsview packages-diff --json debian/12 debian/13 | jq '.upgraded[].name'

\b
"Upgraded" and "Downgraded" are by each manager's own order of versions: 1.0~rc1 is older than 1.0 for dpkg and rpm.
The exit status is 0 whether something differs or not, as that of 'fsview diff' and 'rpm-ostree db diff'; 1 if something
does and --exit-code is given, or a database is damaged.
"""


@click.command("packages-diff", epilog=DIFF_EXAMPLES)
@click.argument("old", metavar="A", type=REVISION)
@click.argument("new", metavar="B", type=REVISION)
@click.option("--json", "in_json", is_flag=True, help="A JSON object: upgraded, downgraded, removed, added.")
@click.option("--summary", is_flag=True, help="Print only how many of each there are.")
@click.option("--exit-code", is_flag=True, help="Exit with status 1 if something differs.")
@repository_option
def packages_diff_command(
    repository: Repository, old: str, new: str, in_json: bool, summary: bool, exit_code: bool
) -> None:
    """Show which packages were upgraded, downgraded, removed and added from A to B, each REVISION or REVISION:/PATH."""
    if in_json and summary:
        raise click.UsageError("--json and --summary exclude each other")
    with repository.database.reading() as reading:
        lists = _Lists(repository, reading)
        changes = compare(lists.of(old), lists.of(new))
    if in_json:
        print_json(_changes_json(changes))
    else:
        shown = [changes.summary()] if summary else changes_lines(changes)
        print("".join(f"{line}\n" for line in shown if line), end="")
    if lists.damaged or (exit_code and changes):
        click.get_current_context().exit(1)
