"""The key table of AnimateDiff: diffusers' names, and AnimateDiff's own for motion modules.

The names of diffusers' UNetMotionModel are those of its UNet2DConditionModel and of its
MotionAdapter together. AnimateDiff's own files keep one more copy of the table of positions,
beside each of a block's two attentions.
"""

from collections.abc import Iterator

from tpdiff_jax.models.animatediff.config import AnimateDiffConfig
from tpdiff_jax.models.animatediff.network import Step, unet_steps
from tpdiff_jax.weights.frame_rows import convolution_rows, norm_rows, pointwise_rows, residual_rows
from tpdiff_jax.weights.key_table import TRANSPOSED, KeyRow, linear_rows

MOTION = ".motion_modules."
BLOCK = "transformer_blocks.0"
POSITIONS = f"{BLOCK}.pos_embed.pe"
"""Ending of the name of a table of positions: [1, positions, channels], computed, never learned."""
SECTIONS = {"down": "down_blocks", "middle": "mid_block", "up": "up_blocks"}
RENAMED_PARTS = (
    (f"{BLOCK}.norm1.", f"{BLOCK}.norms.0."),
    (f"{BLOCK}.norm2.", f"{BLOCK}.norms.1."),
    (f"{BLOCK}.norm3.", f"{BLOCK}.ff_norm."),
    (POSITIONS, f"{BLOCK}.attention_blocks.0.pos_encoder.pe"),
    (POSITIONS, f"{BLOCK}.attention_blocks.1.pos_encoder.pe"),
    (f"{BLOCK}.attn1.", f"{BLOCK}.attention_blocks.0."),
    (f"{BLOCK}.attn2.", f"{BLOCK}.attention_blocks.1."),
)
"""How names of a motion module begin in diffusers and in AnimateDiff's own files."""
OWNER = "temporal_transformer."
"""What AnimateDiff's own files have between the number of a motion module and those names."""


def animatediff_rows(config: AnimateDiffConfig) -> list[KeyRow]:
    """Return the key table."""
    rows = [
        *convolution_rows("conv_in", "stem/conv"),
        *linear_rows("time_embedding.linear_1", "stem/time/inner"),
        *linear_rows("time_embedding.linear_2", "stem/time/outer"),
        *norm_rows("conv_norm_out", "head/norm"),
        *convolution_rows("conv_out", "head/conv"),
    ]
    return rows + [row for step in unet_steps(config) for row in _rows_of_step(step)]


def position_names(config: AnimateDiffConfig) -> dict[str, int]:
    """Return the tables of positions: tensor name -> channels."""
    return {
        f"{section}{MOTION}{j}.{POSITIONS}": step.shape.out_channels
        for step in unet_steps(config)
        for section, j in [_place(step)]
        if "layer" in step.name and step.shape.has_motion
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


def _place(step: Step) -> tuple[str, str]:
    """Tensor prefix of a step's section and level, and the step's index in it."""
    section = SECTIONS[step.section]
    if step.section == "middle":
        return section, "1" if step.name == "end" else "0"
    level, _, *index = step.name.split("_")
    return f"{section}.{level}", index[0] if index else "0"


def _rows_of_step(step: Step) -> Iterator[KeyRow]:
    (section, j), shape = _place(step), step.shape
    param, dim = f"{step.section}/{step.name}", shape.out_channels
    if step.name.endswith("downsample"):
        yield from convolution_rows(f"{section}.downsamplers.0.conv", f"{param}/conv")
        return
    if step.name.endswith("upsample"):
        yield from convolution_rows(f"{section}.upsamplers.0.conv", f"{param}/conv")
        return
    is_end = step.name == "end"
    resnet, residual = f"{section}.resnets.{j}", f"{param}/residual"
    yield from residual_rows(resnet, residual, not is_end and shape.channels != dim)
    yield from linear_rows(f"{resnet}.time_emb_proj", f"{residual}/time")
    if shape.has_attention and not is_end:
        tensor = f"{section}.attentions.{j}"
        yield from _transformer_rows(tensor, f"{param}/spatial")
        yield from pointwise_rows(f"{tensor}.proj_in", f"{param}/spatial/project_in")
        yield from pointwise_rows(f"{tensor}.proj_out", f"{param}/spatial/project_out")
    if shape.has_motion and not is_end:
        tensor = f"{section}{MOTION}{j}"
        yield from _transformer_rows(tensor, f"{param}/motion")
        yield from linear_rows(f"{tensor}.proj_in", f"{param}/motion/project_in")
        yield from linear_rows(f"{tensor}.proj_out", f"{param}/motion/project_out")


def _transformer_rows(tensor: str, param: str) -> Iterator[KeyRow]:
    block, ours = f"{tensor}.{BLOCK}", f"{param}/block"
    yield from norm_rows(f"{tensor}.norm", f"{param}/norm")
    for i in (1, 2, 3):
        yield from norm_rows(f"{block}.norm{i}", f"{ours}/norm_{i}")
    for i in (1, 2):
        theirs, attention = f"{block}.attn{i}", f"{ours}/attention_{i}"
        for part in ("q", "k", "v"):
            yield KeyRow(f"{theirs}.to_{part}.weight", f"{attention}/{part}/kernel", TRANSPOSED)
        yield from linear_rows(f"{theirs}.to_out.0", f"{attention}/out")
    yield from linear_rows(f"{block}.ff.net.0.proj", f"{ours}/inner")
    yield from linear_rows(f"{block}.ff.net.2", f"{ours}/outer")
