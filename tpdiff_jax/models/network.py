"""What the trainer, the sampler and the planner ask of a network."""

from collections.abc import Mapping
from typing import Any, Protocol

from tpdiff_jax.types import Array, Cond, CondShapes, ParamAxes, Params, PRNGKey


class Network(Protocol):
    """A network is a pair of pure functions and what is known about it without running it."""

    @property
    def config(self) -> Any:
        """Its shape: the dataclass of the config group `model`."""
        ...

    @property
    def param_axes(self) -> ParamAxes:
        """Logical axes of every parameter, by path; the names are those of the mesh's rules."""
        ...

    @property
    def axis_sizes(self) -> Mapping[str, tuple[str, int]]:
        """What -> (logical axis, length) of every axis that its devices must divide evenly."""
        ...

    @property
    def cond_shapes(self) -> CondShapes:
        """Shape and dtype of the encoded entries of a clip's condition that it takes."""
        ...

    def init(self, key: PRNGKey) -> Params:
        """Fresh float32 parameters: nested dicts of arrays, nothing else."""
        ...

    def apply(
        self,
        params: Params,
        x_t: Array,
        t: Array,
        frame_positions: Array,
        frame_stride: int,
        cond: Cond,
    ) -> Array:
        """Predict the target; arguments after `params` as in `tpdiff_jax.types.Predict`."""
        ...

    def flops(self, num_frames: int) -> float:
        """Matrix-product FLOPs of one forward pass over one video of `num_frames` frames."""
        ...

    def num_tokens(self, num_frames: int) -> int:
        """Tokens of one video of `num_frames` frames."""
        ...

    def null_cond(self, cond: Cond) -> Cond:
        """The unconditional twin of a condition, for dropout and classifier-free guidance."""
        ...


def attention_axis_sizes(num_heads: int, num_places: int) -> dict[str, tuple[str, int]]:
    """`Network.axis_sizes` of a transformer over patches: attention is divided along both."""
    return {
        "model.num_heads": ("heads", num_heads),
        "the number of patches of a frame": ("tokens", num_places),
    }
