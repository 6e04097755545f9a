"""Writing adapters in every layout, so that no reader changes their strength.

Where all readers of a layout find alpha (peft's JSON file, kohya's tensors for a U-Net) it is
written as it is. diffusers loses the metadata of its own file when the file is given by its path,
ignores `.alpha` tensors beside its own names, and scales Wan's where they lie; so everywhere else
B is multiplied by alpha / r, and the alpha that is stated, or taken where none is, is r.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tpdiff_jax.checks import check_choice
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.models.adapter_names import AdapterNames
from tpdiff_jax.weights.adapter_files import (
    ADAPTER_LAYOUTS,
    DIFFUSERS_FILE,
    DIFFUSERS_METADATA,
    PEFT_CONFIG,
    PEFT_FILE,
    LowRankPair,
)
from tpdiff_jax.weights.tensor_files import STORED_TYPES, save_tensors

FILES = {"peft": PEFT_FILE, "diffusers": DIFFUSERS_FILE}
OTHER_FILE = "adapter.safetensors"
BAKED_LAYOUTS = ("diffusers", "native")
"""Layouts whose B holds alpha / r."""


def save_adapter(
    folder: pathlib.Path,
    pairs: Mapping[str, LowRankPair],
    names: AdapterNames,
    layout: str,
    dtype: str = "float32",
    base: str = "",
) -> pathlib.Path:
    """Write an adapter.

    Args:
        folder: made if it is not there; must hold no safetensors.
        pairs: name of a module -> its change; all of one rank and scale.
        names: of the network's modules.
        layout: one of `ADAPTER_LAYOUTS`.
        dtype: stored type, float32, bfloat16 or float16.
        base: the weights that the adapter was made for, for peft's "base_model_name_or_path".

    Returns:
        The file written.

    Raises:
        ValueError: for an unknown layout or type, or a folder that already holds safetensors.
    """
    check_choice("layout", layout, ADAPTER_LAYOUTS)
    check_choice("dtype", dtype, STORED_TYPES)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob("*.safetensors*")):
        raise ValueError(f"{folder} already holds safetensors; choose another folder")
    tensors: dict[str, np.ndarray] = {}
    for module, pair in pairs.items():
        tensors |= _tensors(module, pair, names, layout)
    stored = {
        name: x if name.endswith(".alpha") else np.ascontiguousarray(x.astype(STORED_TYPES[dtype]))
        for name, x in tensors.items()
    }
    metadata = None
    if layout == "diffusers":  # one entry: several are written in random order
        fields = _settings(pairs, is_baked=True)
        text = json.dumps({f"{names.component}.{k}": v for k, v in fields.items()}, sort_keys=True)
        metadata = {DIFFUSERS_METADATA: text}
    file = folder / FILES.get(layout, OTHER_FILE)
    save_tensors(file, stored, metadata)
    if layout == "peft":
        fields = _settings(pairs, is_baked=False) | {
            "base_model_name_or_path": base or None,
            "inference_mode": True,
            "task_type": None,
        }
        text = json.dumps(fields, indent=2, sort_keys=True)
        write_durably(folder / PEFT_CONFIG, text + "\n")
    return file


def _tensors(
    module: str, pair: LowRankPair, names: AdapterNames, layout: str
) -> dict[str, np.ndarray]:
    """Return the tensors of one pair under a layout's names."""
    baked = pair.low_b * pair.scale
    if layout == "comfyui":
        kohya = names.comfyui(module)
        low_b, alpha = (baked, 1.0) if kohya.is_baked else (pair.low_b, pair.scale)
        found = {f"{kohya.stem}{kohya.down}": pair.low_a, f"{kohya.stem}{kohya.up}": low_b}
        if kohya.has_alpha:
            found[f"{kohya.stem}.alpha"] = np.asarray(alpha * pair.rank, np.float32)
        return found
    stem = {
        "peft": f"base_model.model.{module}",
        "diffusers": f"{names.component}.{module}",
        "native": f"diffusion_model.{names.native(module)}",
    }[layout]
    low_b = baked if layout in BAKED_LAYOUTS else pair.low_b
    return {f"{stem}.lora_A.weight": pair.low_a, f"{stem}.lora_B.weight": low_b}


def _settings(pairs: Mapping[str, LowRankPair], is_baked: bool) -> dict[str, Any]:
    """Return the fields of peft's LoraConfig that decide what is computed.

    The modules are one pattern: of names in a list peft takes every module that ends in one, so
    that "proj_out" would be that of every block too.
    """
    pair = next(iter(pairs.values()))
    alpha = float(pair.rank if is_baked else round(pair.scale * pair.rank, 12))
    return {
        "peft_type": "LORA",
        "r": pair.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "target_modules": "|".join(re.escape(name) for name in pairs),
        "rank_pattern": {},
        "alpha_pattern": {},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "use_dora": False,
        "use_rslora": False,
    }
