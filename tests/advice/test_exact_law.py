"""The law of few steps, by matrices here, against the package's own sampler and closed forms."""

import jax
import numpy as np
import pytest

from tests.method.gaussian_world import GaussianWorld, moving_video_law, sampled_law
from tpdiff_jax.advice.clip_spectrum import ClipSpectrum
from tpdiff_jax.advice.exact_law import GaussianVideos
from tpdiff_jax.advice.jump_debts import information_debts, visible_details
from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.sampler_spec import SamplerSpec
from tpdiff_jax.method.stages import make_pyramid

FLOW, DDIM = FlowPath(), DDIMPath(zero_terminal_snr=True)


def spectrum_of(*covs, counts=None):
    return ClipSpectrum(
        covs=np.stack(covs),
        counts=np.array(counts or [1] * len(covs), float),
        frequencies=np.linspace(0.0, 0.5, len(covs)),
        num_clips=1,
    )


def pyramid_of(path, num_frames=8, strides=(4, 2, 1), up="nearest", **options):
    return make_pyramid(path, shape=(num_frames, 1, 1), strides=strides, upsample=up, **options)


@pytest.mark.parametrize(
    "path, solver, options",
    [
        (FLOW, "euler", {}),
        (FLOW, "second_order", {"up": "linear", "time_shift": 2.0}),
        (FLOW, "second_order", {"strides": (2, 1), "num_frames": 9, "downsample": "mean"}),
        (DDIM, "euler", {"up": "linear", "stage_fractions": (0.3, 0.3, 0.4)}),
        (DDIM, "second_order", {"strides": (1,)}),
        (DDIMPath(), "second_order", {"up": "nearest_next", "num_frames": 9}),
        (FLOW, "euler", {"up": "dct", "downsample": "dct", "power": 1.5}),
        (DDIM, "second_order", {"up": "insert", "overlap": 2.0, "power": (1.0, 2.0, 0.5)}),
        (FLOW, "euler", {"line": "marginal"}),
        (FLOW, "euler", {"renoise": False}),
    ],
)
def test_it_is_the_law_of_the_real_sampler(path, solver, options):
    power, renoise = options.get("power", 1.0), options.get("renoise", True)
    of_pyramid = {name: options[name] for name in options if name not in ("power", "renoise")}
    pyramid = pyramid_of(path, **of_pyramid)
    down, up = options.get("downsample", "stride"), options.get("up", "nearest")
    mean, cov = moving_video_law(pyramid.num_frames)
    steps = tuple(range(3, 3 + pyramid.num_stages))
    spec = SamplerSpec(steps_per_stage=steps, solver=solver, grid_power=power, renoise=renoise)
    with jax.enable_x64(True):
        world = GaussianWorld(pyramid, down, up, 0.0 * mean, cov)
        _, expected = sampled_law(world, spec)
    other = np.diag(np.linspace(0.5, 2.0, pyramid.num_frames))  # bands do not touch each other
    found = GaussianVideos(spectrum_of(other, cov)).sampled_covs(pyramid, spec)
    np.testing.assert_allclose(found[1], expected, atol=2e-6)


def test_the_distance_is_that_of_optimal_transport():
    # Commuting covariances: the distance of the standard deviations along common axes.
    data, other = np.array([4.0, 1.0, 0.25]), np.array([1.0, 1.0, 0.0])
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    covs = [turn @ np.diag(values) @ turn.T for values in (data, other)]
    videos = GaussianVideos(spectrum_of(covs[0], covs[0], counts=[1, 3]))
    found = videos.distance(np.stack([covs[1], covs[0]]))
    squares = np.sum((np.sqrt(data) - np.sqrt(other)) ** 2)
    assert found == pytest.approx(np.sqrt(squares / (4 * data.sum())), rel=1e-6)
    assert videos.distance(np.stack([covs[0]] * 2)) == pytest.approx(0.0, abs=1e-7)
    assert videos.distance(np.zeros((2, 3, 3))) == pytest.approx(1.0)


@pytest.mark.parametrize("path", [FLOW, DDIM])
@pytest.mark.parametrize("strides", [(1,), (4, 2, 1)])
def test_the_error_goes_to_nothing_with_the_steps(path, strides):
    pyramid = pyramid_of(path, strides=strides)
    videos = GaussianVideos(spectrum_of(moving_video_law(8)[1]))
    errors = [
        videos.error(
            pyramid, SamplerSpec(steps_per_stage=(steps,) * len(strides), solver="second_order")
        )
        for steps in (5, 40, 320)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


def test_one_euler_step_of_ordinary_flow_shows_the_mean():
    # At t = 1 the input is noise alone, so that the best guess of the data is their mean, 0.
    videos = GaussianVideos(spectrum_of(np.eye(4)))
    pyramid = pyramid_of(FLOW, num_frames=4, strides=(1,))
    assert videos.error(pyramid, SamplerSpec(steps_per_stage=(1,))) == pytest.approx(1.0)


def test_still_videos_and_silent_bands_are_no_trouble():
    still = np.ones((8, 8))
    for path in (FLOW, DDIM):
        videos = GaussianVideos(spectrum_of(still, np.zeros((8, 8))))
        pyramid = pyramid_of(path)
        assert videos.error(pyramid, SamplerSpec(steps_per_stage=(10, 10, 10))) < 0.3
        np.testing.assert_allclose(information_debts(videos.spectrum, pyramid), 0.0, atol=1e-9)
        np.testing.assert_allclose(visible_details(videos.spectrum, pyramid), 0.0, atol=1e-9)


def test_debt_and_visible_detail_of_frames_with_nothing_in_common():
    # x_i has F independent frames of variance v, a copy F/2 pairs: 1/2 log(1 + 2 v / nu^2) each.
    v, frames = 3.0, 8
    pyramid = pyramid_of(FLOW, num_frames=frames, strides=(2, 1))
    nu = pyramid.stages[1].nu_start
    own = frames * np.log(1 + v / nu**2) / 2
    known = frames / 2 * np.log(1 + 2 * v / nu**2) / 2
    found = information_debts(spectrum_of(v * np.eye(frames), counts=[5]), pyramid)
    assert found == pytest.approx([5 * (own - known) / (frames / 2)])
    # Half the frames differ from their copies, by twice the variance.
    seen = visible_details(spectrum_of(v * np.eye(frames), counts=[5]), pyramid)
    assert seen == pytest.approx([1000 * np.log(1 + 2 * v / nu**2) / 2])  # 5 numbers a frame


def test_a_noisier_jump_owes_less():
    spectrum = spectrum_of(moving_video_law(8)[1])
    debts = [
        information_debts(spectrum, pyramid_of(FLOW, strides=(2, 1), stage_fractions=(a, 1 - a)))[0]
        for a in (0.2, 0.5, 0.8)
    ]
    assert debts == sorted(debts)
    details = [
        visible_details(spectrum, pyramid_of(FLOW, strides=(2, 1), stage_fractions=(a, 1 - a)))[0]
        for a in (0.2, 0.5, 0.8)
    ]
    assert details == sorted(details)
    assert information_debts(spectrum, pyramid_of(FLOW, strides=(1,))) == ()
