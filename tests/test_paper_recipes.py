"""The recipes of docs/paper_tables.md on small files: OpenVid-1M's table, MSR-VTT's annotations."""

import csv
import json
import pathlib

import numpy as np
import pytest

from tests.measures.test_real_clips import NUM_VALIDATION, msr_vtt
from tests.preparation.video_files import write_video
from tests.small_clips import FRAMES, clip_config
from tests.test_latent_run import command
from tpdiff_jax.data import VideoRecordsSpec
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.train import train

__all__ = ["msr_vtt"]  # the fixture
OPENVID_COLUMNS = (
    *("video", "caption", "aesthetic score", "motion score", "temporal consistency score"),
    *("camera motion", "frame", "fps", "seconds"),
)
SHAPE = {"num_frames": FRAMES, "height": 16, "width": 16, "fps": 6, "num_workers": 0}


def write_openvid(folder: pathlib.Path, num_rows: int) -> pathlib.Path:
    """Write a table whose scores rise and fall, with every second video on the disk."""
    (folder / "video").mkdir(parents=True)
    path = folder / "OpenVid-1M.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(OPENVID_COLUMNS)
        for i in range(num_rows):
            scores = [round(4 + 0.01 * i, 3), round(10 - 0.02 * i, 3) if i < 90 else 50.0, 0.99]
            writer.writerow([f"{i:03d}.mp4", f"stripes, take {i}", *scores, "pan", 72, 24.0, 3.0])
            if i % 2 == 0:
                write_video(folder / "video" / f"{i:03d}.mp4", 30)
    return path


@pytest.mark.slow
def test_openvid_is_curated_and_runs_on_it_are_measured_on_msr_vtt(
    msr_vtt: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    table = write_openvid(tmp_path / "openvid", 100)
    clips, real, run = tmp_path / "clips", tmp_path / "real", tmp_path / "run"
    flags = {"config": "configs/prepare.py", "config.prepare.missing_files": "leave_out"}
    flags |= {f"config.prepare.{name}": str(value) for name, value in SHAPE.items()}
    command(
        "prepare", workdir=clips, **flags, **{"config.prepare.test_share": 0},
        **{"config.prepare.source": table.parent / "video", "config.prepare.table": table},
        **{"config.prepare.curation": "paper"},
    )  # fmt: skip
    # Of the 50 on the disk, aesthetics are best in the last 10, motion in the last 5 and first 5.
    names = {VideoRecordsSpec(folder=str(clips)).clip("train", 0, i)["name"] for i in range(5)}
    taken = {name.split("/")[-1].split(".")[0] for name in names}
    assert taken <= {f"{i:03d}" for i in range(90, 100, 2)} and len(taken) == 5

    command(
        "prepare", workdir=real, **flags, **{"config.prepare.source": msr_vtt},
        **{"config.prepare.table": msr_vtt / "train_val_videodatainfo.json"},
    )  # fmt: skip
    there = VideoRecordsSpec(folder=str(real), is_for_training=False)
    assert (there.num_clips("train"), there.num_clips("test")) == (0, NUM_VALIDATION)

    train(build_experiment(clip_config(clips, "pixels", train__batch_size=4)), run)
    command("evaluate", workdir=run, num_videos=3, real_clips=real)
    evaluation = json.loads((run / "evaluation_00000002.json").read_text())
    assert np.isfinite(evaluation["metrics"]["statistics"])
    assert evaluation["measurement"]["clips_in_every_set"] == 3
    assert evaluation["measurement"]["data_manifest_sha256"] == there.manifest.fingerprint
