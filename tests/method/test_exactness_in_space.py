"""The pyramid stays exact over height and width too, for every path and prediction.

As in `test_exactness`: the closed-form network makes the sampler affine, and its law is computed
exactly. Pooled are space alone (L = 4), time and space (L = 8), each axis in its own way, and a
causal length in time with pairs in space.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.method.gaussian_world import (
    GaussianWorld,
    gaussian_coupling,
    law_error,
    sampled_law,
    shaped_video_law,
)
from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.stage_targets import training_point
from tpdiff_jax.method.stages import make_pyramid

PATHS = [
    FlowPath(),
    FlowPath(prediction="data"),
    DDIMPath(zero_terminal_snr=True),
    DDIMPath(zero_terminal_snr=True, prediction="data"),
    DDIMPath(prediction="eps"),
]
NAMES = ["velocity", "flow_data", "v", "ddim_data", "eps"]
SPACE = ((1, 4, 4), (1, 2, 2), (1, 1, 1))
ALL = ((4, 4, 4), (2, 2, 2), (1, 1, 1))
PYRAMIDS = {
    "space": ((2, 4, 4), SPACE, "mean", "nearest", 4.0),
    "time_and_space": ((4, 4, 4), ALL, "stride", "nearest", 8.0),
    "mixed": ((4, 4, 4), ALL, ("stride", "mean", "mean"), ("nearest", "linear", "linear"), None),
    "causal": ((5, 2, 2), ((4, 2, 2), (2, 2, 2), (1, 1, 1)), ("stride", "mean", "mean"),
               ("nearest_next", "nearest", "nearest"), None),
    "dct": ((4, 4, 4), ALL, "dct", "dct", 8.0),
    "dct_in_time": ((5, 2, 2), ((4, 2, 2), (2, 2, 2), (1, 1, 1)), ("dct", "mean", "mean"),
                    ("dct", "nearest", "nearest"), None),
    "insert": ((5, 2, 2), ((4, 2, 2), (2, 2, 2), (1, 1, 1)), ("stride", "mean", "mean"),
               ("insert", "nearest", "linear"), None),
    "causal_linear": ((5, 2, 4), ((2, 1, 4), (2, 1, 2), (1, 1, 1)), "mean",
                      ("linear", "nearest", "nearest"), None),
}  # fmt: skip
FEW, MANY = 12, 36


@pytest.fixture(autouse=True)
def float64():
    """Rounding must not hide a solver's error."""
    with jax.enable_x64(True):
        yield


def make_world(path, name):
    shape, strides, down, up, _ = PYRAMIDS[name]
    pyramid = make_pyramid(
        path, shape=shape, strides=strides, downsample=down, upsample=up, data_mean=0.4
    )
    return GaussianWorld(pyramid, down, up, *shaped_video_law(shape), data_mean=0.4)


def errors(world, steps, start_law=None, **options):
    spec = SamplerSpec(steps_per_stage=(steps,) * 3, solver="second_order", **options)
    return law_error(world, sampled_law(world, spec, start_law=start_law))


@pytest.mark.parametrize("name", list(PYRAMIDS))
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_optimal_network_samples_the_law_of_the_data(path, name):
    """Plain DDIM (eps) from the law of its start point: its terminal signal is not 0."""
    world = make_world(path, name)
    start = world.start_law() if path.prediction == "eps" else None
    few, many = (errors(world, steps, start) for steps in (FEW, MANY))
    is_flow = isinstance(path, FlowPath)
    assert many[0] < 1e-6  # the mean needs no small steps
    assert many[1] < (4e-3 if is_flow else 3e-2)
    assert many[1] < (0.2 if is_flow else 0.45) * few[1]


@pytest.mark.parametrize("name", list(PYRAMIDS))
def test_without_renoising_the_law_is_lost(name):
    mean, cov = errors(make_world(PATHS[0], name), MANY, renoise=False)
    assert mean > 0.05
    assert cov > 0.3


@pytest.mark.parametrize("name", ["space", "mixed"])
def test_noise_coupled_at_the_coarsest_stage_and_lifted_stays_exact(name):
    world = make_world(PATHS[0], name)
    couplings = gaussian_coupling(world, "coarsest", 0.6)
    lifted = GaussianWorld(world.pyramid, world.down, world.up, world.mean, world.cov, couplings)
    assert errors(lifted, MANY)[1] < 4e-3


@pytest.mark.parametrize("name", list(PYRAMIDS))
def test_upsampling_over_axes_multiplies_their_eigenvalues(name):
    pyramid = make_world(PATHS[0], name).pyramid
    expected = PYRAMIDS[name][-1]
    for stage in pyramid.stages[1:]:
        product = np.prod([np.linalg.norm(u, ord=2) ** 2 for u in stage.jump.upsample.matrices])
        assert stage.jump.eigenvalue == pytest.approx(product, rel=1e-12)
        if expected is not None:
            assert stage.jump.eigenvalue == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["space", "mixed", "causal", "dct"])
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
@pytest.mark.parametrize("stage_index", [0, 1, 2])
def test_the_closed_form_network_answers_the_question_that_training_asks(path, name, stage_index):
    world = make_world(path, name)
    stage, shape = world.pyramid.stages[stage_index], world.pyramid.shape
    t = 0.3 * stage.t_end + 0.7 * stage.t_start
    num, own = int(np.prod(shape)), int(np.prod(stage.shape))
    x_0, eps = np.split(np.eye(num + own), [num], axis=1)
    point = training_point(
        world.pyramid,
        stage_index,
        jnp.asarray(x_0).reshape(-1, *shape, 1),
        jnp.asarray(eps).reshape(-1, *stage.shape, 1),
        jnp.full(num + own, t),
    )
    for measured, expected in zip(point, world.point_and_target(stage_index, t), strict=True):
        np.testing.assert_allclose(measured.reshape(num + own, -1).T, expected, atol=1e-9)
