"""What all commands share: finding the repository, errors and exit statuses, help, start-up, completion."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest

from store.database import Writing
from store.errors import ConflictError, CorruptionError
from store.repository import Repository
from tests.cli.conftest import Fsview, Releases
from tests.running import RunFsview
from tools import cli
from tools.cli import COMMANDS

HEAVY = (
    "cryptography",
    "trio",
    "pyfuse3",
    "tqdm",
    "pathspec",
    "multiprocessing",
    "asyncio",
    "importlib.metadata",
    "difflib",
    "email",
)


def test_init_makes_a_repository_once(fsview: Fsview, tmp_path: Path) -> None:
    assert "next: fsview commit" in fsview("init", tmp_path / "a/b").stderr
    assert "is a repository already" in fsview("init", tmp_path / "a/b", status=1).stderr
    with Repository.open(tmp_path / "a/b") as repository:
        assert repository.settings.mtime == "first-seen"
    fsview("init", "--repo", tmp_path / "zero", "--mtime=zero")
    with Repository.open(tmp_path / "zero") as repository:
        assert repository.settings.mtime == "zero"


def test_init_refuses(fsview: Fsview, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not empty (it has 'file')" in fsview("init", tmp_path, status=1).stderr
    assert str(tmp_path / "file") in fsview("init", tmp_path / "file", status=1).stderr
    assert "name one directory" in fsview("init", status=2).stderr
    fsview("init", tmp_path / "x", "--mtime=never", status=2)
    assert not (tmp_path / "x").exists()


def test_the_repository_is_found(
    fsview: Fsview, releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fsview("refs").lines  # by the variable
    fsview("init", tmp_path / "other")
    assert fsview("refs", "--repo", tmp_path / "other").lines == []  # the option is stronger, …
    assert fsview("--repo", tmp_path / "other", "refs").lines == []  # … also before the command
    monkeypatch.delenv("FSVIEW_REPO")
    assert fsview("--repo", releases.repo, "refs").lines == fsview("refs", "--repo", releases.repo).lines == expected
    monkeypatch.chdir(releases.repo)
    assert fsview("refs").lines == expected
    monkeypatch.chdir(tmp_path)
    message = fsview("refs", status=1).stderr
    assert all(way in message for way in ("--repo REPO", "FSVIEW_REPO", "change into"))


@pytest.mark.parametrize("where", ["nowhere", "."])
def test_what_is_no_repository_is_named(fsview: Fsview, tmp_path: Path, where: str) -> None:
    message = fsview("log", "--repo", tmp_path / where, "rel", status=1).stderr
    assert f"{tmp_path / where} is not an fsview repository" in message and "fsview init" in message


@pytest.mark.unchecked
def test_a_newer_format_is_refused(fsview: Fsview, own_releases: Releases) -> None:
    settings = own_releases.repo / "fsview.toml"
    settings.write_text(settings.read_text().replace("format = 1", "format = 2"))
    assert "use a newer fsview" in fsview("log", "rel", status=10).stderr


def _raising(error: BaseException) -> click.Command:
    @click.command("log")
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConflictError("moved; try again"), 11, "fsview: moved; try again\n"),
        (CorruptionError("x", "y", "1", "2"), 12, "fsview: x in y is damaged"),
        (PermissionError(13, "Permission denied", "/some/path"), 1, "fsview: /some/path: Permission denied\n"),
        (OSError(18, "Invalid cross-device link", b"/a", None, "/b"), 1, "fsview: /a -> /b: Invalid"),
        (OSError(28, "No space left on device"), 1, "fsview: No space left on device\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
    ids=repr,
)
def test_each_error_has_its_exit_status(
    fsview: Fsview, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    monkeypatch.setattr("tools.log.log_command", _raising(error))
    assert fsview("log", status=status).stderr.startswith(message)


@pytest.mark.parametrize("error", [AssertionError("a bug"), KeyError("x"), ValueError("y")], ids=repr)
def test_a_bug_of_ours_is_a_traceback(fsview: Fsview, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr("tools.log.log_command", _raising(error))
    with pytest.raises(type(error)):
        fsview("log")


def test_usage_errors(fsview: Fsview) -> None:
    assert "did you mean log?" in fsview("lgo", status=2).stderr
    assert "there is no command 'zzz'" in fsview("zzz", status=2).stderr
    assert "No such option" in fsview("log", "--frobnicate", status=2).stderr
    assert "Commands:" in fsview("--help").stdout.decode()
    assert fsview("--version").stdout.startswith(b"fsview")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(fsview: Fsview, name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    assert attribute == name.replace("-", "_") + "_command"
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command) and command.name == name
    text = fsview(name, "--help").stdout.decode()
    assert "Example" in text and f"fsview {name}" in text.partition("Example")[2]
    assert fsview(name, "-h").stdout.decode() == text
    assert all(param.help for param in command.params if isinstance(param, click.Option))


def test_reading_commands_import_only_what_they_need(run_fsview: RunFsview, releases: Releases) -> None:
    done = run_fsview("log", "rel", repo=releases.repo, env={"PYTHONPROFILEIMPORTTIME": "1"})
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "store.database" in loaded
    assert {name for name in loaded if name.split(".")[0] in HEAVY or name in HEAVY} == set()
    ours = {"tools.cli", "tools.parameters", "tools.render"}
    assert not {name for name in loaded if name.startswith("tools.")} - ours


def test_help_imports_no_command(run_fsview: RunFsview) -> None:
    done = run_fsview("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "lmdb" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_a_closed_pipe_is_quiet(releases: Releases, run_fsview: RunFsview) -> None:
    environment = os.environ | {"FSVIEW_REPO": str(releases.repo), "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        command = [sys.executable, "-m", "tools", "ls", "-Rz", "rel^"]
        done = subprocess.run(command, stdout=broken, stderr=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_full_disk_behind_stdout_is_told(releases: Releases) -> None:
    environment = os.environ | {"FSVIEW_REPO": str(releases.repo), "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    environment.pop("PYTHONUNBUFFERED", None)
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "tools", "ls", "rel"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=environment)
    assert (done.returncode, done.stderr) == (1, b"fsview: standard output: No space left on device\n")


def test_sigint_ends_with_130(releases: Releases, tmp_path: Path) -> None:
    """While `cat` waits for a reader of its pipe."""
    environment = os.environ | {"FSVIEW_REPO": str(releases.repo), "PYTHONPATH": str(Path(cli.__file__).parents[1])}
    command = [sys.executable, "-m", "tools", "cat", "rel", "large", "large"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(5) == b"line "
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == b""


def _complete(monkeypatch: pytest.MonkeyPatch, words: str, fsview: Callable[..., object]) -> list[str]:
    from click.shell_completion import BashComplete

    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    completion = BashComplete(cli.fsview_command, {}, "fsview", "_FSVIEW_COMPLETE")
    return [item.value for item in completion.get_completions(*completion.get_completion_args())]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fsview lo", ["log"]),
        ("fsview re", ["refs", "rev-parse"]),
        ("fsview log re", ["rel"]),
        ("fsview diff rel r", ["rel"]),
        ("fsview grep x r", ["rel"]),
        ("fsview log --onel", ["--oneline"]),
        ("fsview log --repo /nowhere r", []),
        ("fsview --repo /nowhere log r", []),
        ("fsview log x", []),
    ],
)
def test_completion(fsview: Fsview, monkeypatch: pytest.MonkeyPatch, words: str, expected: list[str]) -> None:
    assert _complete(monkeypatch, words, fsview) == expected


@pytest.mark.unchecked
def test_completion_never_fails(fsview: Fsview, monkeypatch: pytest.MonkeyPatch, own_releases: Releases) -> None:
    data = own_releases.repo / "index/data.mdb"
    data.write_bytes(b"\0" * data.stat().st_size)
    assert _complete(monkeypatch, "fsview log r", fsview) == []
    monkeypatch.setenv("FSVIEW_REPO", "")
    assert _complete(monkeypatch, "fsview log r", fsview) == []


TYPED = ("rel$(touch x)", "rel`touch x`", "rel;touch x", "rel*", "rel\nfile,x", "rel\x1b[31m", "-rel", "rel/../x")


@pytest.mark.unchecked
def test_completion_types_no_commands(
    fsview: Fsview, monkeypatch: pytest.MonkeyPatch, own_releases: Releases, tmp_path: Path
) -> None:
    """Names that only who writes straight into the index can give to refs: the shell would take them as typed."""

    def forge(writing: Writing) -> None:
        value = writing.need(b"ref", b"rel")
        for name in TYPED:
            writing.put(b"ref", name.encode(), value)

    with Repository.open(own_releases.repo) as repository:
        repository.database.write(forge)
    monkeypatch.setenv("FSVIEW_REPO", str(own_releases.repo))
    assert _complete(monkeypatch, "fsview log re", fsview) == ["rel"]
    script = f"""{fsview("completion", "bash").stdout.decode()}
COMP_WORDS=(fsview log re) COMP_CWORD=2; _fsview_completion {tmp_path}/fsview; echo "${{COMPREPLY[@]}}\""""
    (tmp_path / "fsview").write_text(f"#!/bin/sh\nexec {sys.executable} -P -m tools\n")
    (tmp_path / "fsview").chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("rel\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(fsview: Fsview, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = fsview("completion", shell).stdout
    assert b"_FSVIEW_COMPLETE" in script and f"fsview completion {shell}".encode() in script
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    assert fsview("completion").stdout == script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, check=True)


def test_completion_of_an_unknown_shell(fsview: Fsview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/dash")
    assert "one of bash, zsh, fish" in fsview("completion", status=2).stderr
