"""Training points: ends, straightness and targets against the paper's equations in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.noise_alignment import AlignmentSpec, aligned_noise
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.stage_line import output_to_line
from tpdiff_jax.method.stage_targets import (
    coarse_perturbation,
    sample_times,
    stage_end_points,
    stage_videos,
    training_point,
)
from tpdiff_jax.method.stage_transition import stage_transition
from tpdiff_jax.method.stages import make_pyramid

DDIM_PATHS = [
    DDIMPath(),
    DDIMPath(prediction="eps"),
    DDIMPath(zero_terminal_snr=True),
    DDIMPath(final_alpha="first", betas="linear"),
]
PATHS = [FlowPath(), *DDIM_PATHS]
PYRAMIDS = [
    make_pyramid(path, shape=(num_frames, 2, 3), downsample=downsample, upsample=upsample)
    for path in PATHS
    for num_frames, downsample, upsample in [
        (8, "stride", "nearest"),
        (8, "mean", "linear"),
        (9, "stride", "nearest_next"),
    ]
]
STAGES = [(pyramid, index) for pyramid in PYRAMIDS for index in range(3)]
FLOW_STAGES = [(p, i) for p, i in STAGES if isinstance(p.path, FlowPath)]
DDIM_STAGES = [(p, i) for p, i in STAGES if isinstance(p.path, DDIMPath)]
LATER_DDIM_STAGES = [(p, i) for p, i in DDIM_STAGES if i > 0]


def draw(pyramid, index, batch_size=3):
    """A video, a noise of the stage's shape, and times inside its window."""
    rng = np.random.default_rng(0)
    stage = pyramid.stages[index]
    x_0 = rng.standard_normal((batch_size, *pyramid.shape, 2)).astype(np.float32)
    eps = rng.standard_normal((batch_size, *stage.shape, 2)).astype(np.float32)
    t = rng.uniform(stage.t_end, stage.t_start, batch_size).astype(np.float32)
    return x_0, eps, t


def ends_in_numpy(pyramid, index, x_0, eps):
    """Eq. 7 and 8 in float64, from the matrices; and x_i, c_i."""
    stage = pyramid.stages[index]

    def along_frames(matrix, x):
        return np.einsum("gf,bfhwc->bghwc", matrix, x.astype(np.float64))

    x_i = c_i = along_frames(stage.downsample.matrices[0], x_0)
    if index > 0:
        coarse = along_frames(pyramid.stages[index - 1].downsample.matrices[0], x_0)
        c_i = along_frames(stage.jump.upsample.matrices[0], coarse)
    x_start = stage.gamma_start * c_i + stage.sigma_start * eps
    x_end = stage.gamma_end * x_i + stage.sigma_end * eps
    return x_start, x_end, x_i, c_i


def wide(t):
    return t.reshape(-1, 1, 1, 1, 1)


def test_what_the_stage_before_knew_is_its_frames_repeated():
    pyramid = make_pyramid(FlowPath(), shape=(8, 2, 3))
    x_0 = np.random.default_rng(0).standard_normal((2, 8, 2, 3, 1)).astype(np.float32)
    x_1, c_1 = stage_videos(pyramid, 1, x_0)
    np.testing.assert_array_equal(x_1, x_0[:, [0, 2, 4, 6]])
    np.testing.assert_array_equal(c_1, x_0[:, [0, 0, 4, 4]])


def test_stage_0_is_not_blurred():
    pyramid = make_pyramid(FlowPath(), shape=(8, 2, 3))
    x_0 = np.random.default_rng(0).standard_normal((2, 8, 2, 3, 1)).astype(np.float32)
    x_0_kept, c_0 = stage_videos(pyramid, 0, x_0)
    np.testing.assert_array_equal(x_0_kept, x_0[:, [0, 4]])
    np.testing.assert_array_equal(c_0, x_0_kept)


@pytest.mark.parametrize(("pyramid", "index"), STAGES)
def test_end_points_are_eq_7_and_8(pyramid, index):
    x_0, eps, _ = draw(pyramid, index)
    x_start, x_end, _, _ = ends_in_numpy(pyramid, index, x_0, eps)
    got_start, got_end = stage_end_points(pyramid, index, x_0, eps)
    np.testing.assert_allclose(got_start, x_start, atol=2e-6)
    np.testing.assert_allclose(got_end, x_end, atol=2e-6)


