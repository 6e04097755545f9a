"""Command and commit of a run, where they are known; nothing where they are not."""

import importlib.metadata
import json
import pathlib
import shlex
import shutil
import subprocess
import sys
import types

import pytest

from bench.report_files import facts
from tpdiff_jax import main, prepare
from tpdiff_jax.devices import origin
from tpdiff_jax.devices.origin import code_commit, command_line_text, run_origin
from tpdiff_jax.experiment import prepare_config
from tpdiff_jax.preparation import ray_shards

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
FLAGS = ["--mode=train", "--workdir=my runs/a", "--config.data.folder=a;b$c"]


@pytest.mark.parametrize(
    ("program", "start"),
    [
        ("/repo/tpdiff_jax/main.py", "python -m tpdiff_jax.main"),
        ("tpdiff_jax/main.py", "python -m tpdiff_jax.main"),
        ("/env/bin/tpdiff_jax", "tpdiff_jax"),
        ("C:/env/Scripts/tpdiff_jax.exe", "tpdiff_jax"),
    ],
)
def test_a_command_can_be_typed_again(program: str, start: str) -> None:
    text = command_line_text([program, *FLAGS])
    assert text.startswith(start + " --mode=train ")
    assert shlex.split(text) == [*start.split(), *FLAGS]
    assert command_line_text([program]) == start


@pytest.mark.parametrize(
    "program", ["/env/bin/pytest", "-c", "", "main.py", "/a/main.py", "/repo/x"]
)
def test_other_programs_have_no_command(program: str) -> None:
    assert command_line_text([program, *FLAGS]) == ""
    assert command_line_text([]) == ""


def git(folder: pathlib.Path, *arguments: str) -> str:
    names = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *names, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: pathlib.Path) -> pathlib.Path:
    """A package at the top of a checkout with one commit."""
    folder = tmp_path / "repo" / "some_package"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("a = 1\n")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", ".")
    git(folder.parent, "commit", "-q", "-m", "first")
    return folder


@needs_git
def test_a_checkout_has_its_commit_and_says_what_differs(package: pathlib.Path) -> None:
    commit = git(package, "rev-parse", "HEAD")
    assert len(commit) == 40 and code_commit(package) == commit
    (package.parent / "runs").mkdir()
    (package.parent / "runs" / "log.txt").write_text("new files are no change of the code")
    assert code_commit(package) == commit
    (package / "main.py").write_text("a = 2\n")
    assert code_commit(package) == f"{commit} and changed files"
    git(package, "commit", "-q", "-a", "-m", "second")
    assert code_commit(package) == git(package, "rev-parse", "HEAD") != commit


@needs_git
def test_a_package_inside_a_users_own_repository_does_not_have_its_commit(
    package: pathlib.Path,
) -> None:
    installed = package.parent / ".venv" / "site-packages" / "some_package"
    installed.mkdir(parents=True)
    assert code_commit(installed) == ""


@needs_git
def test_a_repository_without_a_commit_has_none(tmp_path: pathlib.Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "some_package").mkdir()
    assert code_commit(tmp_path / "some_package") == ""


def test_without_git_or_with_one_that_hangs_there_is_no_commit(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_commit(tmp_path) == ""
    (tmp_path / "git").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setattr(origin, "_GIT_SECONDS", 0.2)
    assert code_commit(tmp_path) == ""


@pytest.mark.parametrize(
    ("noted", "expected"),
    [
        ({"url": "https://x/y", "vcs_info": {"vcs": "git", "commit_id": "abc"}}, "abc"),
        ({"url": "file:///x", "dir_info": {}}, ""),
        (None, ""),
    ],
)
def test_an_installed_package_has_the_commit_that_pip_noted(
    noted: dict[str, object] | None,
    expected: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info = tmp_path / "some_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some_package\nVersion: 1\n")
    if noted is not None:
        (info / "direct_url.json").write_text(json.dumps(noted))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.metadata.version("some_package") == "1"
    assert code_commit(tmp_path / "some_package") == expected


def test_what_is_unknown_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "code_commit", lambda _: "")
    monkeypatch.setattr("sys.argv", ["/env/bin/pytest"])
    assert run_origin() == {}
    monkeypatch.setattr("sys.argv", ["/env/bin/tpdiff_jax", "--mode=plan"])
    assert run_origin() == {"command": "tpdiff_jax --mode=plan"}


def run_prepare(monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, is_finished: bool) -> None:
    """The command without what it prepares."""
    made = {"manifest": 1} if is_finished else None
    monkeypatch.setattr(prepare, "prepare", lambda *_: made)
    monkeypatch.setattr(origin, "code_commit", lambda _: "c0ffee")
    monkeypatch.setattr(sys, "argv", ["/bin/tpdiff_jax", "prepare", "--workdir=clips"])
    monkeypatch.setattr(prepare_config, "build_prepare", lambda _: None)
    monkeypatch.setattr(prepare_config, "open_clip_encoder", lambda _: None)
    monkeypatch.setattr(ray_shards, "make_engine", lambda *_: None)
    values = {"config": None, "engine": "", "engine_address": ""}
    main.run_prepare(types.SimpleNamespace(values=values), folder)


@pytest.mark.parametrize("is_finished", [True, False])
def test_preparation_notes_its_origin_beside_the_manifest(
    is_finished: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Not in it: equal clips have equal manifests wherever they were made."""
    run_prepare(monkeypatch, tmp_path, is_finished)
    written = [path.name for path in tmp_path.iterdir()]
    assert written == (["origin.json"] if is_finished else [])
    if is_finished:
        assert json.loads((tmp_path / "origin.json").read_text()) == {
            "command": "tpdiff_jax prepare --workdir=clips",
            "commit": "c0ffee",
        }


def test_an_origin_that_is_noted_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The command that made the clips, not one that found them made."""
    (tmp_path / "origin.json").write_text("who made them")
    run_prepare(monkeypatch, tmp_path, is_finished=True)
    assert (tmp_path / "origin.json").read_text() == "who made them"


def test_a_bench_names_the_commit_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(origin, "code_commit", lambda _: "c0ffee")
    told = facts("cost", ["--out=x y"])
    assert told["commit"] == "c0ffee" and told["command"] == "python -m bench.cost '--out=x y'"
