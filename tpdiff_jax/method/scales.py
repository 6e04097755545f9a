"""Signal and noise scales as numbers of the host, and times as arrays of the device."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tpdiff_jax.types import Array, ArrayLike


class Scales(NamedTuple):
    """The path at one noise time, on the host: signal, noise, and nu = sigma / gamma."""

    gamma: float
    sigma: float
    nu: float


def at_least_float32(x: ArrayLike) -> Array:
    """The same numbers as a jax array of float32 or wider: half precision has three digits.

    Args:
        x: numbers of any type and shape; python's own count as float32.

    Returns:
        An array of the same shape.
    """
    is_plain = type(x) in (float, int)
    dtype = np.float32 if is_plain else jnp.promote_types(jnp.result_type(x), np.float32)
    return jnp.asarray(x, dtype)


def broadcast_time(t: ArrayLike, ndim: int = 5) -> Array:
    """Append axes to a per-sample number, so that it multiplies arrays of `ndim` axes.

    Args:
        t: one number per sample, [b] (or a scalar, which needs no axes).
        ndim: number of axes of the arrays it meets; 5 for [b, f, h, w, c].

    Returns:
        The same numbers, [b, 1, 1, 1, 1] for five axes; a scalar stays a scalar.
    """
    t = jnp.asarray(t)
    return t if t.ndim == 0 else t.reshape(t.shape + (1,) * (ndim - t.ndim))


def make_scales(gamma: float, sigma: float) -> Scales:
    """The scales with their ratio, infinite where there is no signal.

    Args:
        gamma: signal scale, 0 or more.
        sigma: noise scale, a standard deviation.

    Returns:
        gamma, sigma and nu.
    """
    return Scales(gamma, sigma, sigma / gamma if gamma > 0.0 else math.inf)


def shift_time(u: Any, shift: float) -> Any:
    """Noise time of an even time, t = s u / (1 + (s - 1) u); 0 and 1 stay.

    Args:
        u: in [0, 1]; numbers or arrays.
        shift: s, above 0; 1 changes nothing.

    Returns:
        t, in [0, 1], rising with u.

    Source: arXiv 2403.03206, Eq. 23.
    """
    return shift * u / (1.0 + (shift - 1.0) * u)


def unshift_time(t: Any, shift: float) -> Any:
    """Even time of a noise time, u = t / (s - (s - 1) t): `shift_time` undone.

    Args:
        t: noise time in [0, 1]; numbers or arrays.
        shift: s, above 0.

    Returns:
        u, in [0, 1].

    Source: arXiv 2403.03206, Eq. 23.
    """
    return t / (shift - (shift - 1.0) * t)