@pytest.mark.parametrize(("pyramid", "index"), STAGES)
def test_the_line_joins_the_end_points(pyramid, index):
    stage = pyramid.stages[index]
    x_0, eps, t = draw(pyramid, index)
    x_start, x_end, _, _ = ends_in_numpy(pyramid, index, x_0, eps)
    at_start = training_point(pyramid, index, x_0, eps, jnp.full_like(t, stage.t_start))
    at_end = training_point(pyramid, index, x_0, eps, jnp.full_like(t, stage.t_end))
    np.testing.assert_allclose(at_start.x_t, x_start, atol=1e-5)
    np.testing.assert_allclose(at_end.x_t, x_end, atol=1e-5)


@pytest.mark.parametrize(("pyramid", "index"), FLOW_STAGES)
def test_flow_point_is_eq_12_and_its_velocity_the_derivative(pyramid, index):
    stage = pyramid.stages[index]
    x_0, eps, t = draw(pyramid, index)
    x_start, x_end, _, _ = ends_in_numpy(pyramid, index, x_0, eps)
    u = wide((t - stage.t_end) / (stage.t_start - stage.t_end))
    point = training_point(pyramid, index, x_0, eps, t)
    np.testing.assert_allclose(point.x_t, (1 - u) * x_end + u * x_start, atol=5e-6)
    velocity = (x_start - x_end) / (stage.t_start - stage.t_end)
    np.testing.assert_allclose(point.target, velocity, atol=1e-5)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_stage_unit_is_the_papers_velocity_and_is_turned_back(index):
    pyramid = make_pyramid(FlowPath(), shape=(8, 2, 3), target_unit="stage")
    stage = pyramid.stages[index]
    x_0, eps, t = draw(pyramid, index)
    x_start, x_end, _, _ = ends_in_numpy(pyramid, index, x_0, eps)
    point = training_point(pyramid, index, x_0, eps, t)
    np.testing.assert_allclose(point.target, x_start - x_end, atol=5e-6)
    per_time = (x_start - x_end) / (stage.t_start - stage.t_end)
    line = output_to_line(pyramid, index, point.x_t, t, point.target)
    np.testing.assert_allclose(line.noise - line.data, per_time, atol=1e-5)
    time_unit = make_pyramid(FlowPath(), shape=(8, 2, 3))
    line = output_to_line(time_unit, index, point.x_t, t, per_time.astype(np.float32))
    np.testing.assert_allclose(line.noise - line.data, per_time, atol=1e-5)


@pytest.mark.parametrize(("pyramid", "index"), LATER_DDIM_STAGES)
def test_ddim_point_is_eq_10_and_11(pyramid, index):
    """In the paper's own form, from the end points only: not the code's a_i and detail."""
    stage = pyramid.stages[index]
    x_0, eps, t = draw(pyramid, index)
    x_start, x_end, _, _ = ends_in_numpy(pyramid, index, x_0, eps)
    scales = [pyramid.path.host_scales(float(one)) for one in t]
    gamma_t, sigma_t, nu_t = (wide(np.array(column)) for column in zip(*scales, strict=True))
    slope = x_end / stage.gamma_end - x_start / stage.gamma_start
    eps_i = slope / (stage.nu_end - stage.nu_start)
    x_t = gamma_t * (x_start / stage.gamma_start + (nu_t - stage.nu_start) * eps_i)
    point = training_point(pyramid, index, x_0, eps, t)
    np.testing.assert_allclose(point.x_t, x_t, atol=1e-5)
    if pyramid.path.prediction == "eps":
        np.testing.assert_allclose(point.target, eps_i, atol=1e-5)
    else:
        a_i = (x_t - sigma_t * eps_i) / gamma_t
        np.testing.assert_allclose(point.target, gamma_t * eps_i - sigma_t * a_i, atol=2e-5)


