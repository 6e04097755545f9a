"""From published weights through a step of training back to published weights."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from ml_collections import ConfigDict

from configs import animatediff
from tests.models.animatediff.animatediff_reference import (
    CONFIG,
    HEIGHT,
    WIDTH,
    make_inputs,
    make_reference,
    to_params,
)
from tests.tiny import set_field, tiny_config
from tpdiff_jax import export
from tpdiff_jax.experiment.build import Experiment, build_experiment
from tpdiff_jax.export import export_run
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.models.animatediff.weights import save_animatediff
from tpdiff_jax.models.published import PUBLISHED
from tpdiff_jax.train_state import averaged_params
from tpdiff_jax.training.initial_state import abstract_train_state, make_state
from tpdiff_jax.training.step_programs import compile_steps

FRAME_SHAPE = (2, HEIGHT, WIDTH, CONFIG.channels)
BATCH = 2
LOW_RANK = {"trained": ".*/attention_./(q|k|v|out)/kernel", "rank": 2, "alpha": 2.0}


def tiny_animatediff(weights: pathlib.Path, **adaptation: Any) -> ConfigDict:
    """Return configs/animatediff.py at the size of the reference, vanilla, one step large."""
    config = animatediff.get_config()
    for field in dataclasses.fields(CONFIG):
        if field.name != "channels":
            set_field(config, f"model.{field.name}", getattr(CONFIG, field.name))
    set_field(config, "model.weights", str(weights))
    for name in ("pyramid.frame_strides", "alignment.mode", "optim.warmup_steps"):
        value = {"pyramid.frame_strides": (1,), "alignment.mode": "none"}.get(name, 0)
        set_field(config, name, value)
    for group in ("train", "sample", "eval"):
        set_field(config, f"{group}.batch_size", BATCH)
    for name, value in adaptation.items():
        set_field(config, f"adaptation.{name}", value)
    return config


def after_a_step(experiment: Experiment) -> Any:
    """Return the state after one step."""
    key = jax.random.key(0)
    state = make_state(experiment, key)
    (step,) = compile_steps(experiment, abstract_train_state(experiment), key)
    x, _, cond = make_inputs(FRAME_SHAPE[0])
    text = cond["text"].astype(np.float16)
    labels = np.zeros((BATCH, 0), np.int32)
    return step(state, {"video": x, "cond": {"label": labels, "text": text}}, key)[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder as diffusers would have written it."""
    folder = tmp_path_factory.mktemp("weights")
    save_animatediff(folder, to_params(make_reference().state_dict()), CONFIG)
    return folder


def exported(
    experiment: Experiment, state: Any, workdir: pathlib.Path
) -> dict[str, dict[str, np.ndarray]]:
    """Export a state and open it with diffusers: tensors of the U-Net and of the motion modules."""
    run = OpenedRun(workdir, 1, experiment, averaged_params(experiment.task, state))
    folder = export_run(run, None, "float32")
    assert folder == workdir / "export" / "step_00000001"
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    adapter = MotionAdapter.from_pretrained(folder / "motion_adapter")
    UNetMotionModel.from_unet2d(unet, adapter)
    return {
        part: {name: t.numpy() for name, t in model.state_dict().items()}
        for part, model in (("unet", unet), ("motion", adapter))
    }


def test_motion_modules_move_and_stable_diffusion_comes_out_bit_for_bit(
    weights: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    experiment = build_experiment(tiny_animatediff(weights), frame_shape=FRAME_SHAPE)
    tensors = exported(experiment, after_a_step(experiment), tmp_path)
    before = make_reference().state_dict()
    for name, tensor in tensors["unet"].items():
        np.testing.assert_array_equal(tensor, before[name].numpy(), name)
    for name, tensor in tensors["motion"].items():
        is_table = name.endswith("pos_embed.pe")
        moved = np.abs(tensor - before[name].numpy()).max()
        assert (moved < 5e-6) if is_table else (0.0 < moved < 1e-3), name


@pytest.mark.slow
def test_low_rank_changes_are_merged_into_the_matrices_they_change(
    weights: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    experiment = build_experiment(tiny_animatediff(weights, **LOW_RANK), frame_shape=FRAME_SHAPE)
    state = after_a_step(experiment)
    tensors = exported(experiment, state, tmp_path)
    before = make_reference().state_dict()
    for name, tensor in (tensors["unet"] | tensors["motion"]).items():
        is_changed = name.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight"))
        is_changed |= name.endswith(".to_out.0.weight")
        if not name.endswith("pos_embed.pe"):
            assert (np.abs(tensor - before[name].numpy()).max() > 0.0) == is_changed, name


def test_networks_and_layouts_without_published_weights_are_refused(
    weights: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = build_experiment(tiny_config())
    monkeypatch.setattr(export, "PUBLISHED", {"flux": PUBLISHED["flux"]})  # of a network to come
    with pytest.raises(ValueError, match="model.name='video_dit' has no published weights"):
        export_run(OpenedRun(tmp_path, 1, digits, {}), None, "float32")
    monkeypatch.undo()
    published = build_experiment(tiny_animatediff(weights), frame_shape=FRAME_SHAPE)
    with pytest.raises(
        ValueError, match="--layout is 'peft'; allowed: 'separate', 'combined', 'orig"
    ):
        export_run(OpenedRun(tmp_path, 1, published, {}), "peft", "float32")


def test_a_pattern_or_weights_that_do_not_fit_are_refused_before_training(
    weights: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ValueError, match="adaptation.trained='no such' matches the path of no"):
        build_experiment(tiny_animatediff(weights, trained="no such"), frame_shape=FRAME_SHAPE)
    empty = build_experiment(tiny_animatediff(tmp_path), frame_shape=FRAME_SHAPE)
    with pytest.raises(ValueError, match="model.weights: .*unet holds no .safetensors file"):
        make_state(empty, jax.random.key(0))
