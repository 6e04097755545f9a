"""What a vanilla network gives when it is sampled through a pyramid: the law, in closed form.

A network of ordinary diffusion answers for the law of its stage's own video, N(m, S) at scales
gamma and sigma: C_t = gamma_t^2 S + sigma_t^2 I. Its flow from s to e is affine with the matrix
C_e^{1/2} C_s^{-1/2} (all of them commute), whatever it starts from. A jump hands on the law of
gamma_s U x + white noise instead, so that the law at the end is known in numpy alone.
"""

import jax
import numpy as np
import pytest

from tests.method.gaussian_world import (
    GaussianWorld,
    law_error,
    moving_video_law,
    path_scales,
    sampled_law,
    symmetric_root,
    video_downsampling,
    video_upsampling,
)
from tpdiff_jax.method import DDIMPath, FlowPath, SamplerSpec, make_pyramid

FLOW, DDIM = FlowPath(), DDIMPath(zero_terminal_snr=True)
PATHS = [pytest.param(FLOW, 2e-3, id="flow"), pytest.param(DDIM, 2e-2, id="ddim")]
MANY = 48


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def make_world(path, law, down="stride", up="nearest", strides=(4, 2, 1), **fields):
    shape = (len(law[0]), 1, 1)
    pyramid = make_pyramid(
        path, shape=shape, strides=strides, downsample=(down, "stride", "stride"),
        upsample=(up, "nearest", "nearest"), line="marginal", **fields,
    )  # fmt: skip
    return GaussianWorld(pyramid, (down, "stride", "stride"), (up, "nearest", "nearest"), *law)


def sampled(world):
    steps = (MANY,) * world.pyramid.num_stages
    spec = SamplerSpec(steps_per_stage=steps, solver="second_order", grid_power=1.5)
    return sampled_law(world, spec)


def predicted(world):
    """The law that jumps and flows lead to, stage after stage."""
    path, shape, stages = world.pyramid.path, world.pyramid.shape, world.pyramid.stages
    gamma_before = 1.0
    for i, stage in enumerate(stages):
        own = video_downsampling(shape, stage.strides, world.down)
        m, S = own @ world.mean, own @ world.cov @ own.T
        gamma_s, sigma_s = map(float, path_scales(path, stage.t_start))
        gamma_e, sigma_e = map(float, path_scales(path, stage.t_end))
        eye = np.eye(len(m))
        if i == 0:
            mean, cov = 0.0 * m, eye
        else:
            up = video_upsampling(shape, stages[i - 1].strides, stage.strides, world.down, world.up)
            largest = np.linalg.eigvalsh(up @ up.T)[-1]
            scale = gamma_s / gamma_before
            mean = scale * up @ mean
            cov = scale**2 * up @ cov @ up.T + sigma_s**2 * (eye - up @ up.T / largest)
        start, end = (g**2 * S + s**2 * eye for g, s in ((gamma_s, sigma_s), (gamma_e, sigma_e)))
        flow = symmetric_root(end) @ np.linalg.inv(symmetric_root(start))
        mean = gamma_e * m + flow @ (mean - gamma_s * m)
        cov, gamma_before = flow @ cov @ flow.T, gamma_e
    return mean, cov


@pytest.mark.parametrize(("path", "tolerance"), PATHS)
@pytest.mark.parametrize(
    ("down", "up"), [("stride", "nearest"), ("stride", "linear"), ("mean", "nearest"),
                     ("dct", "dct")],
)  # fmt: skip
def test_the_law_is_that_of_jumps_and_flows(path, tolerance, down, up):
    world = make_world(path, moving_video_law(8), down, up)
    found, expected = sampled(world), predicted(world)
    size = np.linalg.norm(expected[1])
    assert np.linalg.norm(found[0] - expected[0]) < 1e-4 * np.linalg.norm(expected[0])
    assert np.linalg.norm(found[1] - expected[1]) < tolerance * size
    assert law_error(world, expected)[1] > 0.01  # and not that of the data


def two_bands(common, difference):
    """Two frames whose mean and difference have these powers, in orthonormal coordinates."""
    basis = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2.0)
    return np.zeros(2) + 1e-12, basis @ np.diag([common, difference]) @ basis


@pytest.mark.parametrize("power", [0.02, 0.3, 2.0])
@pytest.mark.parametrize("delta", [0.01, 0.1])
def test_a_band_left_out_until_the_published_hand_over_lacks_the_share_that_it_allows(power, delta):
    """At t = 1 / (1 + sqrt(delta / (P (1 + P - delta)))) it lacks delta / (1 + P) of P."""
    handover = 1.0 / (1.0 + np.sqrt(delta / (power * (1.0 + power - delta))))
    nu_end = handover / (1.0 - handover) / np.sqrt(2.0)
    end = nu_end / (1.0 + nu_end)
    world = make_world(
        FLOW, two_bands(1.5, power), "mean", "nearest", (2, 1), stage_fractions=(1.0 - end, end)
    )
    assert world.pyramid.stages[1].t_start == pytest.approx(handover)
    left = power * (1.0 - delta / (1.0 + power))
    for (_, cov), tolerance in ((predicted(world), 1e-6), (sampled(world), 1e-2)):
        common, difference = (cov[0, 0] + sign * cov[0, 1] for sign in (1.0, -1.0))
        assert common == pytest.approx(1.5, rel=tolerance)
        assert difference == pytest.approx(left, rel=tolerance)


def test_the_error_falls_with_the_detail_and_with_the_noise_at_the_hand_over():
    """Shares of the detail's power, and of the window of the full video: in numpy alone."""

    def error(share, last):
        down = "mean"
        mean, cov = moving_video_law(8)
        blocks = np.kron(np.eye(2), np.full((4, 4), 0.25))
        detail = np.eye(8) - blocks
        keep = blocks + np.sqrt(share) * detail
        world = make_world(FLOW, (keep @ mean, keep @ cov @ keep.T), down, "nearest",
                           stage_fractions=(1.0 - 2 * last, last, last))  # fmt: skip
        return law_error(world, predicted(world))[1]

    by_detail = [error(share, 1 / 3) for share in (1.0, 0.1, 0.01)]
    by_window = [error(1.0, last) for last in (0.1, 1 / 3, 0.45)]
    assert by_detail[0] > 3 * by_detail[1] > 9 * by_detail[2]
    assert by_window[0] > 1.5 * by_window[1] > 2.25 * by_window[2]
