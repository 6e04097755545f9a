"""From video files and captions to samples of a trained network."""

import json
import pathlib
from typing import Any

import pytest

from configs import video_folder
from tests.preparation.video_files import write_video
from tests.test_prepare import make_spec
from tests.tiny import SIZES, set_field
from tpdiff_jax.evaluate import evaluate_run
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, open_run
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.prepare import prepare
from tpdiff_jax.sample import sample_run
from tpdiff_jax.train import train

OVERRIDES: dict[str, Any] = {
    **{name: value for name, value in SIZES.items() if not name.startswith("data.")},
    "data.horizontal_flip": True,
    "train.num_steps": 2,
    "train.batch_size": 4,
    "train.eval_every_steps": 1,
    "alignment.group_size": 4,
    "sample.batch_size": 2,
}


@pytest.mark.slow
def test_prepare_train_and_sample_end_to_end(tmp_path: pathlib.Path) -> None:
    videos, clips, workdir = tmp_path / "videos", tmp_path / "clips", tmp_path / "run"
    videos.mkdir()
    for i in range(6):
        write_video(videos / f"{i}.mp4", 40)
        (videos / f"{i}.txt").write_text(f"stripes that count from {i}")
    (videos / "broken.mp4").write_bytes(b"\0" * 99)
    prepare(make_spec(videos), clips)

    config = video_folder.get_config()
    for name, value in (OVERRIDES | {"data.folder": str(clips)}).items():
        set_field(config, name, value)
    train(build_experiment(config), workdir)
    results = json.loads((workdir / "results.json").read_text())
    assert results["counts"]["steps"] == 2 and set(results["metrics"]) == {"statistics"}
    assert set(results["references"]) == {"ceiling", "frozen", "shuffled"}
    assert results["measurement"]["clips_in_every_set"] == results["counts"]["eval_videos"] >= 2
    page = (workdir / "report.html").read_text()
    assert "Measurement" in page and "6 of 6 clips" in page
    assert results["data"] == {"train_clips": 6, "test_clips": 0, "captions": "6 of 6 clips"}
    assert "TRAINING clips" in results["notes"][0] and "TRAINING clips" in page
    assert (workdir / "samples" / "0000.mp4").is_file()
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if line.get("loss", 0) > 0] == [2]
    assert [line["step"] for line in metrics if "eval/statistics" in line] == [1, 2]

    run = open_run(workdir)
    sample_run(run, SampleFlags(), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"0000.mp4", "0001.mp4", "grid.gif"}
    evaluation = json.loads(evaluate_run(run, tmp_path).read_text())
    assert evaluation["metrics"] == results["metrics"]
    with pytest.raises(ValueError, match="measure.fvd_weights='nowhere' is not a file"):
        open_run(workdir, overrides=GenerateFlags(fvd_weights="nowhere"))
    with pytest.raises(ValueError, match="--caption"):
        sample_run(run, SampleFlags(captions=["a cat"]), None)
    with pytest.raises(ValueError, match="--labels"):
        sample_run(run, SampleFlags(labels=["3"]), None)
