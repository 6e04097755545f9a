"""Clips of another collection to compare with: MSR-VTT's form, held-out clips alone."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from tests.preparation.video_files import write_video
from tests.small_clips import FRAMES, clip_config, prepare_clips
from tests.test_prepare import make_spec
from tests.tiny import tiny_config
from tpdiff_jax.data import VideoRecordsSpec
from tpdiff_jax.evals.video_statistics import statistics_distance, video_statistics
from tpdiff_jax.evaluate import choose_measures
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.files.media import to_uint8
from tpdiff_jax.measures.real_clips import open_real_clips
from tpdiff_jax.prepare import prepare

NUM_VALIDATION = 6


@pytest.fixture(scope="module")
def trained_on(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return prepare_clips(tmp_path_factory.mktemp("own"), "pixels")


@pytest.fixture(scope="module")
def msr_vtt(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """MSR-VTT's annotations with the validation videos alone on the disk."""
    folder = tmp_path_factory.mktemp("msr_vtt")
    for i in range(NUM_VALIDATION):
        write_video(folder / f"video{6513 + i}.mp4", 30 + 9 * i)
    splits = {"train": range(3), "validate": range(6513, 6513 + NUM_VALIDATION)}
    videos = [
        {"video_id": f"video{n}", "split": split, "category": 3}
        for split, numbers in splits.items()
        for n in numbers
    ]
    sentences = [
        {"video_id": video["video_id"], "sen_id": 20 * i + j, "caption": f"stripes, said {j}"}
        for i, video in enumerate(videos)
        for j in range(3)
    ]
    (folder / "train_val_videodatainfo.json").write_text(
        json.dumps({"info": {}, "videos": videos, "sentences": sentences})
    )
    return folder


def prepared(folder: pathlib.Path, out: pathlib.Path, **fields: Any) -> pathlib.Path:
    table, size = str(folder / "train_val_videodatainfo.json"), {"height": 16, "width": 16}
    given = {**size, "num_frames": FRAMES, "table": table, "missing_files": "leave_out"}
    prepare(make_spec(folder, **{**given, **fields}), out)
    return out


def test_figures_are_those_of_the_named_clips(
    trained_on: pathlib.Path, msr_vtt: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    clips = prepared(msr_vtt, tmp_path / "clips")
    with pytest.raises(ValueError, match="holds no training clip"):
        VideoRecordsSpec(folder=str(clips))
    config = clip_config(trained_on, "pixels", eval__num_videos=3)
    config.measure = {"real_clips": str(clips)}
    measures = choose_measures(build_experiment(config))
    assert measures.num_videos == 3
    generated = np.random.default_rng(0).normal(size=(3, FRAMES, 16, 16, 3)).astype(np.float32)
    result = measures(generated)

    there = VideoRecordsSpec(folder=str(clips), is_for_training=False)
    held_out = np.stack([there.clip("test", 0, i)["video"] for i in range(3)])
    real, made = (video_statistics(to_uint8(video)) for video in (held_out, generated))
    assert result["metrics"]["statistics"] == statistics_distance(made, real, real)
    assert result["measurement"]["data_manifest_sha256"] == there.manifest.fingerprint
    assert not any("TRAINING" in note for note in measures.notes)


def test_clips_of_another_kind_are_refused(
    trained_on: pathlib.Path, msr_vtt: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    own = VideoRecordsSpec(folder=str(trained_on))
    for what, fields in {
        "num_frames": {"num_frames": FRAMES + 1},
        "frame_shape": {"width": 24},
        "fps": {"fps": 3.0},
    }.items():
        other = prepared(msr_vtt, tmp_path / what, **fields)
        with pytest.raises(ValueError, match=rf"measure\.real_clips=.*: its clips have {what} "):
            open_real_clips(str(other), own)
    latents = prepare_clips(tmp_path / "latents", "latents")
    with pytest.raises(ValueError, match=r"measure\.real_clips=.*: its clips have"):
        open_real_clips(str(latents), own)


def test_what_cannot_be_compared_is_refused_by_name(tmp_path: pathlib.Path) -> None:
    digits = tiny_config().unlock()
    digits.measure = {"real_clips": "nowhere"}
    with pytest.raises(ValueError, match=r"measure\.real_clips='nowhere' is not a folder"):
        build_experiment(digits)
    digits.measure = {"real_clips": str(tmp_path)}
    with pytest.raises(ValueError, match="digits are measured by their own physics"):
        choose_measures(build_experiment(digits))
    with pytest.raises(ValueError, match=r"measure\.real_clips=.*manifest"):
        open_real_clips(str(tmp_path), VideoRecordsSpec.__new__(VideoRecordsSpec))
