"""Pyramids that pool space, alone or with time: a run of one is a run like any other.

The clips are 8 frames of 32x32. The coarsest stage of either pyramid is 8x8, of 8 frames or of 2.
"""

import json
import pathlib
import re
from typing import Any, NamedTuple

import av
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.test_train import (
    Crash,
    assert_same_state,
    crash_after,
    final_state,
    run_to_end,
    shared_compilation,  # noqa: F401
    train_lines,
    untimed,
)
from tests.tiny import tiny_config
from tpdiff_jax import train
from tpdiff_jax.data.requests import cycle_labels
from tpdiff_jax.data.step_schedule import stage_of_step
from tpdiff_jax.evaluate import evaluate_run
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.generation.from_checkpoint import open_run
from tpdiff_jax.generation.prompts import SampleFlags
from tpdiff_jax.generation.sampler import Sampler
from tpdiff_jax.run_folder import run_config
from tpdiff_jax.sample import sample_run

pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """A pyramid, and what must come of it."""

    strides: tuple[tuple[int, int, int], ...]
    shapes: list[list[int]]
    batch_sizes: tuple[int, int, int]
    fields: dict[str, Any]


CASES = {
    "space": Case(
        strides=((1, 4, 4), (1, 2, 2), (1, 1, 1)),
        shapes=[[8, 8, 8], [8, 16, 16], [8, 32, 32]],
        batch_sizes=(8, 8, 8),
        fields={},
    ),
    "space_and_time": Case(
        strides=((4, 4, 4), (2, 2, 2), (1, 1, 1)),
        shapes=[[2, 8, 8], [4, 16, 16], [8, 32, 32]],
        batch_sizes=(2 * 64, 2 * 8, 2),
        fields={
            "train__batch_per_stage": "tokens",
            "train__batch_size": 2,
            "alignment__group_size": 2,
        },
    ),
}


class Finished(NamedTuple):
    """An undisturbed run of a case."""

    case: Case
    config: ConfigDict
    workdir: pathlib.Path


@pytest.fixture(scope="module", params=CASES)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    case = CASES[request.param]
    fields = {"pyramid__strides": case.strides, "model__patch_size": 4, **case.fields}
    config, workdir = tiny_config(**fields), tmp_path_factory.mktemp(request.param)
    train.train(build_experiment(config), workdir)
    return Finished(case, config, workdir)


def test_every_stage_trains_on_the_clips_that_its_strides_allow(finished: Finished) -> None:
    experiment = build_experiment(finished.config)
    assert experiment.batch_sizes == finished.case.batch_sizes
    lines = train_lines(finished.workdir)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(np.isfinite(line["loss"]) and line["skipped_steps"] == 0 for line in lines)
    stages = [stage_of_step(0, step, experiment.train.stage_probs) for step in range(6)]
    assert set(stages) == {0, 1, 2}
    flops = [program.train_flops for program in experiment.programs]
    assert lines[-1]["train_flops"] == pytest.approx(sum(flops[i] for i in stages))
    assert lines[-1]["samples_seen"] == sum(finished.case.batch_sizes[i] for i in stages)


def test_an_interrupted_run_equals_an_uninterrupted_one_bit_for_bit(
    finished: Finished, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "iterate_batches", crash_after(4))
    with pytest.raises(Crash):
        train.train(build_experiment(finished.config), tmp_path)
    monkeypatch.undo()
    resumed = run_to_end(finished.config, tmp_path)
    assert resumed.step == 6
    assert_same_state(resumed.state, final_state(finished.config, finished.workdir).state)
    assert untimed(train_lines(tmp_path)) == untimed(train_lines(finished.workdir))


def test_another_pyramid_is_refused_by_the_field_that_gives_it(finished: Finished) -> None:
    saved = run_config.load_config(finished.workdir)
    assert (saved.pyramid.strides, saved.pyramid.frame_strides) == (finished.case.strides, ())
    for field, value in (("strides", (4, 2, 1)), ("frame_strides", (4, 2, 1))):
        other = finished.config.copy_and_resolve_references()
        other.pyramid[field] = value
        message = f"pyramid.{field}: saved {saved.pyramid[field]!r}, now (4, 2, 1)"
        with pytest.raises(run_config.ConfigMismatchError, match=re.escape(message)):
            train.train(build_experiment(other), finished.workdir)


def test_videos_of_the_full_length_and_size_come_from_the_checkpoint_and_are_measured(
    finished: Finished, tmp_path: pathlib.Path
) -> None:
    run = open_run(finished.workdir)
    folder = sample_run(run, SampleFlags(labels=["7"]), tmp_path)
    with av.open(str(folder / "0000_label_7.mp4")) as container:
        assert len(list(container.decode(video=0))) == 8
    sampler = Sampler(run.experiment)
    videos = sampler(run.params, {"label": cycle_labels(2, 1, 10)}, seed=3, batch_size=2)
    assert videos.shape == (2, 8, 32, 32, 1) and np.all(np.isfinite(videos))
    results = json.loads((finished.workdir / "results.json").read_text())
    evaluation = json.loads(evaluate_run(run, tmp_path).read_text())
    assert evaluation["metrics"] == results["metrics"] and "label_accuracy" in results["metrics"]


def test_results_and_report_show_the_strides_and_shapes_of_stages(finished: Finished) -> None:
    stages = json.loads((finished.workdir / "results.json").read_text())["stages"]
    strides = [list(triple) for triple in finished.case.strides]
    assert [stage["strides"] for stage in stages] == strides
    assert [stage["shape"] for stage in stages] == finished.case.shapes
    page = (finished.workdir / "report.html").read_text()
    rows = re.findall(r"<tr><th scope=\"row\"><span.*?</tr>", page, re.DOTALL)
    shown = [re.findall(r"<td>(.*?)</td>", row)[:2] for row in rows[: len(stages)]]
    assert shown == [
        [" x ".join(map(str, stride)), " x ".join(map(str, shape))]
        for stride, shape in zip(strides, finished.case.shapes, strict=True)
    ]
    pyramid = ", ".join(" x ".join(map(str, stride)) for stride in strides)
    assert f"temporal pyramid {pyramid}" in page
