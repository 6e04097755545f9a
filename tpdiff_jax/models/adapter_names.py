"""What each network's matrices are called in files of adapters.

One name stands for a module everywhere here: the one in diffusers' class of the network, or for a
network that nobody else has, its path. Other layouts have other names for the same module.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tpdiff_jax.models.animatediff.weight_rows import MOTION, animatediff_rows, original_names
from tpdiff_jax.models.flux.weights import flux_rows
from tpdiff_jax.models.modelscope.weights import modelscope_rows
from tpdiff_jax.models.open_sora.weights import open_sora_rows
from tpdiff_jax.models.wan.weights import WAN_LINEARS, wan_rows
from tpdiff_jax.types import Params
from tpdiff_jax.weights.frame_rows import CONVOLUTION
from tpdiff_jax.weights.key_table import LAYER, TRANSPOSED, KeyRow, flatten_params

KERNEL_ENDING = "/kernel"
"""Ending of the path of a matrix that can have a low-rank change."""
CONVOLUTION_NDIM = 4


class KohyaName(NamedTuple):
    """A module in the layout "comfyui".

    Attributes:
        stem: how the names of its tensors begin.
        down: ending of A's name.
        up: ending of B's name.
        has_alpha: whether its readers look for a tensor `.alpha`, or at least let it pass.
        is_baked: whether B holds the scale, because some reader of these names does not apply
            alpha; an alpha that is written is then the rank.
    """

    stem: str
    down: str = ".lora_down.weight"
    up: str = ".lora_up.weight"
    has_alpha: bool = True
    is_baked: bool = False


class AdapterNames(NamedTuple):
    """Names of one network's modules.

    Attributes:
        component: what diffusers' pipelines call the network, the prefix of its layout.
        rows: (network's config, shapes of its parameters, layout) -> rows of its key table.
        native: name of a module -> its authors' name.
        comfyui: name of a module -> its name in the layout "comfyui".
        fused: names of modules that files may hold in the place of several, one below the other in
            B -> those, with "{layer}".
    """

    component: str
    rows: Callable[[Any, Params, str], list[KeyRow]]
    native: Callable[[str], str]
    comfyui: Callable[[str], KohyaName]
    fused: Mapping[str, tuple[str, ...]] = {}


def _kohya(prefix: str) -> Callable[[str], KohyaName]:
    return lambda module: KohyaName(prefix + module.replace(".", "_"))


def _own_rows(config: Any, shapes: Params, layout: str) -> list[KeyRow]:
    """Rows of a network without published weights: paths as names, one a layer."""
    del config, layout
    rows = []
    for path, leaf in flatten_params(shapes).items():
        if path.endswith(KERNEL_ENDING):
            first, _, rest = path.removesuffix(KERNEL_ENDING).replace("/", ".").partition(".")
            name = f"{first}.{LAYER}.{rest}" if leaf.ndim == 3 else f"{first}.{rest}"
            transform = CONVOLUTION if leaf.ndim == CONVOLUTION_NDIM else TRANSPOSED
            rows.append(KeyRow(f"{name.removesuffix('.')}.weight", path, transform))
    return rows


def _flux_adapter_rows(config: Any, shapes: Params, layout: str) -> list[KeyRow]:
    del shapes
    return flux_rows(config, "pyramid_flow" if layout == "native" else "diffusers")


def _original_motion_name(module: str) -> str:
    """AnimateDiff's own name; its U-Net has diffusers' names."""
    if MOTION not in module:
        return module
    return original_names(f"{module}.weight")[0].removesuffix(".weight")


def _animatediff_in_comfyui(module: str) -> KohyaName:
    """ComfyUI's name in the U-Net; of motion modules that of motion LoRAs, which have no alpha."""
    if MOTION not in module:
        return KohyaName("lora_unet_" + module.replace(".", "_"))
    stem = _original_motion_name(module)
    owner, _, last = stem.removesuffix(".0").rpartition(".")
    if last.startswith("to_"):
        stem = f"{owner}.processor.{last}"
    return KohyaName(stem, "_lora.down.weight", "_lora.up.weight", has_alpha=False, is_baked=True)


_WAN_NATIVE = {in_diffusers: native for _, in_diffusers, native in WAN_LINEARS}


def _native_wan_name(module: str) -> str:
    layer = re.match(r"blocks\.(\d+)\.", module)
    number = layer[1] if layer else ""
    template = re.sub(r"^blocks\.\d+\.", f"blocks.{LAYER}.", module)
    return _WAN_NATIVE.get(template, template).replace(LAYER, number)


def _wan_in_comfyui(module: str) -> KohyaName:
    """Wan's own names; B is baked.

    diffusers' reader of these refuses an alpha outside of the blocks, and scales what it was given
    in place: tensors that are loaded twice would be scaled twice.
    """
    native = _native_wan_name(module)
    has_alpha = native.startswith("blocks.")
    return KohyaName(f"diffusion_model.{native}", has_alpha=has_alpha, is_baked=True)


_DOUBLE, _SINGLE = f"transformer_blocks.{LAYER}", f"single_transformer_blocks.{LAYER}"
_FLUX_FUSED: Mapping[str, tuple[str, ...]] = {
    f"double_blocks.{LAYER}.img_attn.qkv": tuple(f"{_DOUBLE}.attn.to_{x}" for x in "qkv"),
    f"double_blocks.{LAYER}.txt_attn.qkv": tuple(f"{_DOUBLE}.attn.add_{x}_proj" for x in "qkv"),
    f"double_blocks.{LAYER}.img_attn.proj": (f"{_DOUBLE}.attn.to_out.0",),
    f"double_blocks.{LAYER}.txt_attn.proj": (f"{_DOUBLE}.attn.to_add_out",),
    f"double_blocks.{LAYER}.img_mlp.0": (f"{_DOUBLE}.ff.net.0.proj",),
    f"double_blocks.{LAYER}.img_mlp.2": (f"{_DOUBLE}.ff.net.2",),
    f"double_blocks.{LAYER}.txt_mlp.0": (f"{_DOUBLE}.ff_context.net.0.proj",),
    f"double_blocks.{LAYER}.txt_mlp.2": (f"{_DOUBLE}.ff_context.net.2",),
    f"double_blocks.{LAYER}.img_mod.lin": (f"{_DOUBLE}.norm1.linear",),
    f"double_blocks.{LAYER}.txt_mod.lin": (f"{_DOUBLE}.norm1_context.linear",),
    f"single_blocks.{LAYER}.linear1": (
        *(f"{_SINGLE}.attn.to_{x}" for x in "qkv"), f"{_SINGLE}.proj_mlp",
    ),
    f"single_blocks.{LAYER}.linear2": (f"{_SINGLE}.proj_out",),
    f"single_blocks.{LAYER}.modulation.lin": (f"{_SINGLE}.norm.linear",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
}  # fmt: skip
"""Names of Flux's authors; Pyramid-Flow, and so the layout "native", has diffusers' names."""

ADAPTER_NAMES: Mapping[str, AdapterNames] = {
    "animatediff": AdapterNames(
        component="unet",
        rows=lambda config, shapes, layout: animatediff_rows(config),
        native=_original_motion_name,
        comfyui=_animatediff_in_comfyui,
    ),
    "flux": AdapterNames(
        component="transformer",
        rows=_flux_adapter_rows,
        native=str,
        comfyui=lambda module: KohyaName(f"transformer.{module}", is_baked=True),
        fused=_FLUX_FUSED,
    ),
    "modelscope": AdapterNames(
        component="unet",
        rows=lambda config, shapes, layout: modelscope_rows(config),
        native=str,
        comfyui=_kohya("lora_unet_"),
    ),
    "open_sora": AdapterNames(
        component="transformer",
        rows=lambda config, shapes, layout: open_sora_rows(config),
        native=str,
        comfyui=_kohya("lora_unet_"),
    ),
    "wan": AdapterNames(
        component="transformer",
        rows=lambda config, shapes, layout: wan_rows(config, "diffusers"),
        native=_native_wan_name,
        comfyui=_wan_in_comfyui,
    ),
}
OWN_NAMES = AdapterNames(
    component="transformer", rows=_own_rows, native=str, comfyui=_kohya("lora_unet_")
)
"""Of a network that only this project has."""


def adapter_names(network: str) -> AdapterNames:
    """Return the names of a network's modules, by its name in `models.MODELS`."""
    return ADAPTER_NAMES.get(network, OWN_NAMES)
