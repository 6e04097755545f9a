"""Networks: one table, name -> constructor. A constructor takes the fields of its config.

`MODELS["video_dit"](hidden_size=192, ...)` gives a `Network`: `init`, `apply`, `flops`,
`null_cond`. The method never imports a network; it is handed `predict = partial(apply, params)`.
"""

from collections.abc import Callable

from tpdiff_jax.models.animatediff import AnimateDiff
from tpdiff_jax.models.animatediff_config import AnimateDiffConfig
from tpdiff_jax.models.flux import Flux
from tpdiff_jax.models.flux_config import FluxConfig
from tpdiff_jax.models.network import Network
from tpdiff_jax.models.video_dit import VideoDiT
from tpdiff_jax.models.video_dit_config import VideoDiTConfig


def make_animatediff(num_classes: int = 0, **fields: object) -> Network:
    """Build AnimateDiff from the fields of `AnimateDiffConfig`; it takes text, no labels."""
    del num_classes
    return AnimateDiff(AnimateDiffConfig(**fields))  # type: ignore[arg-type]


def make_video_dit(**fields: object) -> Network:
    """Build the video DiT from the fields of `VideoDiTConfig`."""
    return VideoDiT(VideoDiTConfig(**fields))  # type: ignore[arg-type]


def make_flux(num_classes: int = 0, **fields: object) -> Network:
    """Build the Flux transformer from the fields of `FluxConfig`; it takes text, no labels."""
    del num_classes
    return Flux(FluxConfig(**fields))  # type: ignore[arg-type]


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
