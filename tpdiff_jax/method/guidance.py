"""Classifier-free guidance: push a prediction away from what the network says of no condition.

Targets of every stage are linear in the conditional expectation, so guiding the raw network
output guides velocity, noise and data prediction alike. A stage's target mixes the detail that
the stage adds with the noise, so one scale does not mean the same in every stage: samplers take
one per stage, and scales other than 1 make no claim about the law of the samples.
"""

import jax
import jax.numpy as jnp
import numpy as np

from tpdiff_jax.types import Array, Cond, Positions, Predict, Strides


def guided(predict: Predict, guidance_scale: float, null_cond: Cond) -> Predict:
    """Wrap a network in classifier-free guidance.

        out = out_null + guidance_scale (out_cond - out_null)

    Both halves run in one call of twice the batch. Scale 1 is the network itself, called once.

    Args:
        predict: the network.
        guidance_scale: 1 for none, above 1 to follow the condition more closely (static).
        null_cond: the unconditional twin of the condition, the same pytree with leading axis b.

    Returns:
        A callable with the signature of `predict`. Its answer is at least float32: the scale
        would multiply the rounding of a half-precision difference.

    Raises:
        ValueError: a scale other than 1 without a null condition, or, when it is called, without
            a condition to guide by, or with one for another number of videos.

    Source: arXiv 2207.12598, Eq. 6.
    """
    if guidance_scale == 1.0:
        return predict
    if null_cond is None:
        raise ValueError(
            f"sample.guidance_scale is {guidance_scale} but no null condition is given; "
            "allowed without one: 1.0"
        )

    def predict_guided(
        x_t: Array, t: Array, positions: Positions, strides: Strides, cond: Cond
    ) -> Array:
        if cond is None:
            raise ValueError(
                f"sample.guidance_scale is {guidance_scale} but no condition is given; allowed "
                "without one: 1.0"
            )
        check_condition("cond", cond, x_t.shape[0])
        check_condition("null_cond", null_cond, x_t.shape[0])
        both = jax.tree.map(lambda c, n: jnp.concatenate([c, n]), cond, null_cond)
        x_twice, t_twice = jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t])
        out = predict(x_twice, t_twice, positions, strides, both)
        out = out.astype(jnp.promote_types(out.dtype, jnp.float32))
        out_cond, out_null = jnp.split(out, 2)
        return out_null + guidance_scale * (out_cond - out_null)

    return predict_guided


def check_condition(name: str, cond: Cond, batch_size: int) -> None:
    """Refuse a condition that is not one entry for each video.

    Args:
        name: what to call it: cond or null_cond.
        cond: pytree of arrays with leading axis b, or None.
        batch_size: b, the number of videos.

    Raises:
        ValueError: naming the entry and its shape.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(cond):
        shape = np.shape(leaf)
        if shape[:1] != (batch_size,):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(path)} has shape {shape}; allowed: a first axis of "
                f"{batch_size}, one entry for each video"
            )
