"""The steps of a U-Net between stem and head, for whatever layers a network is made of."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tpdiff_jax.models.unet import flops as cost
from tpdiff_jax.models.unet.config import LayerShape, UNetConfig, unet_shape
from tpdiff_jax.models.unet.layers import Downsample, Upsample
from tpdiff_jax.types import Shape


class Kind(NamedTuple):
    """A kind of step.

    Attributes:
        part: the module; its constructor takes a `LayerShape`.
        flops: FLOPs for one video, of a layer's shape and the video's.
    """

    part: Callable[..., Any]
    flops: Callable[[LayerShape, Shape], float]


DOWNSAMPLE = Kind(Downsample, cost.downsample_flops)
UPSAMPLE = Kind(Upsample, cost.upsample_flops)


class UNetForm(NamedTuple):
    """What a network's own layers are.

    Attributes:
        layer: of every level and of the middle.
        middle_end: what ends the middle.
        entrance: what stands between the stem and the first level; None: nothing.
    """

    layer: Kind
    middle_end: Kind
    entrance: Kind | None = None


class Step(NamedTuple):
    """One step of the U-Net; its parameters lie under `section` and `name`.

    Attributes:
        section: "entrance", "down", "middle" or "up".
        name: in its section.
        kind: what it is.
        shape: of the layer, or of the one that it follows.
        gives_skip: whether a step on the way up sees what it gives.
        takes_skip: whether it sees the last of these beside its input.
    """

    section: str
    name: str
    kind: Kind
    shape: LayerShape
    gives_skip: bool = False
    takes_skip: bool = False

    @property
    def is_layer(self) -> bool:
        """Whether its kind is the form's `layer`."""
        return "layer" in self.name


def lay_steps(config: UNetConfig, form: UNetForm) -> tuple[Step, ...]:
    """Return the steps between stem and head, in the order in which they run.

    Args:
        config: of the network.
        form: its layers.
    """
    shape, first = unet_shape(config), []
    if form.entrance is not None:
        first.append(Step("entrance", "time", form.entrance, shape.down[0][0], gives_skip=True))
    return (
        *first,
        *_steps_down(shape.down, form.layer),
        Step("middle", "layer", form.layer, shape.middle),
        Step("middle", "end", form.middle_end, shape.middle),
        *_steps_up(shape.up, form.layer),
    )


def _steps_down(levels: tuple[tuple[LayerShape, ...], ...], layer: Kind) -> Iterator[Step]:
    for i, layers in enumerate(levels):
        for j, shape in enumerate(layers):
            yield Step("down", f"{i}_layer_{j}", layer, shape, gives_skip=True)
        if i < len(levels) - 1:
            yield Step("down", f"{i}_downsample", DOWNSAMPLE, layers[-1], gives_skip=True)


def _steps_up(levels: tuple[tuple[LayerShape, ...], ...], layer: Kind) -> Iterator[Step]:
    for i, layers in enumerate(levels):
        for j, shape in enumerate(layers):
            yield Step("up", f"{i}_layer_{j}", layer, shape, takes_skip=True)
        if i < len(levels) - 1:
            yield Step("up", f"{i}_upsample", UPSAMPLE, layers[-1])
