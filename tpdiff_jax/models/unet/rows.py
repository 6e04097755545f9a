"""Rows of a U-Net's key table that the networks share: diffusers' names."""

from collections.abc import Callable, Iterable, Iterator

from tpdiff_jax.models.unet.steps import Step
from tpdiff_jax.weights.frame_rows import convolution_rows, norm_rows, residual_rows
from tpdiff_jax.weights.key_table import TRANSPOSED, KeyRow, linear_rows

TRANSFORMER_BLOCK = "transformer_blocks.0"
SECTIONS = {"down": "down_blocks", "middle": "mid_block", "up": "up_blocks"}
ProjectionRows = Callable[[str, str], Iterable[KeyRow]]
"""Name in the file and path of a linear layer -> its rows."""


def unet_rows(
    steps: Iterable[Step], own_rows: Callable[[Step, str, str], Iterable[KeyRow]]
) -> list[KeyRow]:
    """Return the key table of a network.

    Args:
        steps: of the network.
        own_rows: (step, its section in the file, its index there) -> rows of all but its residual
            block, for steps that are no resampling.
    """
    rows = [
        *convolution_rows("conv_in", "stem/conv"),
        *linear_rows("time_embedding.linear_1", "stem/time/inner"),
        *linear_rows("time_embedding.linear_2", "stem/time/outer"),
        *norm_rows("conv_norm_out", "head/norm"),
        *convolution_rows("conv_out", "head/conv"),
    ]
    for step in steps:
        section, index = place_of(step)
        if step.name.endswith("sample"):
            rows += _resampling_rows(step, section)
            continue
        if step.section != "entrance":
            rows += _residual_rows(step, section, index)
        rows += own_rows(step, section, index)
    return rows


def place_of(step: Step) -> tuple[str, str]:
    """Tensor prefix of a step's section and level, and the step's index in it."""
    if step.section == "entrance":
        return step.section, "0"
    section = SECTIONS[step.section]
    if step.section == "middle":
        return section, "1" if step.name == "end" else "0"
    level, _, *index = step.name.split("_")
    return f"{section}.{level}", index[0] if index else "0"


def transformer_rows(tensor: str, param: str, projection: ProjectionRows) -> Iterator[KeyRow]:
    """Rows of a `Transformer`.

    Args:
        tensor: its name in the file.
        param: its path among the parameters.
        projection: rows of the projections in and out, a linear layer's or those of a 1 x 1
            convolution.
    """
    block, ours = f"{tensor}.{TRANSFORMER_BLOCK}", f"{param}/block"
    yield from norm_rows(f"{tensor}.norm", f"{param}/norm")
    yield from projection(f"{tensor}.proj_in", f"{param}/project_in")
    for i in (1, 2, 3):
        yield from norm_rows(f"{block}.norm{i}", f"{ours}/norm_{i}")
    for i in (1, 2):
        theirs, attention = f"{block}.attn{i}", f"{ours}/attention_{i}"
        for part in ("q", "k", "v"):
            yield KeyRow(f"{theirs}.to_{part}.weight", f"{attention}/{part}/kernel", TRANSPOSED)
        yield from linear_rows(f"{theirs}.to_out.0", f"{attention}/out")
    yield from linear_rows(f"{block}.ff.net.0.proj", f"{ours}/inner")
    yield from linear_rows(f"{block}.ff.net.2", f"{ours}/outer")
    yield from projection(f"{tensor}.proj_out", f"{param}/project_out")


def _resampling_rows(step: Step, section: str) -> list[KeyRow]:
    layer = "downsamplers" if step.name.endswith("downsample") else "upsamplers"
    return convolution_rows(f"{section}.{layer}.0.conv", f"{step.section}/{step.name}/conv")


def _residual_rows(step: Step, section: str, index: str) -> list[KeyRow]:
    has_shortcut = step.is_layer and step.shape.channels != step.shape.out_channels
    resnet, residual = f"{section}.resnets.{index}", f"{step.section}/{step.name}/residual"
    rows = residual_rows(resnet, residual, has_shortcut)
    return rows + linear_rows(f"{resnet}.time_emb_proj", f"{residual}/time")
