"""Checkpoints under injected faults: the newest intact one is used, or the run says why not."""

import json
import pathlib
import resource
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from tpdiff_jax.run_folder import checkpoint_folder, checkpoint_manifest
from tpdiff_jax.run_folder import checkpoints as checkpoints_module
from tpdiff_jax.run_folder.checkpoint_manifest import (
    CHECKPOINT_MANIFEST_FILE,
    CheckpointMismatchError,
    DamagedCheckpointError,
    Identity,
    read_checkpoint_manifest,
    verify,
)
from tpdiff_jax.run_folder.checkpoints import CheckpointError, Checkpoints, SaveError

RUN = Identity(config={"optim.learning_rate": 0.1}, dataset={"version": "digits-1"})


def state_at(step: int) -> Any:
    """A small state whose values tell its step."""
    return {"params": {"w": jnp.full((3, 2), step / 7)}, "step": jnp.int32(step)}


def abstract_state() -> Any:
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state_at(0)
    )


def save_steps(workdir: pathlib.Path, *steps: int, **options: Any) -> Checkpoints:
    checkpoints = Checkpoints(workdir, identity=RUN, **options)
    for step in steps:
        checkpoints.save(step, state_at(step), {"seconds": float(step)})
    checkpoints.close()
    return checkpoints


def restore(workdir: pathlib.Path, **options: Any) -> Any:
    return Checkpoints(workdir, create=False, **{"identity": RUN, **options}).restore(
        abstract_state()
    )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Steps 3 and 6, intact; to be copied, not changed."""
    workdir = tmp_path_factory.mktemp("two")
    save_steps(workdir, 3, 6)
    return workdir


@pytest.fixture
def workdir(two_steps: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of `two_steps` to damage."""
    return shutil.copytree(two_steps, tmp_path / "run")


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: lines.append(text % args))
    return lines


def files_of(step_folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in step_folder.rglob("*") if path.is_file())


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[pathlib.Path], None]] = {
    "flipped": flip_a_bit,
    "truncated": truncate,
    "removed": pathlib.Path.unlink,
}


def test_what_was_saved_comes_back_bit_for_bit(two_steps: pathlib.Path) -> None:
    restored = restore(two_steps)
    assert restored.step == 6 and restored.rejected == ()
    for got, want in zip(
        jax.tree.leaves(restored.state), jax.tree.leaves(state_at(6)), strict=True
    ):
        assert np.asarray(got).tobytes() == np.asarray(want).tobytes()
    assert restored.totals["seconds"] == 6.0
    names = {path.name for path in (two_steps / "checkpoints").iterdir()}
    assert names == {"3", "6"}


@pytest.mark.parametrize("kind", DAMAGE)
def test_any_damaged_file_of_the_newest_sends_the_run_back_and_is_named(
    kind: str, workdir: pathlib.Path
) -> None:
    newest = workdir / "checkpoints" / "6"
    damaged = 0
    for path in files_of(newest):
        before = path.read_bytes()
        if not before and kind != "removed":
            continue  # an empty file has no bit to flip
        DAMAGE[kind](path)
        with pytest.raises(DamagedCheckpointError) as error:
            verify(newest)
        assert path.name in str(error.value)
        path.write_bytes(before)
        damaged += 1
    assert damaged >= 8
    assert verify(newest).step == 6  # all put back

    DAMAGE[kind](files_of(newest)[-1])
    checkpoints = Checkpoints(workdir, identity=RUN, create=False)
    restored = checkpoints.restore(abstract_state())
    assert restored is not None and restored.step == 3
    assert float(restored.state["params"]["w"][0, 0]) == np.float32(3 / 7)
    assert len(restored.rejected) == 1 and restored.rejected[0].startswith("step 6: ")
    assert checkpoints.counts()["rejected_checkpoints"] == 1


