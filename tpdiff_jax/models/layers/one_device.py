"""The layout of a network on one device: nothing is divided."""

import dataclasses
from collections.abc import Callable, Sequence

import jax

from tpdiff_jax.types import Array, Axes, ParamAxes


@dataclasses.dataclass(frozen=True)
class OneDevice:
    """`tpdiff_jax.types.Layout` of the default device."""

    @property
    def platform(self) -> str:
        """Kind of device: cpu, gpu or tpu."""
        return jax.default_backend()

    def constrain(self, x: Array, *axes: str | None) -> Array:
        """Return x."""
        del axes
        return x

    def over_shards(
        self,
        function: Callable[..., tuple[Array, ...]],
        in_axes: Sequence[Axes],
        out_axes: Sequence[Axes],
    ) -> Callable[..., tuple[Array, ...]]:
        """Return the function: one device's part is the whole.

        Args:
            function: of arrays.
            in_axes: unused.
            out_axes: unused.

        Returns:
            `function`.
        """
        del in_axes, out_axes
        return function

    def gather(self, x: Array, name: str, dim: int) -> Array:
        """Return x, which is whole already.

        Args:
            x: an array.
            name: unused.
            dim: unused.

        Returns:
            x.
        """
        del name, dim
        return x

    def gather_layer(self, table: ParamAxes, path: str) -> None:
        """Return None: parameters are whole.

        Args:
            table: unused.
            path: unused.
        """
        del table, path


ONE_DEVICE = OneDevice()
