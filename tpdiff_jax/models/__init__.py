"""Networks: one table, name -> config class and network class.

`make_network("video_dit", fields={"hidden_size": 192}, channels=1, num_classes=10)` gives a
`Network`: `init`, `apply`, `flops`, `null_cond`. The method never imports a network; it is handed
`predict = partial(apply, params)`.

All of one model stands in its folder; what a model has no use for is missing there.

    config      its shape, checked before anything is built
    network     the network, from its parameters and a video to an output
    blocks      the modules that it is made of; `layers` where they are no blocks of a transformer
    axes        logical axes of its parameters, for the mesh's rules
    weights     published weights, read and written by a table of names

Networks to train: `video_dit`, `flux`, `animatediff`, `modelscope`, `wan`, `open_sora`;
autoencoders of clips: `causal_video_vae`, `image_vae`, `open_sora_vae`, `wan_vae`. Parts of several
stand in `layers`, those of the two U-Nets in `unet`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tpdiff_jax.models.animatediff.config import AnimateDiffConfig
from tpdiff_jax.models.animatediff.network import AnimateDiff
from tpdiff_jax.models.flux.config import FluxConfig
from tpdiff_jax.models.flux.network import Flux
from tpdiff_jax.models.layers.one_device import ONE_DEVICE
from tpdiff_jax.models.modelscope.config import ModelScopeConfig
from tpdiff_jax.models.modelscope.network import ModelScope
from tpdiff_jax.models.network import Network
from tpdiff_jax.models.open_sora.config import OpenSoraConfig
from tpdiff_jax.models.open_sora.network import OpenSora
from tpdiff_jax.models.video_dit.config import VideoDiTConfig
from tpdiff_jax.models.video_dit.network import VideoDiT
from tpdiff_jax.models.wan.config import WanConfig
from tpdiff_jax.models.wan.network import Wan
from tpdiff_jax.types import Layout


class Model(NamedTuple):
    """One kind of network.

    Attributes:
        config: a dataclass; its fields are those of the config group `model`, and what the network
            must know of the data: `channels`, and `num_classes` where it takes labels.
        network: (config, layout) -> the network.
        has_no_text: whether it learned an embedding of no text, which then stands for a dropped
            caption in place of the encoded empty prompt.
    """

    config: type[Any]
    network: Callable[[Any, Layout], Network]
    has_no_text: bool = False


MODELS: Mapping[str, Model] = {
    "animatediff": Model(AnimateDiffConfig, AnimateDiff),
    "flux": Model(FluxConfig, Flux),
    "modelscope": Model(ModelScopeConfig, ModelScope),
    "open_sora": Model(OpenSoraConfig, OpenSora, has_no_text=True),
    "video_dit": Model(VideoDiTConfig, VideoDiT),
    "wan": Model(WanConfig, Wan),
}


def make_network(
    name: str,
    layout: Layout = ONE_DEVICE,
    fields: Mapping[str, Any] | None = None,
    *,
    channels: int,
    num_classes: int = 0,
) -> Network:
    """Build a network by its name.

    Args:
        name: a key of `MODELS`.
        layout: how its arrays lie on the devices.
        fields: of the config group `model`, without what the data says; the rest has defaults.
        channels: of the clips' frames.
        num_classes: of the clips' labels; a network without labels is not told.

    Returns:
        The network.

    Raises:
        ValueError: naming `model.name` or the field that the network lacks, that the data sets or
            that has an impossible value, and what is allowed.
    """
    if name not in MODELS:
        raise ValueError(f"model.name must be one of {tuple(MODELS)}, got {name!r}")
    model, given = MODELS[name], dict(fields or {})
    known = [field.name for field in dataclasses.fields(model.config)]
    of_data = {"channels": channels, "num_classes": num_classes}
    allowed = [field for field in known if field not in of_data]
    for field in given:
        if field not in allowed:
            reason = "comes from the data" if field in of_data else f"is no field of {name!r}"
            raise ValueError(f"model.{field} {reason}; allowed: {', '.join(sorted(allowed))}")
    facts = {field: value for field, value in of_data.items() if field in known}
    try:
        config = model.config(**given, **facts)
    except TypeError as error:  # a value of another type than the field's
        raise ValueError(f"fields of model do not fit model.name={name!r}: {error}") from error
    return model.network(config, layout)


__all__ = [
    "MODELS",
    "AnimateDiff",
    "AnimateDiffConfig",
    "Flux",
    "FluxConfig",
    "Model",
    "ModelScope",
    "ModelScopeConfig",
    "Network",
    "OpenSora",
    "OpenSoraConfig",
    "VideoDiT",
    "VideoDiTConfig",
    "Wan",
    "WanConfig",
    "make_network",
]
