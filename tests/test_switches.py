"""Every switch of training, once on every kind of clips: pixels, captioned latents, TFDS, buckets.

Moving Digits alone would not do: their label is [b, 1], that of clips [b, 0].
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.forced_devices import last_line_on
from tests.small_clips import KINDS, clip_config
from tpdiff_jax import replay, train
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.optim.guard import TooManyBadSteps
from tpdiff_jax.run_log.json_lines import read_metrics
from tpdiff_jax.training.batches import iterate_batches
from tpdiff_jax.training.initial_state import abstract_train_state, make_state, run_keys
from tpdiff_jax.training.step_programs import compile_step, compile_steps

Folders = dict[str, pathlib.Path]
SWITCHES: dict[str, Any] = {
    "pyramid__frame_strides": (2, 1),
    "train__batch_per_stage": "tokens",
    "train__grad_accum_steps": 2,
    "adaptation__rank": 2,
    "guard__max_bad_steps": 1,
    "sample__num_steps": 2,
}


@pytest.fixture(scope="module", autouse=True)
def one_compilation_a_config() -> Iterator[None]:
    """Compile once for a run, its bad twin and its replay; final figures are another program."""
    compiled: dict[str, Any] = {}

    def compile_once(experiment: Experiment, *args: Any) -> Any:
        key = str(experiment.config)
        if key not in compiled:
            compiled[key] = compile_steps(experiment, *args)
        return compiled[key]

    with pytest.MonkeyPatch.context() as patch:
        for module in (train, replay):
            patch.setattr(module, "compile_steps", compile_once)
        patch.setattr(train.Milestones, "finish", lambda *_: True)
        yield


def first_step(experiment: Experiment) -> dict[str, float]:
    """Return what step 1 gives."""
    key_init, key_steps = run_keys(0)
    program = experiment.programs[experiment.program_of_step(0)]
    function = compile_step(program, abstract_train_state(experiment), key_steps)
    batch = next(iterate_batches(experiment, 0))
    _, metrics = function(make_state(experiment, key_init), batch, key_steps)
    return {name: float(metrics[name]) for name in ("loss", "grad_norm")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_is_that_of_the_whole_batch_however_it_is_cut(
    kind: str, small_clips: Folders
) -> None:
    """Groups of two: four parts of two clips pair the noise as one part of eight does."""
    whole, cut = (
        first_step(
            build_experiment(
                clip_config(
                    small_clips[kind], kind, train__grad_accum_steps=n, alignment__group_size=2
                )
            )
        )
        for n in (1, 4)
    )
    assert whole["loss"] > 0 and whole["grad_norm"] > 0
    assert cut == pytest.approx(whole, rel=2e-6)


def build(folders: Folders, kind: str) -> Experiment:
    return build_experiment(clip_config(folders[kind], kind, **SWITCHES))


@pytest.mark.parametrize("kind", (*KINDS, "buckets"))
def test_a_run_with_every_switch_ends_and_a_step_of_it_replays(
    kind: str, small_clips: Folders, tmp_path: pathlib.Path
) -> None:
    train.train(build(small_clips, kind), tmp_path)
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["step_loss"]) and line["skipped_steps"] == 0 for line in lines)
    assert replay.replay(tmp_path, 2)


@pytest.mark.parametrize("kind", (*KINDS, "buckets"))
def test_bad_steps_leave_their_bundle(
    kind: str, small_clips: Folders, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(experiment: Experiment, first_step: int) -> Iterator[Any]:
        for batch in iterate_batches(experiment, first_step):
            yield batch | {"video": batch["video"] * np.nan}

    monkeypatch.setattr(train, "iterate_batches", poisoned)
    experiment = build(small_clips, kind)
    with pytest.raises(TooManyBadSteps):
        train.train(experiment, tmp_path)
    program = experiment.programs[experiment.program_of_step(0)]
    size = 8 * (2, 1)[program.stage]  # tokens: half the frames, twice the clips
    (folder,) = (tmp_path / "bad_steps").iterdir()
    (step,) = json.loads((folder / "bad_steps.json").read_text())["steps"]
    assert (step["stage"], step["bucket"]) == (program.stage, program.clips.bucket)
    assert step["clips"][1] - step["clips"][0] == size - 1
    with np.load(folder / "batch_0.npz", allow_pickle=False) as arrays:
        assert arrays["cond.label"].shape == (size, 0) and np.isnan(arrays["video"]).all()
        text = {"cond.text", "cond.text_mask", "cond.pooled"} if kind == "latents" else set()
        assert set(arrays) == {"video", "cond.label"} | text


MESHES = """
import json, math, pathlib, sys
import jax
from tests.small_clips import clip_config
from tests.test_switches import first_step
from tpdiff_jax.experiment.build import build_experiment

folders = json.loads(sys.argv[1])
sizes = [dict(data=1), dict(data=2, fsdp=2), dict(data=1, context=2, tensor=2)]
for kind, folder in folders.items():
    losses = []
    for mesh in sizes:
        fields = {f"mesh__{axis}": size for axis, size in mesh.items()}
        if kind == "latents":
            fields["model__num_heads"] = 2
        config = clip_config(
            pathlib.Path(folder), kind, train__grad_accum_steps=2, sample__batch_size=4,
            eval__batch_size=4, **fields
        )
        experiment = build_experiment(config, jax.devices()[: math.prod(mesh.values())])
        losses.append(first_step(experiment)["loss"])
    # A sum over the one clip that a device holds in a part is rounded in another order: 3.5e-6.
    for mesh, loss in zip(sizes, losses, strict=True):
        assert abs(loss - losses[0]) <= 1e-5 * losses[0], (kind, mesh, loss, losses[0])
print("equal")
"""


@pytest.mark.slow
def test_every_axis_of_the_mesh_gives_the_loss_of_one_device(small_clips: Folders) -> None:
    folders = json.dumps({kind: str(folder) for kind, folder in small_clips.items()})
    assert last_line_on(4, MESHES, folders) == "equal"
