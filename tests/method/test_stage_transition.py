"""The jump: mean and covariance as matrix identities, for every U, D, length and path.

The functions under test are linear, so their matrices are read off by pushing basis vectors
through them: no sampling, no Monte-Carlo error.
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.stage_targets import stage_end_points
from tpdiff_jax.method.stage_transition import lift_noise, stage_transition
from tpdiff_jax.method.stages import make_pyramid

PATHS = [FlowPath(), DDIMPath(), DDIMPath(zero_terminal_snr=True), DDIMPath(betas="linear")]
SHAPES = [
    ((8, 4, 2, 1), 16),
    ((8, 2, 1), 16),
    ((8, 4, 1), 16),
    ((4, 2, 1), 1),
    ((8, 2, 1), 17),
    ((4, 2, 1), 16),
    ((4, 2, 1), 21),
]
# The path enters a jump by four numbers only: the first path meets every shape.
JUMPS = [
    pytest.param(
        make_pyramid(path, shape=(num_frames, 1, 1), strides=strides, downsample=down, upsample=up),
        id=f"{number}-{strides}-{num_frames}-{down}-{up}",
    )
    for number, path in enumerate(PATHS)
    for strides, num_frames in (SHAPES if number == 0 else SHAPES[-3:])
    for down, up in [
        *itertools.product(("stride", "mean"), ("nearest", "nearest_next", "linear")),
        ("dct", "dct"),
        ("stride", "insert"),
    ]
]
OVERLAPPING = [
    pytest.param(
        make_pyramid(
            path, shape=(frames, 1, 1), downsample=down, upsample=up, overlap=overlap,
            stage_fractions=(2, 1, 1),
        ),
        id=f"{number}-{frames}-{down}-{up}-{overlap}",
    )
    for number, path in enumerate(PATHS)
    for frames, down, up, overlap in [
        (16, "stride", "nearest", 1.5), (21, "stride", "nearest_next", 4.0),
        (21, "mean", "linear", 2.0), (21, "dct", "dct", 3.0), (16, "dct", "dct", 1.01),
        (21, "stride", "insert", 2.0),
    ]
]  # fmt: skip
EVERY_JUMP = JUMPS + OVERLAPPING


def matrix_of(function, num_frames):
    """The matrix of a linear function of videos, its basis vectors pushed through as a batch."""
    basis = jnp.eye(num_frames).reshape(num_frames, num_frames, 1, 1, 1)
    return np.asarray(function(basis), np.float64)[..., 0, 0, 0].T


def jump_matrices(pyramid, index, **options):
    """A and B of xs = A xe + B z."""
    f_before, f = (pyramid.stages[i].num_frames for i in (index - 1, index))
    no_z, no_x = jnp.zeros((f_before, f, 1, 1, 1)), jnp.zeros((f, f_before, 1, 1, 1))
    a = matrix_of(lambda x: stage_transition(pyramid, index, x, no_z, **options), f_before)
    b = matrix_of(lambda z: stage_transition(pyramid, index, no_x, z, **options), f)
    return a, b


@pytest.mark.parametrize("pyramid", EVERY_JUMP)
def test_the_jump_maps_both_moments_exactly(pyramid):
    for index in range(1, pyramid.num_stages):
        previous, stage = pyramid.stages[index - 1 : index + 1]
        jump = stage.jump
        a, b = jump_matrices(pyramid, index)
        # The function is these matrices, to float32 ...
        a_exact = jump.scale * jump.upsample.matrices[0]
        b_exact = stage.sigma_start * jump.noise_factor.matrices[0]
        np.testing.assert_allclose(a, a_exact, atol=5e-7)
        np.testing.assert_allclose(b, b_exact, atol=5e-7)
        # ... and these matrices map the moments, to float64. Mean: gamma_e D x_0 to gamma_s c_i.
        mean = a_exact @ (previous.gamma_end * previous.downsample.matrices[0])
        known = stage.gamma_start * jump.upsample.matrices[0] @ previous.downsample.matrices[0]
        np.testing.assert_allclose(mean, known, atol=1e-12)
        # Covariance: sigma_e^2 I to sigma_s^2 I.
        covariance = previous.sigma_end**2 * a_exact @ a_exact.T + b_exact @ b_exact.T
        expected = stage.sigma_start**2 * np.eye(stage.num_frames)
        np.testing.assert_allclose(covariance, expected, atol=1e-9)


@pytest.mark.parametrize("pyramid", JUMPS)
def test_less_fresh_noise_would_not_do(pyramid):
    """t_start is the least: any direction that U fills wholly gets no fresh noise at all."""
    for stage in pyramid.stages[1:]:
        _, b = jump_matrices(pyramid, stage.index)
        assert np.linalg.svd(b, compute_uv=False)[-1] < 1e-6


def test_the_papers_printed_scale_fails_where_ours_holds():
    """Eq. 15 and 23 print sqrt(2) gamma_s/(sigma_s + sqrt(2) gamma_s): that is gamma_e."""
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1))
    previous, stage = pyramid.stages[:2]
    gamma_s, sigma_s = stage.gamma_start, stage.sigma_start
    printed = math.sqrt(2) * gamma_s / (sigma_s + math.sqrt(2) * gamma_s)
    assert printed == pytest.approx(1 / 3, abs=1e-12)
    assert printed == pytest.approx(previous.gamma_end, abs=1e-12)
    assert stage.jump.scale == pytest.approx(0.784, abs=5e-4)
    up = stage.jump.upsample.matrices[0]
    fresh = sigma_s**2 * stage.jump.noise_factor.matrices[0] @ stage.jump.noise_factor.matrices[0]
    for scale, is_right in ((stage.jump.scale, True), (printed, False)):
        mean_holds = np.isclose(scale * previous.gamma_end, gamma_s)
        covariance = (scale * previous.sigma_end) ** 2 * up @ up.T + fresh
        covariance_holds = np.allclose(covariance, sigma_s**2 * np.eye(8))
        assert (mean_holds, covariance_holds) == (is_right, is_right)


def test_the_papers_noise_term_equals_ours():
    """sqrt(2)/2 sigma_s times a pair of unit normals of correlation -1."""
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1))
    stage = pyramid.stages[1]
    _, b = jump_matrices(pyramid, 1)
    pair = np.array([[1.0, -1.0], [-1.0, 1.0]])
    expected = (math.sqrt(2) / 2 * stage.sigma_start) ** 2 * np.kron(np.eye(4), pair)
    np.testing.assert_allclose(b @ b.T, expected, atol=1e-6)


def test_repetition_adds_the_noise_less_its_block_mean():
    pyramid = make_pyramid(FlowPath(), shape=(16, 2, 2))
    z = np.random.default_rng(0).standard_normal((2, 16, 2, 2, 1)).astype(np.float32)
    got = stage_transition(pyramid, 2, jnp.zeros((2, 8, 2, 2, 1)), z)
    pairs = z.reshape(2, 8, 2, 2, 2, 1)
    expected = pyramid.stages[2].sigma_start * (pairs - pairs.mean(2, keepdims=True))
    np.testing.assert_allclose(got, expected.reshape(z.shape), atol=1e-6)


def test_without_renoising_it_is_upsampling_alone_and_leaves_wrong_noise():
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1))
    previous, stage = pyramid.stages[:2]
    a, b = jump_matrices(pyramid, 1, renoise=False)
    np.testing.assert_array_equal(a, stage.jump.upsample.matrices[0])
    np.testing.assert_array_equal(b, 0.0)
    covariance = previous.sigma_end**2 * a @ a.T
    assert np.abs(covariance - stage.sigma_start**2 * np.eye(8)).max() > 0.4


@pytest.mark.parametrize("pyramid", OVERLAPPING)
def test_an_overlap_starts_a_stage_noisier_and_adds_noise_in_every_direction(pyramid):
    for previous, stage in itertools.pairwise(pyramid.stages):
        least = np.linalg.norm(stage.jump.upsample.matrices[0], ord=2) ** 2
        surplus = stage.nu_start**2 / (least * previous.nu_end**2)
        assert surplus > 1.005 and stage.jump.eigenvalue == pytest.approx(surplus * least)
        _, b = jump_matrices(pyramid, stage.index)
        smallest = np.linalg.svd(b, compute_uv=False)[-1]
        assert smallest == pytest.approx(stage.sigma_start * math.sqrt(1 - 1 / surplus), rel=1e-4)


@pytest.mark.parametrize("pyramid", EVERY_JUMP)
def test_lifted_noise_is_white(pyramid):
    for index in range(1, pyramid.num_stages):
        f_before, f = (pyramid.stages[i].num_frames for i in (index - 1, index))
        no_z, no_eps = jnp.zeros((f_before, f, 1, 1, 1)), jnp.zeros((f, f_before, 1, 1, 1))
        a = matrix_of(lambda eps, i=index, z=no_z: lift_noise(pyramid, i, eps, z), f_before)
        b = matrix_of(lambda z, i=index, eps=no_eps: lift_noise(pyramid, i, eps, z), f)
        np.testing.assert_allclose(a @ a.T + b @ b.T, np.eye(f), atol=1e-6)


@pytest.mark.parametrize("pyramid", EVERY_JUMP)
def test_with_lifted_noise_the_jump_lands_on_the_training_path(pyramid):
    """Path by path, so that whatever couples noise and data at stage 0 is handed on exactly."""
    rng = np.random.default_rng(0)
    x_0 = rng.standard_normal((2, *pyramid.shape, 2)).astype(np.float32)
    shapes = [(2, *stage.shape, 2) for stage in pyramid.stages]
    eps = x_0[:, : shapes[0][1]]  # as coupled as can be
    _, x_end = stage_end_points(pyramid, 0, x_0, eps)
    for index in range(1, pyramid.num_stages):
        z = rng.standard_normal(shapes[index]).astype(np.float32)
        arrived = stage_transition(pyramid, index, x_end, z)
        eps = lift_noise(pyramid, index, eps, z)
        x_start, x_end = stage_end_points(pyramid, index, x_0, eps)
        np.testing.assert_allclose(arrived, x_start, atol=1e-5)


MEANS = [
    pytest.param(path, mean, overlap, id=f"{number}-{mean}-{overlap}")
    for number, path in enumerate(PATHS)
    for mean, overlap in [(0.7, 1.0), ((0.7,), 2.0), ((-0.4, 1.3), 1.0), ((0.0, 0.5), 1.5)]
]


@pytest.mark.parametrize("frames", [8, 9])
@pytest.mark.parametrize(("path", "mean", "overlap"), MEANS)
def test_inserted_frames_start_from_the_datas_mean_and_kept_ones_go_on(path, mean, overlap, frames):
    pyramid = make_pyramid(
        path, shape=(frames, 1, 1), upsample="insert", data_mean=mean, overlap=overlap,
        stage_fractions=(2, 1, 1),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for previous, stage in itertools.pairwise(pyramid.stages):
        # Nothing is left of the mean's place in noise: the same moments as for a mean of 0 ...
        f = stage.num_frames
        x, z = rng.standard_normal((3, previous.num_frames, 1, 1, 2)), np.zeros((3, f, 1, 1, 2))
        got = np.asarray(stage_transition(pyramid, stage.index, x, z))
        # ... kept frames are scaled, new ones gamma_s mu.
        np.testing.assert_allclose(got[:, ::2], x * stage.jump.scale, rtol=1e-6, atol=1e-6)
        expected = stage.gamma_start * np.broadcast_to(mean, (3, f - got[:, ::2].shape[1], 1, 1, 2))
        np.testing.assert_allclose(got[:, 1::2], expected, atol=1e-6)
        z = rng.standard_normal((3, f, 1, 1, 2))
        fresh = np.asarray(stage_transition(pyramid, stage.index, x, z)) - got
        np.testing.assert_allclose(fresh[:, 1::2], stage.sigma_start * z[:, 1::2], atol=2e-6)
        kept = stage.sigma_start * math.sqrt(1 - 1 / overlap) * z[:, ::2]
        np.testing.assert_allclose(fresh[:, ::2], kept, atol=2e-6)
        if overlap == 1.0:  # windows meet, and kept frames go on as they are
            assert stage.t_start == pytest.approx(previous.t_end, rel=1e-6)
            assert stage.jump.scale == pytest.approx(1.0, rel=1e-6)
        # The noise of kept frames goes on too, without a mean.
        lifted = lift_noise(pyramid, stage.index, x, np.zeros_like(z))
        np.testing.assert_allclose(lifted[:, ::2], x / math.sqrt(overlap), atol=1e-6)
        np.testing.assert_array_equal(lifted[:, 1::2], 0.0)


@pytest.mark.parametrize(("path", "mean", "overlap"), MEANS)
def test_with_a_mean_the_jump_lands_on_the_training_path_too(path, mean, overlap):
    pyramid = make_pyramid(
        path, shape=(9, 2, 1), upsample="insert", data_mean=mean, overlap=overlap,
        stage_fractions=(2, 1, 1),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x_0 = rng.standard_normal((2, 9, 2, 1, 2)).astype(np.float32)
    eps = x_0[:, :3]
    _, x_end = stage_end_points(pyramid, 0, x_0, eps)
    for stage in pyramid.stages[1:]:
        z = rng.standard_normal((2, *stage.shape, 2)).astype(np.float32)
        arrived = stage_transition(pyramid, stage.index, x_end, z)
        eps = lift_noise(pyramid, stage.index, eps, z)
        x_start, x_end = stage_end_points(pyramid, stage.index, x_0, eps)
        np.testing.assert_allclose(arrived, x_start, atol=1e-5)


def test_a_mean_of_other_channels_is_refused():
    pyramid = make_pyramid(FlowPath(), shape=(8, 1, 1), upsample="insert", data_mean=(1, 2, 3))
    for channels in (1, 2, 4):
        x, z = jnp.zeros((1, 2, 1, 1, channels)), jnp.zeros((1, 4, 1, 1, channels))
        with pytest.raises(
            ValueError, match=r"pyramid\.data_mean is \(1.0, 2.0, 3.0\); allowed: one"
        ):
            stage_transition(pyramid, 1, x, z)


@pytest.mark.parametrize("upsample", ["nearest", "nearest_next", "linear", "dct"])
def test_every_other_u_keeps_a_constant_and_needs_no_mean(upsample):
    options = {"upsample": upsample, "downsample": "dct" if upsample == "dct" else "stride"}
    x = np.random.default_rng(0).standard_normal((1, 3, 1, 1, 1)).astype(np.float32)
    plain, with_mean = (
        make_pyramid(FlowPath(), shape=(9, 1, 1), data_mean=mean, **options) for mean in (0.0, 5.0)
    )
    known = plain.stages[1].jump.known(x), with_mean.stages[1].jump.known(x)
    np.testing.assert_array_equal(*known)
    ones = plain.stages[1].jump.known(jnp.ones((1, 3, 1, 1, 1)))
    np.testing.assert_allclose(ones, 1.0, atol=1e-6)


@pytest.mark.parametrize("function", [stage_transition, lift_noise])
@pytest.mark.parametrize("index", [0, -1, 3])
def test_nothing_jumps_into_stage_0_or_one_that_is_not_there(function, index):
    pyramid = make_pyramid(FlowPath(), shape=(16, 1, 1))
    with pytest.raises(ValueError, match=r"stage_index is -?\d; allowed: 1 to 2"):
        function(pyramid, index, jnp.zeros((1, 4, 1, 1, 1)), jnp.zeros((1, 4, 1, 1, 1)))


@pytest.mark.parametrize("function", [stage_transition, lift_noise])
@pytest.mark.parametrize("shapes", [((1, 8), (1, 8)), ((1, 4), (1, 4)), ((2, 4), (1, 8))])
def test_shapes_that_do_not_fit_are_refused_while_tracing(function, shapes):
    pyramid = make_pyramid(FlowPath(), shape=(16, 2, 2))
    x, z = (jnp.zeros((*shape, 2, 2, 1)) for shape in shapes)
    with pytest.raises(AssertionError):
        function(pyramid, 1, x, z)
