"""Tiny text-conditioned networks learn through the pyramid's train step and listen to their text.

Text embeddings are fixed random vectors, one a label, as a frozen text encoder would give them.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tpdiff_jax import method
from tpdiff_jax.models import (
    AnimateDiff,
    AnimateDiffConfig,
    Flux,
    FluxConfig,
    ModelScope,
    ModelScopeConfig,
    OpenSora,
    OpenSoraConfig,
    Wan,
    WanConfig,
)
from tpdiff_jax.train_state import TrainTask, state_of_params
from tpdiff_jax.train_step import draw, stage_loss, train_step

NUM_LABELS, BATCH, FRAMES = 4, 16, 5
FLUX = FluxConfig(
    channels=4, patch_size=2, num_heads=2, num_double_blocks=1, num_single_blocks=1,
    rope_dims=(4, 2, 2), text_dim=8, num_text_tokens=3, pooled_dim=8,
)  # fmt: skip
ANIMATEDIFF = AnimateDiffConfig(
    channels=4, level_channels=(16,), level_depth=1, num_heads=2, num_groups=4,
    text_dim=8, num_text_tokens=3,
)  # fmt: skip
MODELSCOPE = ModelScopeConfig(
    channels=4, level_channels=(16,), level_depth=1, head_dim=8, num_groups=4,
    text_dim=8, num_text_tokens=3, implicit_rate=True,
)  # fmt: skip
WAN = WanConfig(
    channels=4, patch_size=2, num_heads=2, head_dim=8, depth=2, feed_forward_dim=32,
    text_dim=8, num_text_tokens=3,
)  # fmt: skip
OPEN_SORA = OpenSoraConfig(
    channels=4, patch_size=2, hidden_size=16, num_heads=2, depth=1, mlp_ratio=2.0, text_dim=8,
    num_text_tokens=3,
)  # fmt: skip
NETWORKS = {
    "flux": Flux(FLUX),
    "animatediff": AnimateDiff(ANIMATEDIFF),
    "modelscope": ModelScope(MODELSCOPE),
    "open_sora": OpenSora(OPEN_SORA),
    "wan": Wan(WAN),
}
NUM_STEPS = 150
LABELS = np.arange(BATCH) % NUM_LABELS


def batch_of(labels, text_labels=None):
    """Videos that their labels fix, and the text that belongs to `text_labels`."""
    rng = np.random.default_rng(0)
    videos = rng.standard_normal((NUM_LABELS, FRAMES, 2, 2, 4)).astype(np.float32)
    text = rng.standard_normal((NUM_LABELS, 3, 8)).astype(np.float32)
    pooled = rng.standard_normal((NUM_LABELS, 8)).astype(np.float32)
    said = labels if text_labels is None else text_labels
    mask = np.tile(np.array([1, 1, 0], np.int32), (len(labels), 1))
    cond = {"text": text[said], "text_mask": mask, "pooled": pooled[said]}
    return {"video": jnp.asarray(videos[labels]), "cond": jax.tree.map(jnp.asarray, cond)}


class Trained(NamedTuple):
    """Parameters before and after training over both stages of a pyramid, and how to judge them."""

    start: Any
    end: Any
    loss_of_stage: list[Any]


@pytest.fixture(
    scope="module",
    params=[
        "flux",
        pytest.param("animatediff", marks=pytest.mark.slow),
        pytest.param("modelscope", marks=pytest.mark.slow),
        "open_sora",
        "wan",
    ],
)
def trained(request):
    network, schedule = NETWORKS[request.param], optax.constant_schedule(3e-3)
    task = TrainTask(
        pyramid=method.make_pyramid(
            method.FlowPath(), shape=(FRAMES, 2, 2), strides=(2, 1), upsample="nearest_next"
        ),
        alignment=method.AlignmentSpec(mode="none"),
        apply=network.apply,
        null_cond=network.null_cond,
        optimizer=optax.adam(schedule),
        schedule=schedule,
        ema_decay=0.99,
        cond_dropout=0.1,
    )
    key = jax.random.key(0)
    steps = [jax.jit(functools.partial(train_step, task, stage)) for stage in range(2)]
    state = jax.jit(lambda key: state_of_params(task, network.init(key), key))(key)
    start = state.params
    for i in range(NUM_STEPS):
        labels = np.random.default_rng(i).integers(NUM_LABELS, size=BATCH)
        state, metrics = steps[i % 2](state, batch_of(labels), key)
        assert float(metrics["is_skipped"]) == 0.0
    with_text = task._replace(cond_dropout=0.0)

    def loss(stage, params, batch, key):
        return stage_loss(with_text, stage, params, batch, draw(with_text, stage, BATCH, key))

    losses = [jax.jit(functools.partial(loss, stage)) for stage in range(2)]
    return Trained(start, state.params, losses)


def loss_of(trained, stage, params, batch):
    return float(trained.loss_of_stage[stage](params, batch, jax.random.key(7))[0])


@pytest.mark.parametrize("stage", [0, 1])
def test_the_loss_falls_in_every_stage(trained, stage):
    batch = batch_of(LABELS)
    before = loss_of(trained, stage, trained.start, batch)
    assert loss_of(trained, stage, trained.end, batch) < 0.7 * before


def test_the_wrong_text_costs_more_than_the_right_one(trained):
    right, wrong = batch_of(LABELS), batch_of(LABELS, (LABELS + 1) % NUM_LABELS)
    assert loss_of(trained, 1, trained.end, wrong) > 1.2 * loss_of(trained, 1, trained.end, right)
