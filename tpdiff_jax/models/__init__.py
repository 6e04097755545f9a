"""Networks: one table, name -> constructor. A constructor takes a layout and its config's fields.

`MODELS["video_dit"](layout, hidden_size=192, ...)` gives a `Network`: `init`, `apply`, `flops`,
`null_cond`. The method never imports a network; it is handed `predict = partial(apply, params)`.
"""

from collections.abc import Callable

from tpdiff_jax.models.animatediff import AnimateDiff
from tpdiff_jax.models.animatediff_config import AnimateDiffConfig
from tpdiff_jax.models.flux import Flux
from tpdiff_jax.models.flux_config import FluxConfig
from tpdiff_jax.models.network import Network
from tpdiff_jax.models.one_device import ONE_DEVICE
from tpdiff_jax.models.video_dit import VideoDiT
from tpdiff_jax.models.video_dit_config import VideoDiTConfig
from tpdiff_jax.types import Layout


def make_animatediff(
    layout: Layout = ONE_DEVICE, *, num_classes: int = 0, **fields: object
) -> Network:
    """Build AnimateDiff from the fields of `AnimateDiffConfig`; it takes text, no labels."""
    del num_classes
    return AnimateDiff(AnimateDiffConfig(**fields), layout)  # type: ignore[arg-type]


def make_video_dit(layout: Layout = ONE_DEVICE, **fields: object) -> Network:
    """Build the video DiT from the fields of `VideoDiTConfig`."""
    return VideoDiT(VideoDiTConfig(**fields), layout)  # type: ignore[arg-type]


def make_flux(layout: Layout = ONE_DEVICE, *, num_classes: int = 0, **fields: object) -> Network:
    """Build the Flux transformer from the fields of `FluxConfig`; it takes text, no labels."""
    del num_classes
    return Flux(FluxConfig(**fields), layout)  # type: ignore[arg-type]


MODELS: dict[str, Callable[..., Network]] = {
    "animatediff": make_animatediff,
    "flux": make_flux,
    "video_dit": make_video_dit,
}

__all__ = [
    "MODELS",
    "AnimateDiff",
    "AnimateDiffConfig",
    "Flux",
    "FluxConfig",
    "Network",
    "VideoDiT",
    "VideoDiTConfig",
    "make_animatediff",
    "make_flux",
    "make_video_dit",
]
