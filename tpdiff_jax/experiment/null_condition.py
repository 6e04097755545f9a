"""The unconditional twin of a condition, for dropped captions and for guidance."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from tpdiff_jax.models import Network
from tpdiff_jax.types import Cond


def make_null_cond(network: Network, encoded: Mapping[str, np.ndarray]) -> Callable[[Cond], Cond]:
    """Return the map from conditions to their unconditional twins.

    Args:
        network: knows what stands for no condition, such as a null class.
        encoded: the empty prompt, or a negative one, encoded: entries of the condition by name,
            without a batch axis. They take the place of the network's own.
    """

    def null_cond(cond: Cond) -> Cond:
        given = {
            name: jnp.broadcast_to(jnp.asarray(array, cond[name].dtype), cond[name].shape)
            for name, array in encoded.items()
        }
        return {**network.null_cond(cond), **given}

    return null_cond
