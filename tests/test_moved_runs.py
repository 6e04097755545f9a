"""A run and what it reads may move: what counts is the hash, and sampling needs the run alone."""

import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from tests.small_clips import KINDS, clip_config
from tests.tiny import tiny_config
from tpdiff_jax import replay
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, open_run
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.run_folder.checkpoint_manifest import CheckpointMismatchError, Identity
from tpdiff_jax.run_folder.checkpoints import Checkpoints
from tpdiff_jax.sample import sample_run
from tpdiff_jax.training.initial_state import abstract_train_state, make_state, run_keys
from tpdiff_jax.training.known_weights import record_weights, same_places
from tpdiff_jax.training.training_folder import keep_config, open_workdir

Folders = dict[str, pathlib.Path]
ALL = (*KINDS, "buckets")


def begin(config: ConfigDict, workdir: pathlib.Path, step: int = 1) -> None:
    """Leave what a run leaves that was stopped after a step."""
    experiment = build_experiment(config)
    assert open_workdir(experiment, workdir) is None
    keep_config(experiment, workdir)
    checkpoints = Checkpoints(workdir, identity=experiment.identity)
    checkpoints.save(step, make_state(experiment, run_keys(0)[0]), {})
    checkpoints.close()


def moved(folder: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Copy clips to another place."""
    return pathlib.Path(shutil.copytree(folder, target))


def resume(config: ConfigDict, workdir: pathlib.Path) -> int:
    """Do what training does before it trains; return the step that it goes on from."""
    experiment = build_experiment(config)
    open_workdir(experiment, workdir)
    checkpoints = Checkpoints(workdir, identity=experiment.identity)
    restored = checkpoints.restore(abstract_train_state(experiment))
    assert restored is not None
    keep_config(experiment, workdir)
    return restored.step


@pytest.mark.parametrize("kind", ALL)
def test_clips_may_move_and_the_run_goes_on_and_samples_without_them(
    kind: str, small_clips: Folders, tmp_path: pathlib.Path
) -> None:
    first = moved(small_clips[kind], tmp_path / "first")
    begin(clip_config(first, kind), tmp_path / "run")
    there = open_run(tmp_path / "run").experiment
    identity, counts = there.identity, (1, 3, 20)
    requests = {count: there.dataset.requests(count) for count in counts}
    null_cond = dict(there.dataset.null_cond)
    second = pathlib.Path(shutil.move(first, tmp_path / "second"))

    away = open_run(tmp_path / "run").experiment
    assert away.identity == identity
    assert len(away.shapes) == len(there.shapes) == 1
    for name in ("num_frames", "frame_shape", "num_digits", "num_classes", "cond_shapes", "fps"):
        assert getattr(away.dataset, name) == getattr(there.dataset, name), name
    for name in ("encoders", "is_pixels", "captions", "world"):
        assert getattr(away.dataset, name) == getattr(there.dataset, name), name
    for name in ("test", "train"):
        assert away.dataset.num_clips(name) == there.dataset.num_clips(name)
    for count, wanted in requests.items():
        asked = away.dataset.requests(count)
        rows = np.arange(count) % 16
        assert list(asked.captions) == (
            [wanted.captions[r] for r in rows] if asked.captions else []
        )
        for name, array in wanted.cond.items():
            np.testing.assert_array_equal(asked.cond[name], array[rows], strict=True)
    for name, array in null_cond.items():
        np.testing.assert_array_equal(away.dataset.null_cond[name], array, strict=True)
    with pytest.raises(ValueError, match="--data_folder=FOLDER says where they lie now"):
        away.dataset.clip("train", 0, 0)

    back = open_run(tmp_path / "run", overrides=GenerateFlags(data_folder=str(second)))
    assert back.experiment.dataset.clip("train", 0, 0)["video"].shape == there.shapes[0].video_shape
    assert resume(clip_config(second, kind), tmp_path / "run") == 1
    assert run_config.load_config(tmp_path / "run").data.folder == str(second)


@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_a_run_folder_alone_makes_videos(
    kind: str, small_clips: Folders, tmp_path: pathlib.Path
) -> None:
    clips = moved(small_clips[kind], tmp_path / "clips")
    begin(clip_config(clips, kind), tmp_path / "run")
    with_clips = sample_run(open_run(tmp_path / "run"), SampleFlags(), tmp_path / "with")
    shutil.rmtree(clips)
    run = pathlib.Path(shutil.move(tmp_path / "run", tmp_path / "elsewhere"))
    without = sample_run(open_run(run), SampleFlags(), tmp_path / "without")
    names, others = (sorted(p.name for p in f.iterdir()) for f in (with_clips, without))
    assert names == others and len(names) >= 2
    for name in names:
        assert (with_clips / name).read_bytes() == (without / name).read_bytes()


@pytest.mark.parametrize("is_saved", [True, False], ids=["a checkpoint", "none"])
def test_other_clips_in_the_place_of_a_runs_are_refused_by_all_that_reads_them(
    is_saved: bool, small_clips: Folders, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips, other = moved(small_clips["pixels"], tmp_path / "a"), tmp_path / "b"
    begin(clip_config(clips, "pixels"), tmp_path / "run")
    if not is_saved:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / "1")
    moved(clips, other)
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"fps": 8.0', '"fps": 9.0', 1))
    with pytest.raises(ValueError, match="dataset.manifest_sha256: saved '.*', now '"):
        open_workdir(build_experiment(clip_config(other, "pixels")), tmp_path / "run")
    with pytest.raises(ValueError, match="dataset.manifest_sha256: saved '.*', now '"):
        replay.replay(tmp_path / "run", 1, data_folder=str(other))
    if is_saved:
        with pytest.raises(CheckpointMismatchError, match="manifest_sha256"):
            open_run(tmp_path / "run", overrides=GenerateFlags(data_folder=str(other)))
        shutil.rmtree(clips)
        moved(other, clips)
        with caplog.at_level("WARNING", logger="absl"):
            assert open_run(tmp_path / "run").experiment.dataset.fps == 8.0
        assert "holds other clips now" in caplog.text


def test_a_folder_is_the_same_however_its_path_is_written(
    small_clips: Folders, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = moved(small_clips["pixels"], tmp_path / "clips")
    (tmp_path / "link").symlink_to(clips)
    monkeypatch.chdir(tmp_path)
    begin(clip_config(clips, "pixels"), tmp_path / "run")
    for path in ("clips", "./clips/", "link", "clips/../clips"):
        config = clip_config(pathlib.Path("."), "pixels", data__folder=path)
        assert resume(config, tmp_path / "run") == 1


def test_a_checkpoint_of_before_names_its_place_and_still_fits() -> None:
    now = Identity(config={"train.seed": 0}, dataset={"manifest_sha256": "a"})
    places = {"data.folder": "/gone", "model.weights": "/gone", "train.num_steps": 3}
    before = Identity(config={**now.config, **places}, dataset=now.dataset)
    assert before.differences(now) == []
    other = Identity(config={"train.seed": 1}, dataset={"manifest_sha256": "b"})
    assert len(before.differences(other)) == 2


def weights(folder: pathlib.Path, value: float) -> pathlib.Path:
    (folder / "unet").mkdir(parents=True)
    save_file({"w": np.full(3, value, np.float32)}, folder / "unet" / "a.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("field", ["model.weights", "measure.clip_folder", "adaptation.weights"])
def test_weights_may_move_and_others_are_seen(field: str, tmp_path: pathlib.Path) -> None:
    first, copy, other = (
        weights(tmp_path / name, value) for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0))
    )
    group, name = field.split(".")
    saved, now = ConfigDict({group: {name: str(first)}}), ConfigDict({group: {name: str(copy)}})
    changed = run_config.changed_places(saved, now)
    assert changed == {field: str(copy)}
    assert field not in same_places(tmp_path, changed), "nothing is known of them yet"
    record_weights(tmp_path, saved)
    shutil.rmtree(first)
    record_weights(tmp_path, now)  # does not take the place of what is known
    assert field in same_places(tmp_path, changed)
    run_config.check_same_run(saved, now, same_places=same_places(tmp_path, changed))
    for place in (other, tmp_path / "nowhere"):
        assert field not in same_places(tmp_path, {field: str(place)})
    changed = {field: str(other)}
    with pytest.raises(run_config.ConfigMismatchError, match=f"{field}: saved"):
        run_config.check_same_run(
            saved,
            ConfigDict({group: {name: str(other)}}),
            same_places=same_places(tmp_path, changed),
        )


def test_a_measuring_network_that_is_gone_stops_measuring_alone(
    small_clips: Folders, tmp_path: pathlib.Path
) -> None:
    fvd, run = tmp_path / "i3d.npz", tmp_path / "run"
    fvd.write_bytes(b"weights")
    begin(clip_config(small_clips["latents"], "latents"), run)
    config = run_config.load_config(run)
    config.measure = {"fvd_weights": str(fvd), "fvd_resize": "half_pixel", "clip_folder": ""}
    run_config.save_config(run, config)
    fvd.unlink()
    assert open_run(run).experiment.measure.fvd_weights == ""
    with pytest.raises(ValueError, match=r"measure\.fvd_weights=.* is not a file"):
        open_run(run, is_measured=True)


@pytest.mark.parametrize(
    "name", ["notes.txt", "manifest.json", "model.safetensors", "src/main.py", "0000.mp4"]
)
def test_a_folder_of_something_else_is_not_trained_into(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="is no run's folder and not empty"):
        open_workdir(build_experiment(tiny_config()), tmp_path)


def test_what_may_lie_in_a_folder_before_its_run(tmp_path: pathlib.Path) -> None:
    for name in (
        *(".hidden", "lost+found/x", "slurm-12.log", "log.txt", "log_before.txt", "nohup.out"),
        *("goodput.jsonl", "plan_v5p_4x4x4.json", "plan_local.html"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert open_workdir(build_experiment(tiny_config()), tmp_path) is None


def test_digits_are_drawn_and_read_no_folder(tmp_path: pathlib.Path) -> None:
    begin(tiny_config(), tmp_path / "run")
    assert not (tmp_path / "run" / "clips").exists()
    overrides: Any = GenerateFlags(data_folder=str(tmp_path))
    with pytest.raises(ValueError, match="--data_folder: data.name='moving_digits' reads no"):
        open_run(tmp_path / "run", overrides=overrides)
    assert jax.tree.leaves(open_run(tmp_path / "run").params)
