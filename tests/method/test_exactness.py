"""The pyramid is exact: with the optimal network, sampling returns the law of the data.

The optimal network of Gaussian videos is known in closed form and makes the whole sampler affine,
so the law it samples is computed exactly (see `gaussian_world`): no network, no training, no
Monte-Carlo error. What remains is the solver's step size, and it falls with the steps.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from tests.method.gaussian_world import (
    GaussianWorld,
    downsampling,
    gaussian_coupling,
    law_error,
    moving_video_law,
    sampled,
    sampled_law,
    upsampling,
)
from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.stage_targets import training_point
from tpdiff_jax.method.stages import make_pyramid

FLOW = FlowPath()
DDIM = DDIMPath(zero_terminal_snr=True)
PATHS = [pytest.param(FLOW, id="flow"), pytest.param(DDIM, id="ddim")]
FEW, MANY = 16, 48
# Relative Frobenius error of the covariance at MANY second-order steps a stage. DDIM's error falls
# like 1/steps: its last steps, where nu goes to 0 like the square root of t, dominate.
TOLERANCE = {FLOW: 2e-3, DDIM: 2e-2}


@pytest.fixture(autouse=True)
def float64():
    """Rounding must not hide a solver's error."""
    with jax.enable_x64(True):
        yield


def make_world(path, num_frames=8, strides=(4, 2, 1), down="stride", up="nearest", **options):
    pyramid = make_pyramid(
        path, shape=(num_frames, 1, 1), strides=strides, downsample=down, upsample=up, **options
    )
    return GaussianWorld(pyramid, down, up, *moving_video_law(num_frames))


def steps_spec(world, steps, solver="second_order", **options):
    steps_per_stage = (steps,) * world.pyramid.num_stages
    return SamplerSpec(steps_per_stage=steps_per_stage, solver=solver, **options)


def errors(world, steps, start_law=None, **options):
    return law_error(world, sampled_law(world, steps_spec(world, steps, **options),
                                        start_law=start_law))  # fmt: skip


def check_exact_in_the_limit(world, start_law=None):
    few, many = (errors(world, steps, start_law) for steps in (FEW, MANY))
    is_flow = isinstance(world.pyramid.path, FlowPath)
    assert many[0] < 1e-6  # the mean needs no small steps
    assert many[1] < TOLERANCE[FLOW if is_flow else DDIM]
    assert many[1] < (0.2 if is_flow else 0.45) * few[1]


def check_not_exact_without_renoising(world, start_law=None):
    mean, cov = errors(world, MANY, start_law, renoise=False)
    assert mean > 0.1
    assert cov > 0.5


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("up", ["nearest", "linear"])
@pytest.mark.parametrize("down", ["stride", "mean"])
@pytest.mark.parametrize("strides", [(4, 2, 1), (8, 2, 1)])
def test_optimal_network_samples_the_law_of_the_data(path, strides, down, up):
    check_exact_in_the_limit(make_world(path, 8, strides, down, up))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("up", ["nearest", "linear"])
@pytest.mark.parametrize("down", ["stride", "mean"])
@pytest.mark.parametrize("strides", [(4, 2, 1), (8, 2, 1)])
def test_without_renoising_the_law_is_lost(path, strides, down, up):
    check_not_exact_without_renoising(make_world(path, 8, strides, down, up))


@pytest.mark.parametrize("path", PATHS)
def test_one_stage_samples_the_law_of_the_data(path):
    check_exact_in_the_limit(make_world(path, strides=(1,)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("down", "up"),
    [("stride", "nearest"), ("stride", "linear"), ("mean", "nearest"), ("mean", "linear"),
     ("stride", "nearest_next")],
)  # fmt: skip
def test_causal_length_samples_the_law_of_the_data(path, down, up):
    world = make_world(path, 21, (4, 2, 1), down, up)
    assert [stage.num_frames for stage in world.pyramid.stages] == [6, 11, 21]
    check_exact_in_the_limit(world)
    check_not_exact_without_renoising(world)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("num_frames", [8, 9])
def test_dct_samples_the_law_of_the_data(path, num_frames):
    world = make_world(path, num_frames, (4, 2, 1), "dct", "dct")
    check_exact_in_the_limit(world)
    check_not_exact_without_renoising(world)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("strides", [(8, 4, 1), (8, 4, 2, 1)])
@pytest.mark.parametrize("up", ["nearest", "linear"])
def test_other_stride_lists_sample_the_law_of_the_data(path, strides, up):
    options = {"stage_fractions": (1.0,) * len(strides)}
    check_exact_in_the_limit(make_world(path, 16, strides, "stride", up, **options))


def test_paper_target_unit_samples_the_law_of_the_data():
    check_exact_in_the_limit(make_world(FLOW, target_unit="stage"))


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_a_time_shift_samples_the_law_of_the_data(shift):
    """It spends the steps elsewhere; what they lead to stays."""
    check_exact_in_the_limit(make_world(FLOW, time_shift=shift))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("down", "up", "overlap"),
    [("stride", "nearest", 1.5), ("mean", "linear", 4.0), ("dct", "dct", 2.0)],
)
def test_an_overlap_samples_the_law_of_the_data(path, down, up, overlap):
    check_exact_in_the_limit(make_world(path, 9, (4, 2, 1), down, up, overlap=overlap))


