"""Networks with published weights, by their names in `models.MODELS`: reading and writing them."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tpdiff_jax.checks import naming
from tpdiff_jax.models.animatediff import weights as animatediff
from tpdiff_jax.models.flux import weights as flux
from tpdiff_jax.models.open_sora import weights as open_sora
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


PUBLISHED: Mapping[str, Published] = {
    "animatediff": Published(
        layouts=animatediff.ANIMATEDIFF_LAYOUTS,
        load=animatediff.load_animatediff,
        save=animatediff.save_animatediff,
    ),
    "flux": Published(
        layouts=flux.FLUX_LAYOUTS,
        load=lambda folder, config, params, _: flux.load_flux(folder, config, params=params),
        save=lambda folder, params, config, layout, dtype, _: flux.save_flux(
            folder, params, config, layout, dtype
        ),
    ),
    "open_sora": Published(
        layouts=open_sora.OPEN_SORA_LAYOUTS,
        load=lambda folder, config, params, _: open_sora.load_open_sora(folder, config, params),
        save=lambda folder, params, config, layout, dtype, _: open_sora.save_open_sora(
            folder, params, config, layout, dtype
        ),
    ),
    "wan": Published(
        layouts=wan.WAN_LAYOUTS,
        load=lambda folder, config, params, _: wan.load_wan(folder, config, params=params),
        save=lambda folder, params, config, layout, dtype, _: wan.save_wan(
            folder, params, config, layout, dtype
        ),
    ),
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
