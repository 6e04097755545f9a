"""The jump from one stage to the next: more frames, rows or columns, and noise white again.

U repeats or interpolates, so the noise of U xe_{i-1} is correlated: its covariance is
sigma_e^2 U U^T. Scaling by gamma_s/gamma_e gives the next stage's mean, and fresh noise of
covariance sigma_s^2 I - (gamma_s/gamma_e)^2 sigma_e^2 U U^T gives it white noise of level
sigma_s. At nu_s = sqrt(L) nu_e, where `stages` starts the stage, that is

    (gamma_s/gamma_e)^2 sigma_e^2 = sigma_s^2 / L,    so    sigma_s^2 (I - U U^T / L)

and its root is `Jump.noise_factor`: for repetition, z minus its block mean.

Nothing here knows which axes U acts on: `Jump.upsample` and `Jump.noise_factor` are linear maps.
Where U makes nothing at all ("insert"), the data's mean mu stands: read U xe as
U xe + gamma_e (1 - U 1) mu, which moves the mean with it and leaves the covariance.
"""

import chex

from tpdiff_jax.method.pyramid import Jump, Pyramid
from tpdiff_jax.method.scales import at_least_float32
from tpdiff_jax.types import Array


def stage_transition(
    pyramid: Pyramid,
    stage_index: int,
    x_end_previous: Array,
    z: Array,
    *,
    renoise: bool = True,
) -> Array:
    """Start a stage from the end point of the stage before it.

        xs_i = (gamma_s/gamma_e) U xe_{i-1} + sigma_s (I - U U^T / L)^{1/2} z

    Args:
        pyramid: the pyramid.
        stage_index: i, the stage that is entered, 1 or more.
        x_end_previous: end point of stage i-1, [b, *shape of i-1, c].
        z: white noise, [b, *shape of i, c].
        renoise: False is the ablation U xe_{i-1}, which leaves the noise correlated and too weak.

    Returns:
        x_start, in at least float32, [b, *shape of i, c]: of the law of stage i's training paths
        at t = s_i.

    Raises:
        ValueError: stage 0, which nothing precedes, or no stage at all.

    Source: arXiv 2503.09566, Eq. 14 to 23. Differs from the paper: its Eq. 15 and 23 print the
    scale sqrt(2) gamma_s/(sigma_s + sqrt(2) gamma_s), which is gamma_e of its own Eq. 22 and not
    gamma_s/gamma_e (for flow at e = 2/3 and repetition by 2 it prints 0.333 where 0.784 is
    right); the scale here is the derived one. Its noise term, sqrt(2)/2 sigma_s with correlation
    -1 within a pair, is right and equals this one.
    """
    jump, z = _jump_into(pyramid, stage_index), at_least_float32(z)
    x_end_previous = at_least_float32(x_end_previous)
    _check_shapes(pyramid, stage_index, x_end_previous, z)
    upsampled = jump.known(x_end_previous, pyramid.stages[stage_index - 1].gamma_end)
    if not renoise:
        return upsampled
    sigma_start = pyramid.stages[stage_index].sigma_start
    return jump.scale * upsampled + sigma_start * jump.noise_factor(z)


def lift_noise(pyramid: Pyramid, stage_index: int, eps_previous: Array, z: Array) -> Array:
    """Carry the noise of one stage's training path on to the next, as the jump does.

        eps_i = U eps_{i-1} / sqrt(L) + (I - U U^T / L)^{1/2} z

    White if eps_{i-1} and z are; and then xs_i is, path by path, what the jump with the same z
    makes of xe_{i-1}: whatever couples eps_0 to the data, training and sampling agree.

    Args:
        pyramid: the pyramid.
        stage_index: i, 1 or more.
        eps_previous: noise of stage i-1, [b, *shape of i-1, c].
        z: fresh white noise, [b, *shape of i, c].

    Returns:
        The noise of stage i, [b, *shape of i, c].

    Raises:
        ValueError: stage 0, which nothing precedes, or no stage at all.

    Source: Differs from the paper: it pairs each stage's own noise with the data.
    """
    jump, z = _jump_into(pyramid, stage_index), at_least_float32(z)
    eps_previous = at_least_float32(eps_previous)
    _check_shapes(pyramid, stage_index, eps_previous, z)
    return jump.upsample(eps_previous) * jump.eigenvalue**-0.5 + jump.noise_factor(z)


def _jump_into(pyramid: Pyramid, stage_index: int) -> Jump:
    jump = pyramid.stage(stage_index, first=1).jump
    assert jump is not None  # of every stage but the first
    return jump


def _check_shapes(pyramid: Pyramid, stage_index: int, x: Array, z: Array) -> None:
    b, c = x.shape[0], x.shape[-1]
    chex.assert_shape(x, (b, *pyramid.stages[stage_index - 1].shape, c))
    chex.assert_shape(z, (b, *pyramid.stages[stage_index].shape, c))
