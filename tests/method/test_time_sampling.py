"""Times drawn in training: logit-normal within each stage's window, stratified; uniform as before.

Expected values are scipy's laws and Stable Diffusion 3's draw, written out.
"""

import jax
import numpy as np
import pytest
from scipy import special, stats

from tests.tiny import tiny_config
from tpdiff_jax.experiment.build import build_experiment, check_fields
from tpdiff_jax.method import (
    DDIMPath,
    FlowPath,
    loss_weight,
    make_pyramid,
    mean_loss_weight,
    sample_times,
)
from tpdiff_jax.method.time_sampling import TimeSampling

BATCH = 4096
MIDDLES = (np.arange(BATCH) + 0.5) / BATCH
LAWS = [(0.0, 1.0), (0.5, 1.0), (-1.0, 0.5), (1.0, 2.0)]


def logit_normal(mean, std):
    return TimeSampling(name="logit_normal", logit_mean=mean, logit_std=std)


def pyramid(sampling, strides=(4, 2, 1), path=None, **fields):
    path = FlowPath() if path is None else path
    return make_pyramid(path, shape=(9, 1, 1), strides=strides, time_sampling=sampling, **fields)


def draw(of, stage_index=0, seed=0, number=BATCH):
    return np.asarray(sample_times(of, stage_index, jax.random.key(seed), number))


def even_time(t, shift):
    return np.float64(t) / (shift - (shift - 1.0) * np.float64(t))


@pytest.mark.parametrize(("mean", "std"), LAWS)
@pytest.mark.parametrize("path", [FlowPath(), DDIMPath()], ids=["flow", "ddim"])
@pytest.mark.parametrize(("shift", "stage_index"), [(1.0, 0), (1.0, 1), (1.0, 2), (3.0, 1)])
def test_the_share_of_the_window_is_logit_normal_and_stratified(
    mean, std, path, shift, stage_index
):
    """One time in each b-th of the law, so every quantile is known to 1 / b."""
    of = pyramid(logit_normal(mean, std), path=path, time_shift=shift)
    stage, t = of.stages[stage_index], draw(of, stage_index)
    assert t.dtype == np.float32
    assert t.min() >= stage.t_end and t.max() < stage.t_start
    ends = even_time(stage.t_end, shift), even_time(stage.t_start, shift)
    share = (np.sort(even_time(t, shift)) - ends[0]) / (ends[1] - ends[0])
    reached = stats.norm.cdf(special.logit(np.clip(share, 1e-12, 1 - 1e-12)), mean, std)
    np.testing.assert_allclose(reached, MIDDLES, atol=0.51 / BATCH + 2e-4)


@pytest.mark.parametrize(("mean", "std"), LAWS)
def test_one_stage_draws_as_stable_diffusion_3_does(mean, std):
    """Of sigmoid(mean + std z), z normal: here z is Phi^{-1} of the stratified uniform draws."""
    key_order, key_offset = jax.random.split(jax.random.key(7))
    quantile = jax.random.permutation(key_order, 64) + jax.random.uniform(key_offset, (64,))
    normal = stats.norm.ppf(np.float64(quantile) / 64)
    expected = special.expit(mean + std * normal)
    found = draw(pyramid(logit_normal(mean, std), strides=(1,)), seed=7, number=64)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), LAWS)
@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_a_time_shift_adds_its_logarithm_to_the_mean_of_one_stage(mean, std, shift):
    shifted = draw(pyramid(logit_normal(mean, std), strides=(1,), time_shift=shift))
    moved = draw(pyramid(logit_normal(mean + np.log(shift), std), strides=(1,)))
    np.testing.assert_allclose(shifted, moved, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("stage_index", [0, 1, 2])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_uniform_is_the_default_and_ignores_the_normal_law(stage_index, shift):
    """To the last bit; its values are those of `test_time_shift`."""
    plain = make_pyramid(FlowPath(), shape=(9, 1, 1), time_shift=shift)
    uniform = pyramid(TimeSampling(logit_mean=3.0, logit_std=0.1), time_shift=shift)
    np.testing.assert_array_equal(draw(plain, stage_index), draw(uniform, stage_index))


@pytest.mark.parametrize("mean", [-20.0, 20.0])
@pytest.mark.parametrize("std", [1e-6, 20.0])
@pytest.mark.parametrize("number", [1, 7])
def test_the_farthest_laws_stay_within_the_window(mean, std, number):
    of = pyramid(logit_normal(mean, std))
    for i, stage in enumerate(of.stages):
        for seed in range(3):
            t = draw(of, i, seed, number)
            assert np.all((t >= stage.t_end) & (t < stage.t_start))


@pytest.mark.parametrize("ends", [0.0, 1.0])
def test_the_ends_of_the_uniform_draw_are_those_of_the_window(ends):
    share = logit_normal(0.3, 1.7).shares(np.float32(ends))
    assert float(share) == ends


@pytest.mark.parametrize(("mean", "std"), LAWS)
def test_equal_stage_weights_are_equal_over_the_times_drawn(mean, std):
    """The mean of 1 / max(t, 0.2)^2 over the law, by scipy's density."""
    of = pyramid(logit_normal(mean, std), path=FlowPath(prediction="data"),
                 stage_weighting="equal")  # fmt: skip
    z = np.linspace(-8.0, 8.0, 200_001)
    density = stats.norm.pdf(z)
    for i, stage in enumerate(of.stages):
        share = special.expit(mean + std * z)
        t = stage.t_end + (stage.t_start - stage.t_end) * share
        weight = np.maximum(t, 0.2) ** -2.0
        expected = np.trapezoid(weight * density, z) / np.trapezoid(density, z)
        assert mean_loss_weight(of, i) == pytest.approx(expected, rel=1e-4)
        assert float(np.mean(loss_weight(of, i, draw(of, i)))) == pytest.approx(1.0, rel=3e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "mode"}, r"train\.time_sampling is 'mode'; allowed: 'uniform', 'logit_normal'"),
        ({"logit_std": 0.0}, r"train\.logit_std is 0.0; allowed: \(0, 20\]"),
        ({"logit_std": float("nan")}, r"train\.logit_std is nan"),
        ({"logit_mean": float("inf")}, r"train\.logit_mean is inf; allowed: \[-20, 20\]"),
        ({"logit_mean": "a"}, r"train\.logit_mean is 'a'"),
    ],
)
def test_a_law_that_is_none_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TimeSampling(**fields)


def test_the_config_says_the_law_and_old_configs_are_uniform():
    fields = {"time_sampling": "logit_normal", "logit_mean": 0.25, "logit_std": 1.5}
    config = tiny_config(**{f"train__{name}": value for name, value in fields.items()})
    assert build_experiment(config).pyramid.time_sampling == logit_normal(0.25, 1.5)
    config.train.logit_std = 0.0
    with pytest.raises(ValueError, match=r"train\.logit_std"):
        check_fields(config)  # without data or devices
    with config.unlocked():
        for name in fields:
            del config.train[name]
    assert build_experiment(config).pyramid.time_sampling == TimeSampling()
