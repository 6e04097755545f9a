"""Data prediction says the same as velocity and v prediction, in target, solver and loss."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.method.test_stage_targets import draw
from tpdiff_jax.method.ddim_path import DDIMPath
from tpdiff_jax.method.losses import loss_weight, mean_loss_weight, mean_squared_error
from tpdiff_jax.method.paths import FlowPath
from tpdiff_jax.method.stage_line import output_to_line
from tpdiff_jax.method.stage_targets import training_point
from tpdiff_jax.method.stages import make_pyramid

TWINS = [
    (FlowPath(), FlowPath(prediction="data")),
    (DDIMPath(), DDIMPath(prediction="data")),
    (DDIMPath(zero_terminal_snr=True), DDIMPath(zero_terminal_snr=True, prediction="data")),
]
SHAPES = [
    (8, "stride", "nearest"),
    (8, "mean", "linear"),
    (9, "stride", "nearest_next"),
]


@pytest.mark.parametrize(("path", "data_path"), TWINS)
@pytest.mark.parametrize(("num_frames", "downsample", "upsample"), SHAPES)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_data_target_holds_the_same_line_and_loss(
    path, data_path, num_frames, downsample, upsample, index
):
    options = {"shape": (num_frames, 2, 3), "downsample": downsample, "upsample": upsample}
    pyramid, data_pyramid = make_pyramid(path, **options), make_pyramid(data_path, **options)
    x_0, eps, _ = draw(pyramid, index)
    stage = pyramid.stages[index]
    t = jnp.linspace(max(stage.t_end, 0.2), stage.t_start, 3)
    plain = training_point(pyramid, index, x_0, eps, t)
    data = training_point(data_pyramid, index, x_0, eps, t)
    np.testing.assert_array_equal(plain.x_t, data.x_t)

    def convert(pyramid, output):
        return jnp.stack(output_to_line(pyramid, index, data.x_t, t, output))

    true = convert(pyramid, plain.target)
    np.testing.assert_allclose(convert(data_pyramid, data.target), true, atol=2e-4)
    # An error of the data is an error 1/sigma larger of the velocity or of v.
    wrong = data.target + 0.3
    as_target = convert(data_pyramid, wrong)
    gamma_t, sigma_t = (f(t).reshape(-1, 1, 1, 1, 1) for f in (path.gamma, path.sigma))
    if isinstance(path, FlowPath):
        gamma_t = sigma_t = 1.0
    as_target = gamma_t * as_target[1] - sigma_t * as_target[0]
    np.testing.assert_allclose(
        loss_weight(data_pyramid, index, t) * mean_squared_error(wrong, data.target),
        mean_squared_error(as_target, plain.target),
        rtol=2e-3,
    )


def test_one_stage_of_data_prediction_predicts_the_data():
    pyramid = make_pyramid(FlowPath(prediction="data"), shape=(8, 2, 3), strides=(1,))
    x_0, eps, t = draw(pyramid, 0)
    np.testing.assert_array_equal(training_point(pyramid, 0, x_0, eps, t).target, x_0)


def test_the_weight_is_bounded_near_the_data_and_one_for_other_predictions():
    t = jnp.asarray([0.0, 0.01, 0.05, 0.5, 1.0])
    data = make_pyramid(FlowPath(prediction="data"), shape=(8, 2, 3))
    np.testing.assert_allclose(loss_weight(data, 0, t), [25, 25, 25, 4, 1], rtol=1e-5)
    for path in (FlowPath(), DDIMPath(), DDIMPath(prediction="eps")):
        np.testing.assert_array_equal(loss_weight(make_pyramid(path, shape=(8, 2, 3)), 0, t), 1.0)


def test_unknown_flow_prediction_is_refused():
    with pytest.raises(ValueError, match=r"path\.prediction.*'velocity', 'data'"):
        FlowPath(prediction="eps")


def test_equal_stage_weights_have_a_mean_of_one_and_the_raw_ones_do_not():
    """Means worked out by hand for flow: 1/t^2 integrates to 1/e - 1/s, and is 25 below 0.2."""
    path = FlowPath(prediction="data")
    raw = make_pyramid(path, shape=(16, 1, 1))
    equal = make_pyramid(path, shape=(16, 1, 1), stage_weighting="equal")
    s_1, s_2 = (stage.t_start for stage in raw.stages[1:])
    by_hand = [
        (3 / 2 - 1) / (1 / 3),
        (3 - 1 / s_1) / (s_1 - 1 / 3),
        (25 * 0.2 + 5 - 1 / s_2) / s_2,
    ]
    np.testing.assert_allclose(by_hand, [1.5, 4.06, 18.31], rtol=2e-3)
    for index, (stage, expected) in enumerate(zip(raw.stages, by_hand, strict=True)):
        assert mean_loss_weight(raw, index) == pytest.approx(expected, rel=1e-5)
        t = stage.t_end + (stage.t_start - stage.t_end) * (np.arange(4000) + 0.5) / 4000
        plain, even = (np.asarray(loss_weight(p, index, t)) for p in (raw, equal))
        assert plain.mean() == pytest.approx(expected, rel=1e-3)
        assert even.mean() == pytest.approx(1.0, rel=1e-3)
        np.testing.assert_allclose(even / even[0], plain / plain[0], rtol=1e-5)


@pytest.mark.parametrize("path", [FlowPath(), DDIMPath(), DDIMPath(prediction="eps")])
def test_stage_weighting_is_of_data_prediction_only(path):
    equal = make_pyramid(path, shape=(8, 1, 1), stage_weighting="equal")
    np.testing.assert_array_equal(loss_weight(equal, 2, jnp.asarray([0.1, 0.4])), 1.0)
