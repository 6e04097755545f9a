"""Text-conditioned networks in pyramids that pool latents in space: what trains, what is refused.

Latents of a causal autoencoder are one frame and four more; their lengths are 2, 3 and 5.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import animatediff
from tests.tiny import set_field
from tpdiff_jax import method
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.models import Flux, FluxConfig
from tpdiff_jax.train_state import TrainTask, state_of_params
from tpdiff_jax.train_step import draw, stage_loss, train_step
from tpdiff_jax.training.initial_state import abstract_train_state

BATCH, STRIDES = 4, ((4, 4, 4), (2, 2, 2), (1, 1, 1))
FLUX = Flux(
    FluxConfig(
        channels=4, patch_size=2, num_heads=2, num_double_blocks=1, num_single_blocks=1,
        rope_dims=(4, 2, 2), text_dim=8, num_text_tokens=3, pooled_dim=8, is_causal=True,
    )
)  # fmt: skip
NUM_ROUNDS = 40


def clips_of_latents():
    """Smooth latents, so that the coarse stages have something of them, with their text."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((BATCH, 1, 1, 1, 4))
    video = means + 0.1 * rng.standard_normal((BATCH, 5, 8, 8, 4))
    cond = {
        "text": rng.standard_normal((BATCH, 3, 8)),
        "text_mask": np.tile([1, 1, 0], (BATCH, 1)),
        "pooled": rng.standard_normal((BATCH, 8)),
    }
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"video": video, "cond": cond})


@pytest.mark.slow
def test_flux_learns_in_every_stage_of_a_pyramid_over_time_and_space():
    schedule = optax.constant_schedule(3e-3)
    pyramid = method.make_pyramid(
        method.FlowPath(),
        shape=(5, 8, 8),
        strides=STRIDES,
        downsample=("stride", "mean", "mean"),
        upsample=("nearest_next", "nearest", "nearest"),
    )
    assert [stage.shape for stage in pyramid.stages] == [(2, 2, 2), (3, 4, 4), (5, 8, 8)]
    task = TrainTask(
        pyramid=pyramid,
        alignment=method.AlignmentSpec(mode="nearest", group_size=BATCH),
        apply=FLUX.apply,
        null_cond=FLUX.null_cond,
        optimizer=optax.adam(schedule),
        schedule=schedule,
        ema_decay=0.99,
        cond_dropout=0.0,
    )
    batch, key, stages = clips_of_latents(), jax.random.key(0), range(3)
    steps = [jax.jit(functools.partial(train_step, task, stage)) for stage in stages]

    def loss(stage, params):
        draws = draw(task, stage, BATCH, jax.random.key(7))
        return stage_loss(task, stage, params, batch, draws)[0]

    losses = [jax.jit(functools.partial(loss, stage)) for stage in stages]
    state = jax.jit(lambda key: state_of_params(task, FLUX.init(key), key))(key)
    before = [float(one(state.params)) for one in losses]
    for _ in range(NUM_ROUNDS):
        for step in steps:
            state, metrics = step(state, batch, key)
            assert float(metrics["is_skipped"]) == 0.0
    for stage in stages:
        assert float(losses[stage](state.params)) < 0.7 * before[stage], stage


def animatediff_config(strides):
    """configs/animatediff.py with a small network of two levels."""
    config = animatediff.get_config()
    for name, value in {
        "model.level_channels": (8, 16),
        "model.level_depth": 1,
        "model.num_heads": 2,
        "model.num_groups": 4,
        "model.text_dim": 8,
        "model.num_text_tokens": 3,
        "model.weights": "",
        "adaptation.trained": "",
        "pyramid.frame_strides": (),
        "pyramid.strides": strides,
        "alignment.group_size": BATCH,
        "train.batch_size": BATCH,
        "sample.batch_size": BATCH,
        "eval.batch_size": BATCH,
    }.items():
        set_field(config, name, value)
    return config


@pytest.mark.parametrize(
    "strides", [((1, 4, 4), (1, 2, 2), (1, 1, 1)), ((2, 4, 4), (1, 2, 2), (1, 1, 1))]
)
def test_animatediff_takes_every_stage_whose_sides_its_levels_can_halve(strides):
    experiment = build_experiment(animatediff_config(strides), frame_shape=(4, 16, 16, 4))
    shapes = [(4 // time, 16 // height, 16 // width) for time, height, width in strides]
    assert [program.stage_shape for program in experiment.programs] == shapes
    state = abstract_train_state(experiment)
    clips = {
        "video": jax.ShapeDtypeStruct((BATCH, 4, 16, 16, 4), jnp.float32),
        "cond": {
            "label": jax.ShapeDtypeStruct((BATCH, 0), jnp.int32),
            "text": jax.ShapeDtypeStruct((BATCH, 3, 8), jnp.float16),
        },
    }
    for program in experiment.programs:
        step = functools.partial(train_step, program.task, program.stage)
        new, _ = jax.eval_shape(step, state, clips, jax.random.key(0))
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
        assert program.train_flops == 3.0 * BATCH * experiment.network.flops(program.stage_shape)
    assert len({program.train_flops for program in experiment.programs}) == len(shapes)


def test_animatediff_refuses_a_stage_that_is_too_small_before_anything_compiles():
    config = animatediff_config(((1, 4, 4), (1, 2, 2), (1, 1, 1)))
    with pytest.raises(
        ValueError,
        match=r"model\.level_channels=\(8, 16\) needs frames of a height that is a multiple of 2, "
        r"the data's have 1 in the stage of strides \(1, 4, 4\) of pyramid\.strides",
    ):
        build_experiment(config, frame_shape=(4, 4, 4, 4))
