"""Positions of stages whose frames have the full size."""

import numpy as np

from tpdiff_jax.types import Positions


def at(frames, x):
    """Frames of [b, f, h, w, c] at these positions, rows and columns at 0, 1, 2, ..."""
    return Positions(frames, *(np.arange(n, dtype=np.float32) for n in x.shape[2:4]))