def test_a_reader_beside_a_trainer_that_prunes_takes_the_newer_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_steps(tmp_path, 1)
    trainer = Checkpoints(tmp_path, identity=RUN, keep=1)

    def verified(path: pathlib.Path) -> Any:
        found = verify(path)
        if path.name == "1":  # while the reader hashes it
            trainer.save(2, state_at(2), {})
            trainer.wait()
        return found

    monkeypatch.setattr(checkpoints_module, "verify", verified)
    restored = restore(tmp_path)
    assert restored.step == 2 and restored.rejected == ()
    trainer.close()


def test_every_bit_of_the_manifest_is_guarded(workdir: pathlib.Path) -> None:
    path = workdir / "checkpoints" / "6" / CHECKPOINT_MANIFEST_FILE
    before = path.read_bytes()
    told = read_checkpoint_manifest(path.parent)
    for position in range(len(before)):
        content = bytearray(before)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)
        try:
            assert read_checkpoint_manifest(path.parent) == told  # a flip between tokens
        except DamagedCheckpointError:
            continue


def test_a_file_too_many_and_a_folder_under_another_name_are_damage(
    workdir: pathlib.Path, warnings: list[str]
) -> None:
    folder = workdir / "checkpoints"
    (folder / "6" / "extra").write_text("x")
    shutil.copytree(folder / "3", folder / "9")
    restored = restore(workdir)
    assert restored.step == 3
    assert warnings == [
        "checkpoint rejected, step 9: the folder holds step 3",
        "checkpoint rejected, step 6: extra is not in the manifest",
    ]


def test_without_any_intact_checkpoint_there_is_no_fresh_start(workdir: pathlib.Path) -> None:
    for step in ("3", "6"):
        (workdir / "checkpoints" / step / CHECKPOINT_MANIFEST_FILE).unlink()
    with pytest.raises(CheckpointError, match="step 6: manifest.json is missing.*step 3"):
        restore(workdir)
    with pytest.raises(CheckpointError, match="--trust_step"):
        restore(workdir)


def test_a_walk_back_goes_on_saving_and_replaces_what_was_damaged(workdir: pathlib.Path) -> None:
    truncate(files_of(workdir / "checkpoints" / "6")[0])
    checkpoints = Checkpoints(workdir, identity=RUN, keep=1)
    restored = checkpoints.restore(abstract_state())
    assert restored is not None and restored.step == 3
    checkpoints.save(4, state_at(4), {})
    checkpoints.wait()
    assert checkpoints.steps() == [4, 6], "a damaged newer step must not push out the intact one"
    assert restore(workdir).step == 4
    checkpoints.save(6, state_at(6), {})
    checkpoints.close()
    assert checkpoints.steps() == [6]
    again = restore(workdir)
    assert again.step == 6 and again.totals["rejected_checkpoints"] == 1


def session(workdir: pathlib.Path, *steps: int) -> int:
    """Go on from the newest intact checkpoint and save; return the count of damaged ones."""
    with Checkpoints(workdir, identity=RUN) as checkpoints:
        checkpoints.restore(abstract_state())
        for step in steps:
            checkpoints.save(step, state_at(step), {})
        return checkpoints.counts()["rejected_checkpoints"]


@pytest.mark.parametrize("name", ["process_0", CHECKPOINT_MANIFEST_FILE])
def test_a_damaged_checkpoint_counts_once_and_its_step_saved_and_damaged_anew_again(
    name: str, two_steps: pathlib.Path, workdir: pathlib.Path
) -> None:
    def damage() -> None:
        next((workdir / "checkpoints" / "9").rglob(name)).unlink()

    save_steps(workdir, 9)
    damage()
    assert [session(workdir, step) for step in (7, 8)] == [1, 1]
    moved = workdir.rename(workdir.with_name("moved"))
    assert session(shutil.copytree(moved, workdir)) == 1, "wherever the run lies"
    assert session(workdir, 9) == 1
    damage()
    assert [session(workdir), session(workdir)] == [2, 2]
    truncate(files_of(workdir / "checkpoints" / "8")[0])
    assert session(workdir, 8) == 3
    assert [session(workdir), session(workdir, 9), session(workdir, 12)] == [3, 3, 3]


