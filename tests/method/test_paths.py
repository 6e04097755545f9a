"""Noise paths: their closed forms, their ends, their inverses, and what they refuse."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.scales import broadcast_time

DDIM_PATHS = [
    DDIMPath(),
    DDIMPath(betas="linear"),
    DDIMPath(zero_terminal_snr=True),
    DDIMPath(betas="linear", zero_terminal_snr=True, final_alpha="first"),
    DDIMPath(final_alpha="first", num_grid_points=50),
]
PATHS = [FlowPath(), *DDIM_PATHS]


def explicit_abar(path):
    """The cumulated product of 1 - beta, one grid point at a time."""
    abar, product = [], 1.0
    for k in range(path.num_grid_points):
        share = k / (path.num_grid_points - 1)
        if path.betas == "linear":
            beta = path.beta_start + share * (path.beta_end - path.beta_start)
        else:
            root_start, root_end = math.sqrt(path.beta_start), math.sqrt(path.beta_end)
            beta = (root_start + share * (root_end - root_start)) ** 2
        product *= 1.0 - beta
        abar.append(product)
    return np.array(abar)


def test_flow_is_straight_in_t():
    t = np.linspace(0.0, 1.0, 11, dtype=np.float32)
    path = FlowPath()
    np.testing.assert_allclose(path.gamma(t), 1 - t, rtol=1e-6)
    np.testing.assert_allclose(path.sigma(t), t, rtol=1e-6)
    np.testing.assert_allclose(path.network_time(t), 1000 * t, rtol=1e-6)
    assert np.isinf(path.nu(jnp.float32(1.0)))


@pytest.mark.parametrize("betas", ["scaled_linear", "linear"])
def test_ddim_meets_the_schedule_at_its_grid_points(betas):
    path = DDIMPath(betas=betas)
    t = (np.arange(1000) + 1) / 1000
    abar = explicit_abar(path)
    np.testing.assert_allclose(path.gamma(t), np.sqrt(abar), rtol=2e-6)
    np.testing.assert_allclose(path.sigma(t), np.sqrt(1 - abar), rtol=2e-6)


def test_stable_diffusion_ends_at_a_signal_of_0_068():
    assert DDIMPath().host_scales(1.0).gamma == pytest.approx(0.0683, abs=1e-4)


def test_gamma_is_linear_between_grid_points():
    path, k = DDIMPath(), 400
    below, above = np.sqrt(explicit_abar(path))[k : k + 2]
    expected = 0.7 * below + 0.3 * above
    assert path.host_scales((k + 1.3) / 1000).gamma == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("path", DDIM_PATHS)
def test_ddim_preserves_variance(path):
    t = np.linspace(0.0, 1.0, 301, dtype=np.float32)
    np.testing.assert_allclose(path.gamma(t) ** 2 + path.sigma(t) ** 2, 1.0, atol=1e-6)


def test_ddim_sigma_keeps_its_digits_near_the_data():
    t = np.array([1e-5, 1e-4, 1e-3, 3e-3])
    gamma = np.interp(t, [0, 1e-3, 2e-3, 3e-3], [1, *np.sqrt(explicit_abar(DDIMPath()))[:3]])
    expected = np.sqrt((1 - gamma) * (1 + gamma))
    np.testing.assert_allclose(DDIMPath().sigma(t.astype(np.float32)), expected, rtol=1e-5)


def test_abar_at_0_is_one_or_the_first():
    assert DDIMPath().host_scales(0.0) == (1.0, 0.0, 0.0)
    first = DDIMPath(final_alpha="first")
    assert first.host_scales(0.0).gamma == pytest.approx(math.sqrt(1 - 0.00085), rel=1e-12)
    assert float(first.gamma(0.0)) == pytest.approx(math.sqrt(1 - 0.00085), rel=1e-6)


def test_zero_terminal_snr_ends_at_pure_noise_and_keeps_the_first_point():
    path = DDIMPath(zero_terminal_snr=True)
    assert path.host_scales(1.0) == (0.0, 1.0, math.inf)
    assert float(path.gamma(1.0)) == 0.0 and float(path.sigma(1.0)) == 1.0
    assert np.isinf(path.nu(1.0))
    root = np.sqrt(explicit_abar(path))
    expected = (root[500] - root[-1]) * root[0] / (root[0] - root[-1])
    assert path.host_scales(0.001).gamma == pytest.approx(root[0], rel=1e-12)
    assert path.host_scales(0.501).gamma == pytest.approx(expected, rel=1e-9)


def test_ddim_network_time_is_the_grid_index():
    t = np.array([0.0, 0.0005, 0.001, 0.5, 1.0])
    np.testing.assert_allclose(DDIMPath().network_time(t), [0, 0, 0, 499, 999], atol=1e-4)


@pytest.mark.parametrize("path", PATHS)
def test_nu_rises_and_t_from_nu_inverts_it(path):
    # Below the first grid point a path with final_alpha="first" stands still.
    times = np.linspace(0.03, 1.0, 98)
    ratios = [path.host_scales(t).nu for t in times]
    assert all(high > low for low, high in zip(ratios[:-1], ratios[1:], strict=True))
    np.testing.assert_allclose([path.t_from_nu(nu) for nu in ratios], times, rtol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_compiled_device_numbers_equal_the_host_numbers(path):
    times = np.linspace(0.01, 0.99, 99)
    host = np.array([path.host_scales(t) for t in times]).T
    device = jax.jit(lambda t: (path.gamma(t), path.sigma(t), path.nu(t)))(times)
    for one, other in zip(device, host, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5)


def test_broadcast_time_appends_axes():
    assert broadcast_time(jnp.zeros(3)).shape == (3, 1, 1, 1, 1)
    assert broadcast_time(jnp.zeros(3), 2).shape == (3, 1)
    assert broadcast_time(0.5).shape == ()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"betas": "cosine"}, "path.betas"),
        ({"final_alpha": "last"}, "path.final_alpha"),
        ({"prediction": "x0"}, "path.prediction"),
        ({"beta_start": 0.0}, "path.beta_start"),
        ({"beta_end": 1.0}, "path.beta_end"),
        ({"beta_end": 1e-4}, "path.beta_end"),
        ({"num_grid_points": 1}, "path.num_grid_points"),
        ({"prediction": "eps", "zero_terminal_snr": True}, "path.prediction"),
    ],
)
def test_ddim_refuses_by_field_name(changes, field):
    with pytest.raises(ValueError, match=field):
        DDIMPath(**changes)


@pytest.mark.parametrize("nu", [-0.1, math.nan])
def test_flow_refuses_a_ratio_it_does_not_reach(nu):
    with pytest.raises(ValueError, match="nu is"):
        FlowPath().t_from_nu(nu)


@pytest.mark.parametrize("nu", [-0.1, 15.0, math.inf, math.nan])
def test_ddim_refuses_a_ratio_it_does_not_reach(nu):
    with pytest.raises(ValueError, match="nu is"):
        DDIMPath().t_from_nu(nu)
