"""What the pyramid and low-rank training save of Wan2.1-T2V-1.3B's products, by traced programs."""

import jax
import pytest

from bench.low_rank import forward_flops, loss_flops
from configs import wan_t2v
from tests.tiny import set_field
from tpdiff_jax.experiment.build import build_experiment

FRAMES, SIDES = 21, (60, 104, 16)
STAGE_FRAMES = [6, 11, 21]


def experiment_of(frame_shape, **fields):
    config = wan_t2v.get_config()
    fixed = {
        "mesh.fsdp": 1,
        "alignment.mode": "none",
        "model.remat": "none",
        "model.depth": 2,
        "model.attention_kernel": "xla",
    }
    for name, value in (fixed | fields).items():
        set_field(config, name, value)
    return build_experiment(config, frame_shape=frame_shape)


def attention_scores(experiment, stage):
    """Products of queries with keys and of weights with values, in closed form."""
    config = experiment.network.config
    tokens = experiment.network.num_tokens(stage.shape)
    keys = tokens + config.num_text_tokens
    return 4.0 * tokens * keys * config.hidden_size * config.depth * experiment.train.batch_size


def test_the_clip_has_stages_of_6_11_and_21_latents():
    experiment = experiment_of((FRAMES, *SIDES))
    stages = experiment.pyramid.stages
    assert [stage.num_frames for stage in stages] == STAGE_FRAMES
    for stage in stages:
        expected = [i * stage.strides[0] for i in range(stage.num_frames)]
        assert stage.positions.frames.tolist() == expected
    assert experiment.pyramid.time_shift == 5.0
    assert experiment.task.pyramid is experiment.pyramid


def test_the_changed_matrices_are_those_of_the_usual_recipe():
    """Rank 32 on q, k, v, o and both feed-forward layers of 30 blocks: 43.75 million values."""
    experiment = experiment_of((FRAMES, *SIDES), **{"model.depth": 30})
    shapes = jax.eval_shape(experiment.network.init, jax.random.key(0))
    chosen = experiment.task.adaptation.chosen(shapes)
    assert len(chosen) == 10
    added = sum(30 * 32 * sum(leaf.shape[1:]) for leaf in chosen.values())
    assert added == 30 * 32 * (8 * (1536 + 1536) + 2 * (1536 + 8960)) == 43_745_280


def test_a_step_takes_2_1_forward_passes_of_the_matrices_and_3_of_the_scores():
    """The scores' products have no frozen factor: each costs two more on the way back."""
    experiment = experiment_of((FRAMES, *SIDES))
    for index, stage in enumerate(experiment.pyramid.stages):
        scores = attention_scores(experiment, stage)
        matrices = forward_flops(experiment, index) - scores
        of_matrices = (loss_flops(experiment, index) - 3.0 * scores) / matrices
        assert 2.0 < of_matrices <= 2.1


def test_a_short_clip_s_step_takes_at_most_2_1_forward_passes():
    """Few tokens, so that the scores weigh little, as in other networks' figures."""
    experiment = experiment_of((1, 8, 8, 16), **{"pyramid.frame_strides": (1,)})
    step, forward = loss_flops(experiment, 0), forward_flops(experiment, 0)
    assert step <= 2.1 * forward
    full = experiment_of(
        (1, 8, 8, 16),
        **{"pyramid.frame_strides": (1,), "adaptation.rank": 0, "adaptation.trained": ""},
    )
    assert loss_flops(full, 0) > 2.6 * forward  # the text itself needs no gradient


def test_the_pyramid_takes_half_of_full_rate_s_products():
    """In the mean over the stages: 2.01 times fewer, the ceiling of any time saved."""
    network = experiment_of((FRAMES, *SIDES), **{"model.depth": 30}).network
    full = network.flops((FRAMES, *SIDES[:2]))
    mean = sum(network.flops((frames, *SIDES[:2])) for frames in STAGE_FRAMES) / 3
    assert full / mean == pytest.approx(2.009, abs=1e-3)
