"""The type that latents and embeddings are stored in."""

import numpy as np

STORED = np.float16


def as_stored(values: np.ndarray, refusal: str) -> np.ndarray:
    """Return numbers in the stored type.

    Args:
        values: floating-point numbers of any shape.
        refusal: what to say where one is NaN, infinite or beyond the stored type.

    Raises:
        ValueError: with `refusal`.
    """
    with np.errstate(over="ignore"):
        stored = values.astype(STORED)
    if not np.isfinite(stored).all():
        raise ValueError(refusal)
    return stored
