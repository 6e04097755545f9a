"""The config group `prepare` as typed objects; clips of pixels need no network, and import none."""

import dataclasses

from ml_collections import ConfigDict

from tpdiff_jax.experiment.reader import ConfigReader
from tpdiff_jax.preparation.clip_encoder import PIXELS, ClipEncoder
from tpdiff_jax.preparation.prepare_spec import PrepareSpec


def build_prepare(config: ConfigDict) -> PrepareSpec:
    """Turn a config with the group `prepare` into its spec.

    Raises:
        ValueError: naming the full field, its value and what is allowed.
    """
    read = ConfigReader(config)
    spec = PrepareSpec(
        **read.group("prepare", *(field.name for field in dataclasses.fields(PrepareSpec)))
    )
    read.check_all_known()
    return spec


def open_clip_encoder(spec: PrepareSpec) -> ClipEncoder:
    """Open what clips are stored by; engines call it on every node.

    Raises:
        ValueError: when encoders cannot be read, or clips do not suit them.
    """
    if (spec.video_encoder, spec.text_encoder) == ("pixels", "none"):
        return PIXELS
    from tpdiff_jax.encoders import make_clip_encoder

    return make_clip_encoder(spec)