@pytest.mark.parametrize(("pyramid", "index"), DDIM_STAGES)
def test_exact_ddim_output_gives_back_the_stages_data_and_noise(pyramid, index):
    stage = pyramid.stages[index]
    x_0, eps, t = draw(pyramid, index)
    _, _, x_i, c_i = ends_in_numpy(pyramid, index, x_0, eps)
    a_i, eps_i = x_i, eps
    if index > 0:
        a_i = stage.nu_start * x_i - stage.nu_end * c_i
        a_i = a_i / (stage.nu_start - stage.nu_end)
        eps_i = eps - (x_i - c_i) / (stage.nu_start - stage.nu_end)
    point = training_point(pyramid, index, x_0, eps, t)
    got_a, got_eps = output_to_line(pyramid, index, point.x_t, t, point.target)
    np.testing.assert_allclose(got_a, a_i, atol=1e-4)
    np.testing.assert_allclose(got_eps, eps_i, atol=1e-5)


def test_output_to_line_takes_one_time_for_the_batch():
    pyramid = make_pyramid(DDIMPath(), shape=(8, 2, 3))
    x_t, output = np.random.default_rng(0).standard_normal((2, 3, 8, 1, 1, 1)).astype(np.float32)
    one = output_to_line(pyramid, 0, x_t, jnp.float32(0.5), output)
    many = output_to_line(pyramid, 0, x_t, jnp.full(3, 0.5), output)
    np.testing.assert_array_equal(one, many)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_v_is_a_rotation(t):
    """x_t and v_t are (a, eps) turned by one angle, so the squared lengths agree."""
    pyramid = make_pyramid(DDIMPath(zero_terminal_snr=True), shape=(8, 2, 3))
    x_t, output = np.random.default_rng(0).standard_normal((2, 3, 8, 1, 1, 1)).astype(np.float32)
    a_i, eps_i = output_to_line(pyramid, 0, x_t, jnp.float32(t), output)
    np.testing.assert_allclose(a_i**2 + eps_i**2, x_t**2 + output**2, rtol=1e-5)


@pytest.mark.parametrize("unit", ["time", "stage"])
def test_one_stage_is_plain_flow_matching_exactly(unit):
    pyramid = make_pyramid(FlowPath(), shape=(8, 2, 3), strides=(1,), target_unit=unit)
    x_0, eps, t = draw(pyramid, 0)
    point = training_point(pyramid, 0, x_0, eps, t)
    np.testing.assert_array_equal(point.x_t, (1 - wide(t)) * x_0 + wide(t) * eps)
    np.testing.assert_array_equal(point.target, eps - x_0)


@pytest.mark.parametrize("path", DDIM_PATHS)
def test_one_stage_is_plain_ddim_training(path):
    pyramid = make_pyramid(path, shape=(8, 2, 3), strides=(1,))
    x_0, eps, t = draw(pyramid, 0)
    gamma_t, sigma_t = wide(np.asarray(path.gamma(t))), wide(np.asarray(path.sigma(t)))
    point = training_point(pyramid, 0, x_0, eps, t)
    np.testing.assert_array_equal(point.x_t, gamma_t * x_0 + sigma_t * eps)
    is_eps = path.prediction == "eps"
    expected = eps if is_eps else gamma_t * eps - sigma_t * x_0
    np.testing.assert_array_equal(point.target, expected)


