"""From what a network predicts to what a solver and a loss need.

Targets and solvers speak of velocity (flow) and of data and noise (DDIM). A network may predict
these, or the line's data itself, which a small network over large patches of pixels learns far
sooner: data lies near a surface of few dimensions, noise fills all of them (arXiv 2511.13720).
On the line of a stage

    flow:  dx/dt = (x_t - m_i)/t                      m_i the data of the line (`stage_targets`)
    DDIM:  eps_i = (x_t - gamma_t a_i)/sigma_t,       v_i = (gamma_t x_t - a_i)/sigma_t

so an error of the data is an error 1/t (1/sigma_t) times larger of the velocity (of v), and
weighting the squared error by its square makes it the loss of velocity (of v) prediction.
"""

import chex
import jax.numpy as jnp

from tpdiff_jax.method.paths import broadcast_time
from tpdiff_jax.method.stages import Pyramid
from tpdiff_jax.types import Array

MIN_SIGMA = 0.2
"""Smallest noise scale in the weight of data prediction: below it the weight stays constant.

The paper of data prediction takes 0.05; then nearly all of the loss comes from the smallest t,
where the sample has all but its last digits.
"""


def loss_weight(pyramid: Pyramid, t: Array) -> Array:
    """Weight of a sample's squared error: 1, or for data prediction 1/max(sigma_t, 0.2)^2.

    Args:
        pyramid: the pyramid.
        t: noise time, [b].

    Returns:
        Weights, [b].

    Source: arXiv 2511.13720 for data prediction under the velocity's loss.
    """
    if pyramid.path.prediction != "data":
        return jnp.ones_like(t)
    return jnp.maximum(pyramid.path.sigma(t), MIN_SIGMA) ** -2.0


def output_to_velocity(
    pyramid: Pyramid, stage_index: int, x_t: Array, t: Array, output: Array
) -> Array:
    """dx/dt from the output of a flow network.

        velocity:  the output, or output / (s - e) where the target is dx/du
        data:      (x_t - output) / t

    Args:
        pyramid: a pyramid on the flow path.
        stage_index: i.
        x_t: noisy video, [b, f, h, w, c].
        t: its noise time, above 0, [b] or a scalar.
        output: the network's prediction, [b, f, h, w, c].

    Returns:
        The velocity in t, [b, f, h, w, c].

    Source: arXiv 2503.09566, Eq. 13.
    """
    chex.assert_equal_shape([x_t, output])
    if pyramid.path.prediction == "data":
        return (x_t - output) / broadcast_time(t, x_t.ndim)
    if pyramid.target_unit == "time":
        return output
    stage = pyramid.stages[stage_index]
    return output / (stage.t_start - stage.t_end)


def output_to_data_and_noise(
    pyramid: Pyramid, x_t: Array, t: Array, output: Array
) -> tuple[Array, Array]:
    """a_i and eps_i from the output of a DDIM network.

        v:     a_i = gamma_t x_t - sigma_t v,         eps_i = sigma_t x_t + gamma_t v
        eps:   a_i = (x_t - sigma_t eps) / gamma_t,   eps_i = eps
        data:  a_i = the output,                      eps_i = (x_t - gamma_t a_i) / sigma_t

    Args:
        pyramid: a pyramid on the DDIM path.
        x_t: noisy video, [b, f, h, w, c].
        t: its noise time, [b] or a scalar; above 0 for data prediction.
        output: the network's prediction, [b, f, h, w, c].

    Returns:
        The stage's data prediction a_i and noise prediction eps_i, both [b, f, h, w, c].

    Source: arXiv 2503.09566, Eq. 11; arXiv 2202.00512 for v.
    """
    chex.assert_equal_shape([x_t, output])
    t = broadcast_time(t, x_t.ndim)
    gamma_t, sigma_t = pyramid.path.gamma(t), pyramid.path.sigma(t)
    if pyramid.path.prediction == "eps":
        return (x_t - sigma_t * output) / gamma_t, output
    if pyramid.path.prediction == "data":
        return output, (x_t - gamma_t * output) / sigma_t
    return gamma_t * x_t - sigma_t * output, sigma_t * x_t + gamma_t * output
