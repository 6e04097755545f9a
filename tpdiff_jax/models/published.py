"""Weights of every network outside of this project, by its name in `models.MODELS`."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tpdiff_jax.checks import naming
from tpdiff_jax.models.animatediff import weights as animatediff
from tpdiff_jax.models.flux import weights as flux
from tpdiff_jax.models.modelscope import weights as modelscope
from tpdiff_jax.models.open_sora import weights as open_sora
from tpdiff_jax.models.video_dit import weights as video_dit
from tpdiff_jax.models.wan import weights as wan
from tpdiff_jax.types import Params, PRNGKey


class Published(NamedTuple):
    """Weights of one network outside of this project.

    Attributes:
        layouts: names of the layouts that are written.
        load: (folder, network's config, shapes of the parameters with shardings, key of what the
            folder may lack) -> parameters.
        save: (folder, parameters, network's config, layout, dtype, folder that the weights came
            from or None): writes them.
    """

    layouts: tuple[str, ...]
    load: Callable[[pathlib.Path, Any, Params, PRNGKey], Params]
    save: Callable[[pathlib.Path, Params, Any, str, str, pathlib.Path | None], None]


def _whole(
    layouts: tuple[str, ...], read: Callable[..., Params], write: Callable[..., None]
) -> Published:
    """Weights that lack nothing, and are written from the parameters alone."""
    return Published(
        layouts=layouts,
        load=lambda folder, config, params, _: read(folder, config, params=params),
        save=lambda folder, params, config, layout, dtype, _: write(
            folder, params, config, layout, dtype
        ),
    )


PUBLISHED: Mapping[str, Published] = {
    "animatediff": Published(
        layouts=animatediff.ANIMATEDIFF_LAYOUTS,
        load=animatediff.load_animatediff,
        save=animatediff.save_animatediff,
    ),
    "flux": _whole(flux.FLUX_LAYOUTS, flux.load_flux, flux.save_flux),
    "modelscope": _whole(
        modelscope.MODELSCOPE_LAYOUTS, modelscope.load_modelscope, modelscope.save_modelscope
    ),
    "open_sora": _whole(
        open_sora.OPEN_SORA_LAYOUTS, open_sora.load_open_sora, open_sora.save_open_sora
    ),
    "video_dit": _whole(
        video_dit.VIDEO_DIT_LAYOUTS, video_dit.load_video_dit, video_dit.save_video_dit
    ),
    "wan": _whole(wan.WAN_LAYOUTS, wan.load_wan, wan.save_wan),
}


class PublishedWeights(NamedTuple):
    """Weights to start from.

    Attributes:
        network: a key of `PUBLISHED`.
        folder: where they lie.
    """

    network: str
    folder: pathlib.Path

    def load(self, config: Any, params: Params, key: PRNGKey) -> Params:
        """Read the weights onto the devices of given parameters.

        Args:
            config: of the network.
            params: shapes, types and shardings of the tree to fill.
            key: draws what the weights may lack.

        Returns:
            The tree, filled.

        Raises:
            ValueError: naming `model.weights` and what does not fit.
        """
        with naming("model.weights"):
            return PUBLISHED[self.network].load(self.folder, config, params, key)