@pytest.mark.parametrize("path", [*PATHS, FlowPath(prediction="data")])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_marginal_stage_asks_what_a_vanilla_network_of_its_frames_is_asked(path, index):
    x_0, eps, t = draw(PYRAMIDS[0], index)
    pyramid = make_pyramid(path, shape=(8, 2, 3), line="marginal")
    stage = pyramid.stages[index]
    vanilla = make_pyramid(path, shape=stage.shape, strides=(1,))
    point = training_point(pyramid, index, x_0, eps, t)
    expected = training_point(vanilla, 0, x_0[:, :: stage.strides[0]], eps, t)
    for got, wanted in zip(point, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("path", [*PATHS, FlowPath(prediction="data")])
def test_one_stage_is_the_same_whatever_the_line(path):
    x_0, eps, t = draw(make_pyramid(path, shape=(8, 2, 3), strides=(1,)), 0)
    points = [
        training_point(make_pyramid(path, shape=(8, 2, 3), strides=(1,), line=line), 0, x_0, eps, t)
        for line in ("stagewise", "marginal")
    ]
    for one, other in zip(*points, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("path", [FlowPath(), DDIMPath(), DDIMPath(zero_terminal_snr=True)])
@pytest.mark.parametrize(("upsample", "index"), [("nearest", 1), ("linear", 2), ("insert", 2)])
def test_a_perturbed_coarse_video_moves_the_start_by_u_of_it_and_the_end_not(path, upsample, index):
    pyramid = make_pyramid(path, shape=(8, 2, 3), upsample=upsample, data_mean=0.3)
    stage, (x_0, eps, t) = pyramid.stages[index], draw(pyramid, index)
    coarse = (3, *pyramid.stages[index - 1].shape, 2)
    n = np.random.default_rng(5).standard_normal(coarse).astype(np.float32)
    up = np.einsum("gf,bfhwc->bghwc", stage.jump.upsample.matrices[0], n)
    for at, factor in ((stage.t_start, stage.gamma_start), (stage.t_end, 0.0)):
        time = jnp.full_like(t, at)
        moved = training_point(pyramid, index, x_0, eps, time, n).x_t
        still = training_point(pyramid, index, x_0, eps, time).x_t
        np.testing.assert_allclose(moved - still, factor * up, atol=2e-5)
    # The line from one to the other: its slope is the target, and x_t lies on it.
    x_i, c_i = stage_videos(pyramid, index, x_0)
    assert_on_the_line(pyramid, index, x_i, c_i + up, eps, t, training_point(
        pyramid, index, x_0, eps, t, n))  # fmt: skip


def assert_on_the_line(pyramid, index, x_i, c_i, eps, t, point):
    """x_t in the coordinates in which the line is straight, in float64."""
    stage, x_i, c_i = pyramid.stages[index], np.float64(x_i), np.float64(c_i)
    ends = (
        stage.gamma_start * c_i + stage.sigma_start * eps,
        (stage.gamma_end * x_i + stage.sigma_end * eps),
    )
    if isinstance(pyramid.path, FlowPath):
        u = wide((t - stage.t_end) / (stage.t_start - stage.t_end))
        expected = (1 - u) * ends[1] + u * ends[0]
    else:
        gamma, sigma = (wide(np.float64(f(t))) for f in (pyramid.path.gamma, pyramid.path.sigma))
        slope = (ends[1] / stage.gamma_end - ends[0] / stage.gamma_start) / (
            stage.nu_end - stage.nu_start
        )
        expected = gamma * (ends[0] / stage.gamma_start + (sigma / gamma - stage.nu_start) * slope)
    np.testing.assert_allclose(point.x_t, expected, atol=1e-4)


def test_perturbations_are_white_of_their_level_and_of_each_videos_own_key():
    pyramid = make_pyramid(FlowPath(), shape=(8, 2, 3), coarse_noise=0.3)
    keys = jax.random.split(jax.random.key(0), 512)
    for index, frames in ((1, 2), (2, 4)):
        noise = np.asarray(coarse_perturbation(pyramid, index, keys, 2))
        assert noise.shape == (512, frames, 2, 3, 2) and noise.dtype == np.float32
        rows = noise.reshape(512, -1)
        cov = rows.T @ rows / 512
        np.testing.assert_allclose(cov, 0.09 * np.eye(rows.shape[1]), atol=0.09 * 6 / 512**0.5)
        few = coarse_perturbation(pyramid, index, keys[100:103], 2)
        np.testing.assert_array_equal(few, noise[100:103])
    twice = make_pyramid(FlowPath(), shape=(8, 2, 3), coarse_noise=0.6)
    np.testing.assert_allclose(coarse_perturbation(twice, 2, keys, 2), 2 * noise, rtol=1e-6)
    # No noise of the stages is the same one.
    aligned = [
        aligned_noise(pyramid, i, jnp.zeros((512, 8, 2, 3, 2)), keys, AlignmentSpec(mode="none"))[0]
        for i in (0, 1)
    ]
    assert np.abs(np.mean(noise * aligned[1])) < 0.3 * 6 / noise.size**0.5
    one = coarse_perturbation(pyramid, 1, keys, 2)
    assert np.abs(np.mean(one * aligned[0])) < 0.3 * 6 / one.size**0.5


def test_without_coarse_noise_or_a_stage_before_nothing_is_drawn():
    keys = jax.random.split(jax.random.key(0), 2)
    assert coarse_perturbation(make_pyramid(FlowPath(), shape=(8, 2, 3)), 2, keys, 1) is None
    noisy = make_pyramid(FlowPath(), shape=(8, 2, 3), coarse_noise=0.3)
    assert coarse_perturbation(noisy, 0, keys, 1) is None
    vanilla = make_pyramid(FlowPath(), shape=(8, 2, 3), strides=(1,), coarse_noise=0.3)
    assert coarse_perturbation(vanilla, 0, keys, 1) is None


def test_windows_and_jumps_are_the_same_whatever_the_line():
    lines = ("stagewise", "marginal")
    pair = [make_pyramid(FlowPath(), shape=(8, 2, 3), line=line) for line in lines]
    x = np.random.default_rng(0).standard_normal((1, 2, 2, 3, 1))
    for one, other in zip(*(pyramid.stages for pyramid in pair), strict=True):
        assert (one.t_start, one.t_end, one.shape) == (other.t_start, other.t_end, other.shape)
        if one.index > 0:
            z = np.random.default_rng(one.index).standard_normal((1, *one.shape, 1))
            got = [stage_transition(pyramid, one.index, x, z) for pyramid in pair]
            np.testing.assert_array_equal(*got)
            x = got[0]


@pytest.mark.parametrize("path", [FlowPath(), DDIMPath(zero_terminal_snr=True)])
def test_pure_noise_is_a_finite_training_point(path):
    pyramid = make_pyramid(path, shape=(8, 2, 3))
    x_0, eps, t = draw(pyramid, 0)
    point = training_point(pyramid, 0, x_0, eps, jnp.ones_like(t))
    np.testing.assert_allclose(point.x_t, eps, atol=1e-6)
    assert np.all(np.isfinite(point.target))


@pytest.mark.parametrize(("pyramid", "index"), STAGES)
def test_compiled_points_equal_eager_points(pyramid, index):
    arguments = draw(pyramid, index)
    eager = training_point(pyramid, index, *arguments)
    compiled = jax.jit(lambda *a: training_point(pyramid, index, *a))(*arguments)
    for one, other in zip(compiled, eager, strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_times_are_stratified_over_the_window(index):
    pyramid = make_pyramid(FlowPath(), shape=(16, 2, 3))
    stage = pyramid.stages[index]
    t = np.asarray(sample_times(pyramid, index, jax.random.key(3), 64), np.float64)
    assert t.shape == (64,) and t.min() >= stage.t_end - 1e-7 and t.max() < stage.t_start
    stratum = (t - stage.t_end) / (stage.t_start - stage.t_end) * 64
    np.testing.assert_array_equal(np.sort(np.floor(stratum + 1e-4)), np.arange(64))


def test_every_position_of_the_batch_sees_the_whole_window():
    pyramid = make_pyramid(FlowPath(), shape=(16, 2, 3), strides=(1,))
    keys = jax.random.split(jax.random.key(0), 4000)
    t = jax.vmap(lambda key: sample_times(pyramid, 0, key, 4))(keys)
    # Uniform on [0, 1]: mean 1/2, variance 1/12; standard errors 0.0046 and 0.0012 of 4000.
    np.testing.assert_allclose(t.mean(0), 0.5, atol=0.023)
    np.testing.assert_allclose(t.var(0), 1 / 12, atol=0.006)


def test_times_depend_on_the_key_only():
    pyramid = make_pyramid(FlowPath(), shape=(16, 2, 3))
    one, same, other = (sample_times(pyramid, 1, jax.random.key(seed), 8) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_shapes_that_do_not_fit_are_refused_while_tracing():
    pyramid = make_pyramid(FlowPath(), shape=(8, 2, 3))
    x_0, eps, t = draw(pyramid, 1)
    for arguments in [(x_0[:, :4], eps, t), (x_0, eps[:, :2], t), (x_0, eps, t[:2])]:
        with pytest.raises(AssertionError):
            training_point(pyramid, 1, *arguments)
    with pytest.raises(AssertionError):
        stage_end_points(pyramid, 1, x_0, eps[:, :2])
    with pytest.raises(AssertionError):
        output_to_line(pyramid, 1, eps, t, eps[:, :2])
