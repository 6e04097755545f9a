"""The key table of AnimateDiff: diffusers' names, and AnimateDiff's own for motion modules.

The names of diffusers' UNetMotionModel are those of its UNet2DConditionModel and of its
MotionAdapter together. AnimateDiff's own files keep one more copy of the table of positions,
beside each of a block's two attentions.
"""

from collections.abc import Iterator

from tpdiff_jax.models.animatediff.config import AnimateDiffConfig
from tpdiff_jax.models.animatediff.layers import has_motion
from tpdiff_jax.models.animatediff.network import unet_steps
from tpdiff_jax.models.unet.rows import TRANSFORMER_BLOCK, place_of, transformer_rows, unet_rows
from tpdiff_jax.models.unet.steps import Step
from tpdiff_jax.weights.frame_rows import pointwise_rows
from tpdiff_jax.weights.key_table import KeyRow, linear_rows

MOTION = ".motion_modules."
POSITIONS = f"{TRANSFORMER_BLOCK}.pos_embed.pe"
"""Ending of the name of a table of positions: [1, positions, channels], computed, never learned."""
RENAMED_PARTS = (
    (f"{TRANSFORMER_BLOCK}.norm1.", f"{TRANSFORMER_BLOCK}.norms.0."),
    (f"{TRANSFORMER_BLOCK}.norm2.", f"{TRANSFORMER_BLOCK}.norms.1."),
    (f"{TRANSFORMER_BLOCK}.norm3.", f"{TRANSFORMER_BLOCK}.ff_norm."),
    (POSITIONS, f"{TRANSFORMER_BLOCK}.attention_blocks.0.pos_encoder.pe"),
    (POSITIONS, f"{TRANSFORMER_BLOCK}.attention_blocks.1.pos_encoder.pe"),
    (f"{TRANSFORMER_BLOCK}.attn1.", f"{TRANSFORMER_BLOCK}.attention_blocks.0."),
    (f"{TRANSFORMER_BLOCK}.attn2.", f"{TRANSFORMER_BLOCK}.attention_blocks.1."),
)
"""How names of a motion module begin in diffusers and in AnimateDiff's own files."""
OWNER = "temporal_transformer."
"""What AnimateDiff's own files have between the number of a motion module and those names."""


def animatediff_rows(config: AnimateDiffConfig) -> list[KeyRow]:
    """Return the key table."""
    return unet_rows(unet_steps(config), _own_rows)


def position_names(config: AnimateDiffConfig) -> dict[str, int]:
    """Return the tables of positions: tensor name -> channels."""
    return {
        f"{section}{MOTION}{j}.{POSITIONS}": step.shape.out_channels
        for step in unet_steps(config)
        for section, j in [place_of(step)]
        if step.is_layer and has_motion(step.shape)
    }


def original_names(name: str) -> list[str]:
    """Return a motion module's tensor name of diffusers as AnimateDiff's own files have it."""
    section, _, rest = name.partition(MOTION)
    index, _, rest = rest.partition(".")
    stem = f"{section}{MOTION}{index}.{OWNER}"
    renamed = [
        theirs + rest.removeprefix(ours) for ours, theirs in RENAMED_PARTS if rest.startswith(ours)
    ]
    return [stem + rest for rest in renamed or [rest]]


def name_in_diffusers(name: str) -> str:
    """Undo `original_names`; a name that diffusers has is returned as it is."""
    stem, owner, rest = name.removeprefix("module.").partition(OWNER)
    for ours, theirs in RENAMED_PARTS:
        if owner and rest.startswith(theirs):
            return stem + ours + rest.removeprefix(theirs)
    return stem + rest


def _own_rows(step: Step, section: str, j: str) -> Iterator[KeyRow]:
    param = f"{step.section}/{step.name}"
    if step.is_layer and step.shape.has_attention:
        yield from transformer_rows(f"{section}.attentions.{j}", f"{param}/spatial", pointwise_rows)
    if step.is_layer and has_motion(step.shape):
        yield from transformer_rows(f"{section}{MOTION}{j}", f"{param}/motion", linear_rows)
