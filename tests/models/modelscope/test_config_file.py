"""configs/modelscope.py: what it trains, what it refuses before anything compiles, its schedule."""

import numpy as np
import pytest
from diffusers import DDIMScheduler

from configs import captioned_digits_modelscope, modelscope
from tests.tiny import set_field
from tpdiff_jax.experiment.build import build_experiment
from tpdiff_jax.method import DDIMPath

SMALL = {
    "model.level_channels": (8, 16), "model.level_depth": 1, "model.head_dim": 4,
    "model.num_groups": 4, "model.text_dim": 8, "model.num_text_tokens": 3, "mesh.fsdp": 1,
    "train.batch_size": 4, "sample.batch_size": 4, "eval.batch_size": 4,
}  # fmt: skip
FRAME_SHAPE = (8, 16, 16, 4)


def build(**fields):
    config = modelscope.get_config()
    for name, value in {**SMALL, **{k.replace("__", "."): v for k, v in fields.items()}}.items():
        set_field(config, name, value)
    return build_experiment(config, frame_shape=FRAME_SHAPE)


def stage_shapes(experiment):
    return [program.stage_shape for program in experiment.programs]


def test_it_trains_at_the_full_rate_unless_asked_otherwise():
    experiment = build()
    assert stage_shapes(experiment) == [(8, 16, 16)]
    assert experiment.programs[0].train_flops == 3.0 * 4 * experiment.network.flops((8, 16, 16))


def test_its_full_size_is_the_published_networks():
    config = modelscope.get_config()
    set_field(config, "mesh.fsdp", 1)
    network = build_experiment(config, frame_shape=(16, 32, 32, 4)).network
    assert network.config.level_channels == (320, 640, 1280, 1280)
    assert network.cond_shapes["text"][0] == (77, 1024)


@pytest.mark.parametrize(
    "fields",
    [
        {"pyramid__strides": (4, 2, 1)},
        {"pyramid__frame_strides": (2, 1)},
        {"pyramid__strides": ((2, 2, 2), (1, 1, 1))},
        {"pyramid__strides": ((2, 1, 1), (1, 1, 1))},
    ],
)
def test_a_pyramid_over_time_is_refused_by_field_and_reason_unless_asked_for(fields):
    with pytest.raises(
        ValueError,
        match=r"model\.implicit_rate=False refuses the stage of strides \(\d, \d, \d\) of "
        r"pyramid\.strides: .* nothing tells this network the frame rate; allowed: .*"
        r"model\.implicit_rate=True$",
    ):
        build(**fields)
    shapes = stage_shapes(build(model__implicit_rate=True, **fields))
    assert len(shapes) > 1 and shapes[0][0] < shapes[-1][0] == 8


def test_a_pyramid_over_space_needs_no_asking():
    shapes = stage_shapes(build(pyramid__strides=((1, 4, 4), (1, 2, 2), (1, 1, 1))))
    assert shapes == [(8, 4, 4), (8, 8, 8), (8, 16, 16)]


def test_a_small_form_takes_a_pyramid_that_is_asked_for():
    config = captioned_digits_modelscope.get_config()
    for name, value in {"model.implicit_rate": True, "pyramid.strides": (4, 2, 1)}.items():
        set_field(config, name, value)
    shapes = stage_shapes(build_experiment(config, frame_shape=(16, 2, 2, 4)))
    assert shapes == [(4, 2, 2), (8, 2, 2), (16, 2, 2)]


def test_the_schedule_is_the_published_one():
    """ModelScope's own: betas linear in their roots, and at the end the first abar, not 1."""
    betas = np.linspace(0.00085**0.5, 0.0120**0.5, 1000) ** 2
    path = build().pyramid.path
    assert isinstance(path, DDIMPath) and path.prediction == "eps"
    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    np.testing.assert_allclose(theirs.alphas_cumprod.numpy(), np.cumprod(1.0 - betas), rtol=1e-4)
    times = np.array([0, 333, 666, 999])
    expected = np.sqrt(np.cumprod(1.0 - betas)[times])
    np.testing.assert_allclose(path.gamma((times + 1) / 1000.0), expected, rtol=1e-5)
    assert float(path.gamma(0.0)) == pytest.approx((1.0 - 0.00085) ** 0.5, rel=1e-6)
