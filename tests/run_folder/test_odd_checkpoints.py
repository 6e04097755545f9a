"""Manifests of another make, foreign names and links: the run goes back, it does not break."""

import json
import pathlib
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.run_folder.test_checkpoints import (
    RUN,
    abstract_state,
    restore,
    save_steps,
    state_at,
)
from tests.tiny import tiny_config
from tpdiff_jax import doctor
from tpdiff_jax.run_folder import checkpoint_folder, checkpoints, cores, run_config
from tpdiff_jax.run_folder.checkpoint_manifest import (
    CHECKPOINT_MANIFEST_FILE,
    CheckpointError,
    digest,
    read_checkpoint_manifest,
)
from tpdiff_jax.run_folder.checkpoints import Checkpoints, SaveError


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("two")
    save_steps(workdir, 3, 6)
    run_config.save_config(workdir, tiny_config())
    return workdir


@pytest.fixture
def workdir(two_steps: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(two_steps, tmp_path / "run")


def change_manifest(folder: pathlib.Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the body of a manifest and give it the checksum that fits."""
    path = folder / CHECKPOINT_MANIFEST_FILE
    body = json.loads(path.read_text())["manifest"]
    body = change(body) or body
    path.write_text(json.dumps({"manifest": body, "sha256": digest(body)}))


def first_file(body: dict[str, Any]) -> dict[str, Any]:
    return next(iter(body["files"].values()))


ODD: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a member too many": lambda body: body.update(extra=1),
    "a member of a file too many": lambda body: first_file(body).update(mode=1),
    "a member of the identity too many": lambda body: body["identity"].update(extra={}),
    "no step": lambda body: body.pop("step") and None,
    "no files": lambda body: body.pop("files") and None,
    "no identity": lambda body: body.pop("identity") and None,
    "no versions": lambda body: body.pop("versions") and None,
    "no format": lambda body: body.pop("format_version") and None,
    "format as text": lambda body: body.update(format_version="2"),
    "step as text": lambda body: body.update(step="6"),
    "step below zero": lambda body: body.update(step=-6),
    "step too large": lambda body: body.update(step=10**30),
    "sizes as text": lambda body: first_file(body).update(bytes="many"),
    "sizes below zero": lambda body: first_file(body).update(bytes=-1),
    "files as a list": lambda body: body.update(files=["a"]),
    "a file as a number": lambda body: body["files"].update(x=3),
    "arrays as text": lambda body: body.update(arrays="float32"),
    "versions as numbers": lambda body: body.update(versions={"jax": 1}),
    "config as a list": lambda body: body["identity"].update(config=[]),
    "cores as text": lambda body: body.update(usable_cores="two"),
    "a list": lambda body: [body],
}


@pytest.mark.parametrize("kind", ODD)
def test_a_manifest_of_another_make_sends_the_run_back(
    kind: str, workdir: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_manifest(workdir / "checkpoints" / "6", ODD[kind])
    restored = restore(workdir)
    assert restored.step == 3 and restored.rejected[0].startswith("step 6: manifest.json")
    finding = doctor.look_at(workdir / "checkpoints", 6)
    assert finding.manifest is None and "\n" not in str(finding.error)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"manifest":' * 50_000, '{"manifest": 1, "sha256": 2}', "[]", "1" * 9000, ""],
)
def test_a_manifest_that_is_none_sends_the_run_back(text: str, workdir: pathlib.Path) -> None:
    (workdir / "checkpoints" / "6" / CHECKPOINT_MANIFEST_FILE).write_text(text)
    restored = restore(workdir)
    assert restored.step == 3 and "manifest.json is unreadable" in restored.rejected[0]


def test_names_that_are_no_steps_links_and_files_stop_neither_run_nor_doctor(
    workdir: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workdir / "checkpoints"
    for name in ("007", "٣", "1e3", "-4", "12 ", "notes"):
        (folder / name).mkdir()
    (folder / "9").symlink_to("nowhere")
    (folder / "8").symlink_to("8")
    (folder / "7").write_text("a file")
    (folder / "gone").symlink_to("nowhere")
    assert checkpoint_folder.list_steps(folder) == [3, 6, 7, 8, 9]
    assert restore(workdir).step == 6
    findings = [doctor.look_at(folder, step) for step in (7, 8, 9)]
    assert all(finding.manifest is None for finding in findings)
    with pytest.raises(CheckpointError, match="another config"):  # read as far as the newest intact
        doctor.examine(workdir)
    told = capsys.readouterr().out
    assert "  step        9" in told and "manifest.json is missing" in told
    assert "  007: no checkpoint; left alone" in told and "  gone: no checkpoint" in told


def test_a_save_takes_the_place_of_a_link_or_a_file_and_touches_nothing_behind_it(
    workdir: pathlib.Path,
) -> None:
    folder, elsewhere = workdir / "checkpoints", workdir / "elsewhere"
    shutil.copytree(folder / "3", elsewhere)
    before = sorted(path.name for path in elsewhere.rglob("*"))
    (folder / "7").symlink_to("nowhere")
    (folder / "8").write_text("a file")
    (folder / "9").symlink_to(elsewhere)
    for step in (7, 8, 9):
        with Checkpoints(workdir, identity=RUN, keep=9) as saver:
            saver.save(step, state_at(step), {})
        assert not (folder / str(step)).is_symlink()
        assert restore(workdir).step == step
    (folder / "1").symlink_to(elsewhere)
    (folder / "2").symlink_to("nowhere")
    with Checkpoints(workdir, identity=RUN, keep=1) as saver:
        saver.save(10, state_at(10), {})
    assert saver.counts()["failed_checkpoint_removals"] == 0
    assert [path.name for path in folder.iterdir()] == ["10"]
    assert sorted(path.name for path in elsewhere.rglob("*")) == before


def test_what_a_run_ends_with_is_not_replaced_by_what_closing_raises(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_checkpoint_manifest", no_space)
    saver = Checkpoints(workdir, identity=RUN)
    monkeypatch.setattr(saver._checkpointer, "close", no_space)
    with pytest.raises(SaveError, match=r"step 9 .*No space left.*untouched: \[3, 6\]"):
        with saver:
            saver.save(9, state_at(9), {})
            saver.wait()
    for stop in (KeyboardInterrupt, RuntimeError):  # the loop's own end, with a save that fails
        with pytest.raises(stop), Checkpoints(workdir, identity=RUN) as other:
            other.save(9, state_at(9), {})
            raise stop
    with pytest.raises(SaveError, match="step 9"), Checkpoints(workdir, identity=RUN) as other:
        other.save(9, state_at(9), {})


def test_a_folder_that_cannot_be_written_is_an_error_at_once_and_leaves_no_thread(
    workdir: pathlib.Path,
) -> None:
    folder = workdir / "checkpoints"
    start = time.monotonic()
    with pytest.raises(SaveError, match="step 9 could not be saved"):
        with Checkpoints(workdir, identity=RUN) as saver:
            # Root may write anywhere; a folder that has become a file stops everyone.
            shutil.move(folder, workdir / "moved")
            folder.write_text("")
            saver.save(9, state_at(9), {})
            saver.wait()
    assert time.monotonic() - start < 60
    waiting = [t for t in threading.enumerate() if "Signal" in type(t).__name__]
    assert not waiting, "a thread that waits keeps the process alive"


def test_a_run_that_may_be_refused_makes_no_folder_and_removes_no_leftover(
    workdir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    leftover = workdir / "checkpoints" / "9.saving"
    leftover.mkdir()
    saver = Checkpoints(workdir, identity=RUN, later=True)
    assert saver.restore(abstract_state()) is not None and leftover.is_dir()
    saver.make_ready()
    assert not leftover.exists()
    new = Checkpoints(tmp_path / "new", identity=RUN, later=True)
    new.check_free_space(abstract_state())
    assert new.restore(abstract_state()) is None and not (tmp_path / "new").exists()


def test_cores_are_those_that_xla_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPROC", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5})
    assert cores.usable_cores() == 3
    for told, expected in (("2", 2), ("many", 3), ("", 3), ("0", 3)):
        monkeypatch.setenv("NPROC", told)
        assert cores.usable_cores() == expected
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert cores.usable_cores() is None


def test_another_number_of_cores_is_said(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = cores.usable_cores()
    manifest = read_checkpoint_manifest(workdir / "checkpoints" / "6")
    assert now is not None and manifest.usable_cores == now
    with caplog.at_level("WARNING", logger="absl"):
        assert restore(workdir).step == 6
        assert "usable CPU cores" not in caplog.text
        monkeypatch.setattr(cores, "usable_cores", lambda: now + 6)
        assert restore(workdir).step == 6
    assert f"was computed with {now} usable CPU cores, now there are {now + 6}" in caplog.text
    caplog.clear()
    for same in (None, now):  # an accelerator computes, or nothing has changed
        monkeypatch.setattr(cores, "usable_cores", lambda same=same: same)
        restore(workdir)
    change_manifest(workdir / "checkpoints" / "6", lambda body: body.pop("usable_cores") and None)
    monkeypatch.setattr(cores, "usable_cores", lambda: now + 6)
    assert restore(workdir).step == 6, "a checkpoint of before they were recorded"
    assert "usable CPU cores" not in caplog.text