def test_checkpoints_of_before_counted_saves_were_noted_count_as_they_did(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truncate(files_of(workdir / "checkpoints" / "6")[0])
    with monkeypatch.context() as patch:
        args, real = checkpoints_module.ocp.args, checkpoints_module.ocp.args.JsonSave
        key = checkpoints_module._COUNTED
        patch.setattr(
            args, "JsonSave", lambda totals: real({k: v for k, v in totals.items() if k != key})
        )
        assert session(workdir, 4) == 1
    assert [session(workdir, 5), session(workdir)] == [2, 2]


@pytest.mark.parametrize(
    ("steps", "newest", "keep", "rejected", "removed"),
    [
        ([1, 2, 3, 4], 4, 2, (), [1, 2]),
        ([1, 2, 3, 4], 4, 1, (), [1, 2, 3]),
        ([1, 2, 3, 4], 4, 9, (), []),
        ([1, 2, 3, 4], 4, 2, (3,), [1, 3]),
        ([3, 4, 6, 9], 4, 1, (6, 9), [3]),
        ([3, 4, 6, 9], 4, 2, (6, 9), []),
    ],
)
def test_retention_counts_intact_steps_only(
    steps: list[int], newest: int, keep: int, rejected: tuple[int, ...], removed: list[int]
) -> None:
    assert removed == checkpoint_folder.steps_to_remove(
        steps, newest=newest, keep=keep, rejected=rejected
    )


def test_a_removal_that_fails_is_counted_and_stops_nothing(
    tmp_path: pathlib.Path, warnings: list[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "1.deleting").write_text("in the way of the rename")
    checkpoints = save_steps(tmp_path, 1, 2, 3, keep=1)
    assert checkpoints.counts()["failed_checkpoint_removals"] == 2  # after step 2, after step 3
    assert checkpoints.steps() == [1, 3]
    assert len(warnings) == 2 and "the run goes on" in warnings[0]
    assert restore(tmp_path).totals["failed_checkpoint_removals"] == 1  # as known when saved


def test_leftovers_of_interrupted_saves_go_at_the_next_start_and_nothing_else_does(
    workdir: pathlib.Path,
) -> None:
    folder = workdir / "checkpoints"
    leftovers = ["9.saving", "9.saving.orbax-checkpoint-tmp", "7.orbax-checkpoint-tmp-3"]
    leftovers += ["1.deleting", "6.replaced"]
    for name in [*leftovers, "mine", "9.backup"]:
        (folder / name / "state").mkdir(parents=True)
    (folder / "8.saving").symlink_to(folder / "3")
    assert [path.name for path in checkpoint_folder.list_leftovers(folder)] == sorted(leftovers)
    Checkpoints(workdir, create=False)
    assert len(checkpoint_folder.list_leftovers(folder)) == len(leftovers), "readers change nothing"
    Checkpoints(workdir)
    left = {path.name for path in folder.iterdir()}
    assert left == {"3", "6", "mine", "9.backup", "8.saving"}
    assert verify(folder / "3").step == 3


def test_another_run_another_dataset_and_other_arrays_are_refused_with_the_difference(
    two_steps: pathlib.Path,
) -> None:
    other = Identity(config={"optim.learning_rate": 0.2}, dataset={"version": "digits-2"})
    with pytest.raises(CheckpointMismatchError) as error:
        restore(two_steps, identity=other)
    assert "config.optim.learning_rate: saved 0.1, now 0.2" in str(error.value)
    assert "dataset.version: saved 'digits-1', now 'digits-2'" in str(error.value)
    wrong = {"params": {"w": jax.ShapeDtypeStruct((3, 4), jnp.float32)}, "step": jnp.int32(0)}
    with pytest.raises(CheckpointMismatchError) as error:
        Checkpoints(two_steps, create=False).restore(wrong)
    (line,) = str(error.value).splitlines()
    assert "params/w: saved 'float32[3, 2]', now 'float32[3, 4]'" in line


@pytest.mark.parametrize("version", [0, 1, 3])
def test_another_format_is_refused_with_the_versions_and_not_walked_past(
    workdir: pathlib.Path, version: int
) -> None:
    path = workdir / "checkpoints" / "6" / CHECKPOINT_MANIFEST_FILE
    body = json.loads(path.read_text())["manifest"]
    body["format_version"] = version
    body["versions"] = {**body["versions"], "tpdiff_jax": "0.0.1"}
    path.write_text(json.dumps({"manifest": body, "sha256": checkpoint_manifest.digest(body)}))
    message = rf"format {version}, this code reads and writes 2"
    with pytest.raises(CheckpointMismatchError, match=message) as error:
        restore(workdir)
    assert "tpdiff_jax: saved '0.0.1'" in str(error.value)


def test_other_library_versions_are_named_but_accepted(
    two_steps: pathlib.Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    now = {**checkpoint_manifest.checkpoint_versions(), "jax": "99.0"}
    monkeypatch.setattr("tpdiff_jax.run_folder.checkpoints.checkpoint_versions", lambda: now)
    assert restore(two_steps).step == 6
    assert len(warnings) == 1 and "now '99.0'" in warnings[0]


def test_a_step_that_is_asked_for_must_be_there_and_intact(workdir: pathlib.Path) -> None:
    checkpoints = Checkpoints(workdir, create=False)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5.*\[3, 6\]"):
        checkpoints.restore(abstract_state(), 5)
    truncate(files_of(workdir / "checkpoints" / "6")[0])
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        checkpoints.restore(abstract_state(), 6)


def test_a_failed_save_is_told_at_the_next_poll_and_leaves_no_trace(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(workdir, identity=RUN)
    monkeypatch.setattr("tpdiff_jax.run_folder.checkpoints.write_checkpoint_manifest", no_space)
    checkpoints.save(9, state_at(9), {})
    assert checkpoints._running is not None
    checkpoints._running.exception()  # wait without raising
    with pytest.raises(SaveError, match=r"step 9 .*No space left.*untouched: \[3, 6\]"):
        checkpoints.poll()
    checkpoints.poll()  # told once
    assert {path.name for path in checkpoints.path.iterdir()} == {"3", "6"}
    monkeypatch.undo()
    checkpoints.save(9, state_at(9), {})
    checkpoints.close()
    assert restore(workdir).step == 9


def test_on_a_full_disk_the_save_fails_clearly_and_the_earlier_checkpoints_hold(
    workdir: pathlib.Path,
) -> None:
    big = {"w": jax.random.normal(jax.random.key(0), (300, 300))}  # 360 kB, hard to compress
    checkpoints = Checkpoints(workdir, identity=RUN)
    before = {path: path.read_bytes() for path in files_of(checkpoints.path)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(SaveError, match=r"step 9 could not be saved.*untouched: \[3, 6\]"):
            checkpoints.save(9, big, {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in files_of(checkpoints.path)} == before
    checkpoints.save(9, state_at(9), {})
    checkpoints.close()
    assert restore(workdir).step == 9


def test_a_run_whose_checkpoints_do_not_fit_is_refused_with_both_figures(
    workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(workdir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    folder = workdir / "checkpoints"
    present = checkpoint_folder.size_of(folder)
    checkpoint_folder.check_free_space(folder, state_bytes=250_000, keep=3)
    needed = 4 * 10**6 - present
    with pytest.raises(ValueError, match=f"{needed} more bytes.*keep_checkpoints=3.*only 1000000"):
        checkpoint_folder.check_free_space(folder, state_bytes=10**6, keep=3)