@pytest.mark.parametrize("path", [*PATHS, pytest.param(FlowPath(prediction="data"), id="data")])
@pytest.mark.parametrize(("frames", "mu", "overlap"), [(8, 1.3, 1.0), (9, 0.0, 1.0), (9, 1.3, 2.0)])
def test_inserted_frames_sample_the_law_of_the_data(path, frames, mu, overlap):
    """Whatever the constant that new frames start from, near the data's mean or not."""
    world = make_world(path, frames, up="insert", data_mean=mu, overlap=overlap)
    check_exact_in_the_limit(dataclasses.replace(world, data_mean=mu))


def test_a_jump_of_another_mean_than_training_had_is_not_exact():
    world = dataclasses.replace(make_world(FLOW, up="insert", data_mean=1.3), data_mean=0.3)
    assert errors(world, FEW)[0] > 0.05


@pytest.mark.parametrize("path", [*PATHS, pytest.param(DDIMPath(prediction="eps"), id="eps")])
@pytest.mark.parametrize("stage_index", [0, 1, 2])
def test_with_a_mean_the_closed_form_network_answers_what_training_asks(path, stage_index):
    world = make_world(path, 9, up="insert", data_mean=1.3)
    world = dataclasses.replace(world, data_mean=1.3)
    stage, rng = world.pyramid.stages[stage_index], np.random.default_rng(0)
    t = 0.3 * stage.t_end + 0.7 * stage.t_start
    x_0, eps = rng.standard_normal((2, 9)), rng.standard_normal((2, stage.num_frames))
    wide = (..., None, None, None)
    point = training_point(
        world.pyramid, stage_index, jnp.asarray(x_0[wide]), jnp.asarray(eps[wide]), jnp.full(2, t)
    )
    maps, constants = world.point_and_target(stage_index, t), world.constants(stage_index, t)
    for measured, matrix, constant in zip(point, maps, constants, strict=True):
        expected = np.hstack([x_0, eps]) @ matrix.T + constant
        np.testing.assert_allclose(measured[..., 0, 0, 0], expected, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_noise_on_coarse_frames_in_training_alone_trades_exactness(path):
    world = make_world(path)
    wrong = [
        errors(dataclasses.replace(world, coarse_noise=tau), MANY)[1] for tau in (0.0, 0.2, 0.8)
    ]
    assert wrong[0] < TOLERANCE[path]
    assert wrong[2] > 3.0 * wrong[1] and wrong[2] > 0.1


def share_of_detail(world, share):
    """The same world, its videos' detail beyond the coarsest stage scaled."""
    num_frames, strides = world.pyramid.num_frames, world.pyramid.stages[0].strides
    low = upsampling(num_frames, strides[0], 1, "dct", "dct")
    low = low @ downsampling(num_frames, strides[0], "dct")
    keep = low + share * (np.eye(num_frames) - low)
    return dataclasses.replace(world, mean=keep @ world.mean, cov=keep @ world.cov @ keep.T)


@pytest.mark.parametrize("path", PATHS)
def test_the_marginal_line_is_exact_only_as_far_as_there_is_no_detail(path):
    marginal = make_world(path, down="dct", up="dct", line="marginal")
    check_exact_in_the_limit(share_of_detail(marginal, 0.0))
    (mean, cov), (worse_mean, worse_cov) = (
        errors(share_of_detail(marginal, share), MANY) for share in (1.0, 3.0)
    )
    assert worse_mean > 3.0 * mean > 0.05
    assert worse_cov > 3.0 * cov > 1.5 * TOLERANCE[path]
    check_exact_in_the_limit(share_of_detail(make_world(path, down="dct", up="dct"), 3.0))


@pytest.mark.parametrize("path", PATHS)
def test_an_overlap_hides_the_detail_that_the_marginal_line_lacks(path):
    """The noisier the jump, the less of the data's law is missed."""
    wrong = [
        errors(make_world(path, down="dct", up="dct", line="marginal", overlap=overlap), MANY)[1]
        for overlap in (1.0, 8.0)
    ]
    assert wrong[1] < 0.7 * wrong[0]


def test_unequal_stage_fractions_sample_the_law_of_the_data():
    check_exact_in_the_limit(make_world(FLOW, stage_fractions=(1.0, 2.0, 1.0)))


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_plain_ddim_is_exact_when_started_from_the_law_of_its_start_point(prediction):
    world = make_world(DDIMPath(prediction=prediction), down="mean", up="linear")
    check_exact_in_the_limit(world, world.start_law())
    # From N(0, I) it inherits the mismatch of its terminal signal gamma_1 = 0.068.
    assert 0.01 < errors(world, MANY)[0] < 0.2


@pytest.mark.parametrize("path", PATHS)
def test_noise_coupled_to_the_data_stays_exact_when_lifted_from_the_coarsest_stage(path):
    world = make_world(path)
    lifted = dataclasses.replace(world, couplings=gaussian_coupling(world, "coarsest", 0.6))
    check_exact_in_the_limit(lifted)


@pytest.mark.parametrize("path", PATHS)
def test_noise_coupled_to_the_data_in_every_stage_is_not_exact(path):
    world = make_world(path)
    coupled = dataclasses.replace(world, couplings=gaussian_coupling(world, "stage", 0.6))
    few, many = (errors(coupled, steps)[1] for steps in (FEW, MANY))
    assert many > 0.05
    assert many > 0.9 * few  # more steps do not help


@pytest.mark.parametrize("path", [*PATHS, pytest.param(DDIMPath(prediction="eps"), id="eps")])
@pytest.mark.parametrize("stage_index", [0, 1, 2])
def test_the_closed_form_network_answers_the_question_that_training_asks(path, stage_index):
    """A and B of `gaussian_world` are the linear maps of the package's own training points."""
    world = make_world(path, down="mean", up="linear")
    stage = world.pyramid.stages[stage_index]
    f, num_frames = stage.num_frames, world.pyramid.num_frames
    t = 0.3 * stage.t_end + 0.7 * stage.t_start
    x_0, eps = np.split(np.eye(num_frames + f), [num_frames], axis=1)
    point = training_point(
        world.pyramid,
        stage_index,
        jnp.asarray(x_0)[..., None, None, None],
        jnp.asarray(eps)[..., None, None, None],
        jnp.full(num_frames + f, t),
    )
    maps = world.point_and_target(stage_index, t)
    for measured, expected in zip(point, maps, strict=True):
        np.testing.assert_allclose(measured[..., 0, 0, 0].T, expected, atol=1e-9)


@dataclasses.dataclass(frozen=True)
class MixtureWorld:
    """Two Gaussian worlds of one covariance; the optimal network weighs theirs by posterior."""

    worlds: tuple[GaussianWorld, GaussianWorld]
    weights: tuple[float, float]

    def predict(self, x_t, t, positions, strides, cond):
        """sum_k P(k | x_t) E_k[target | x_t]."""
        i, time = self.worlds[0].stage_of(x_t), self.worlds[0].time_of(t[0])
        logits, answers = [], []
        for world, weight in zip(self.worlds, self.weights, strict=True):
            mean, cov, _, _ = world.conditional(i, time)
            centred = x_t[..., 0, 0, 0] - mean
            distance = np.sum(centred * np.linalg.solve(cov, centred.T).T, axis=1)
            logits.append(math.log(weight) - distance / 2.0)
            answers.append(world.predict(x_t, t, positions, strides, cond))
        posterior = softmax(np.stack(logits), axis=0)[..., None, None, None, None]
        return np.sum(posterior * np.stack(answers), axis=0)


def kolmogorov_distance(values, cdf):
    """Largest distance of the empirical distribution from a continuous one."""
    expected = cdf(np.sort(values))
    ranks = np.arange(len(values) + 1) / len(values)
    return max(np.max(ranks[1:] - expected), np.max(expected - ranks[:-1]))


@pytest.mark.parametrize("path", PATHS)
def test_two_component_mixture_keeps_its_law_along_the_separating_direction(path):
    base = make_world(path)
    offset = 1.5 * np.cos(0.4 * np.arange(8))
    worlds = tuple(dataclasses.replace(base, mean=base.mean + s * offset) for s in (-1.0, 1.0))
    mixture = MixtureWorld(worlds, weights=(0.3, 0.7))
    direction = np.linalg.solve(base.cov, offset)
    spread = math.sqrt(direction @ base.cov @ direction)
    normal_cdf = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2.0)))

    def cdf(x):
        return sum(w * normal_cdf((x - direction @ world.mean) / spread)
                   for w, world in zip(mixture.weights, worlds, strict=True))  # fmt: skip

    num = 2500
    keys = jax.random.split(jax.random.key(0), 3)
    noises = tuple(jax.random.normal(key, (num, stage.num_frames, 1, 1, 1))
                   for key, stage in zip(keys, base.pyramid.stages, strict=True))  # fmt: skip
    distance = {}
    for renoise in (True, False):
        spec = steps_spec(base, 32, renoise=renoise)
        videos = sampled(mixture.predict, base.pyramid, spec, noises)
        distance[renoise] = kolmogorov_distance(videos[..., 0, 0, 0] @ direction, cdf)
    assert distance[True] < 1.95 / math.sqrt(num)  # the 0.1 % critical value
    assert distance[False] > 3.0 * 1.95 / math.sqrt(num)
