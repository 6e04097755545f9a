"""Files of adapters (low-rank changes to a network's matrices): read in every layout that is about.

    peft        base_model.model.X.lora_A.weight, with an adapter_config.json
    diffusers   transformer.X.lora_A.weight or unet.X...; rank and alpha in the file's metadata
    native      diffusion_model.X.lora_A.weight, X as the network's own authors name it
    comfyui     lora_unet_X.lora_down.weight, .lora_up.weight and .alpha, dots of X as underscores

Of each matrix W [out, in] a file holds A [r, in] and B [out, r] and means W + scale B A with scale
alpha / r. Where alpha stands differs most: in a JSON file, in metadata, in a tensor beside each
pair, or nowhere, which means alpha = r. Which network's names they are is not known here.

Source: Hu et al., LoRA, arXiv 2106.09685; the layouts are those of peft 0.21 and diffusers 0.42.
"""

import math
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from tpdiff_jax.files.json_files import parse_json, read_json
from tpdiff_jax.files.json_schema import (
    COUNT,
    NUMBER,
    TABLE,
    TEXT,
    Maybe,
    Schema,
    TableOf,
    check_json,
)
from tpdiff_jax.weights.tensor_files import check_readable

ADAPTER_LAYOUTS = ("peft", "diffusers", "native", "comfyui")
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
DIFFUSERS_METADATA = "lora_adapter_metadata"
PREFIXES = {
    "base_model.model.": "peft",
    "lora_unet_": "comfyui",
    "lora_transformer_": "comfyui",
    "lycoris_": "comfyui",
    "model.diffusion_model.": "native",
    "diffusion_model.": "native",
    "transformer.": "diffusers",
    "unet.": "diffusers",
}
"""How names begin -> the layout; names without any of these are diffusers' too."""
_SIDES = tuple(
    re.compile(rf"(?P<module>.+?){side}\.weight")
    for side in (
        r"\.lora_(?P<side>A|B)(?:\.default)?(?P<kohya>)(?P<old>)",
        r"\.(?P<kohya>lora)_(?P<side>down|up)(?P<old>)",
        r"\.lora\.(?P<side>down|up)(?P<kohya>)(?P<old>)",
        r"(?P<old>_lora)\.(?P<side>down|up)(?P<kohya>)",
    )
)
"""How names end: with the side, A or B, after what is called so today, by kohya and of old."""
_SETTINGS: Schema = {
    "r": COUNT,
    "lora_alpha": NUMBER,
    "rank_pattern?": Maybe(TableOf(COUNT)),
    "alpha_pattern?": Maybe(TableOf(NUMBER)),
    "peft_type?": Maybe(TEXT),
}
"""What is read of an adapter_config.json, and of diffusers' metadata."""
_STARTS_IN_THE_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""How values of `init_lora_weights` begin with which peft takes what A and B start from off W."""
_FEW = 8


class LowRankPair(NamedTuple):
    """A change to one matrix: W + scale B A, of matrices as PyTorch keeps them.

    Attributes:
        low_a: A, [r, in], of a convolution [r, in, rows, columns]; float32.
        low_b: B, [out, r], of a convolution [out, r, 1, 1]; float32.
        scale: what B A is multiplied by.
    """

    low_a: np.ndarray
    low_b: np.ndarray
    scale: float

    @property
    def rank(self) -> int:
        """The number of columns of B."""
        return int(self.low_a.shape[0])


class AdapterFile(NamedTuple):
    """What an adapter's file holds.

    Attributes:
        path: the file.
        layout: one of `ADAPTER_LAYOUTS`.
        pairs: name of a module, without the layout's prefix -> its change.
    """

    path: pathlib.Path
    layout: str
    pairs: Mapping[str, LowRankPair]

    def __str__(self) -> str:
        """What is logged: file, layout, ranks and strengths."""
        ranks = sorted({pair.rank for pair in self.pairs.values()})
        scales = sorted({round(pair.scale, 6) for pair in self.pairs.values()})
        of = f"{len(self.pairs)} matrices, rank {_span(ranks)}, alpha / rank {_span(scales)}"
        return f"{self.path} (layout {self.layout}: {of})"


def quoted_names(names: Iterable[str]) -> str:
    """Join names for a message; of many, the first and how many more."""
    listed = list(names)
    more = f" and {len(listed) - _FEW} more" if len(listed) > _FEW else ""
    return ", ".join(map(repr, listed[:_FEW])) + more


def read_adapter(path: pathlib.Path) -> AdapterFile:
    """Read an adapter in any layout.

    Args:
        path: a safetensors file, or a folder with one.

    Raises:
        ValueError: for a folder without or with several such files, a damaged file, a tensor that
            is no part of a low-rank pair, half a pair, or an alpha that cannot be known.
    """
    file = _file_of(path)
    tensors, metadata = _read_all(file)
    found: dict[str, dict[str, np.ndarray]] = {}
    foreign, layouts = [], set()
    for name, tensor in tensors.items():
        if (part := _part_of(name)) is None:
            foreign.append(name)
            continue
        layout, module, side = part
        layouts.add(layout)
        side = {"A": "a", "down": "a", "B": "b", "up": "b"}.get(side, side)
        found.setdefault(module, {})[side] = tensor
    if foreign:
        raise ValueError(
            f"{file} holds {quoted_names(foreign)}: no matrices A and B of a low-rank change, and "
            "nothing else is read (no DoRA, LoHa, LoKr, biases or whole weights)"
        )
    half = [name for name, sides in found.items() if not {"a", "b"} <= set(sides)]
    if half or not found:
        what = f"lacks A or B of {quoted_names(half)}" if half else "holds no tensors"
        raise ValueError(f"{file} {what}")
    _check_shapes(file, found)
    layout = next(name for name in ("peft", "comfyui", "native", "diffusers") if name in layouts)
    scales = _scales(file, layout, metadata, found)
    pairs = {name: LowRankPair(x["a"], x["b"], scales[name]) for name, x in found.items()}
    return AdapterFile(file, layout, pairs)


def _span(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def _file_of(path: pathlib.Path) -> pathlib.Path:
    if path.is_dir():
        for name in (PEFT_FILE, DIFFUSERS_FILE):
            if (path / name).is_file():
                return path / name
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            what = f"{len(files)} ({quoted_names(f.name for f in files)})" if files else "none"
            raise ValueError(
                f"{path} must hold one .safetensors file, it holds {what}; other formats are not "
                "read"
            )
        return files[0]
    if path.suffix != ".safetensors" or not path.is_file():
        raise ValueError(f"{path} is neither a folder nor a .safetensors file")
    return path


def _read_all(file: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(file, framework="numpy") as opened:
            names = list(opened.keys())
            check_readable(file, {name: opened.get_slice(name).get_dtype() for name in names})
            tensors = {name: opened.get_tensor(name).astype(np.float32) for name in names}
            metadata = dict(opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from error
    if wrong := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise ValueError(f"{file} holds numbers that are not finite in {quoted_names(wrong)}")
    return tensors, metadata


def _part_of(name: str) -> tuple[str, str, str] | None:
    """Return (layout, module, side) of a tensor's name; None for one that is no part of a pair."""
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    layout, rest = PREFIXES.get(prefix, "diffusers"), name.removeprefix(prefix)
    if rest.endswith(".alpha"):
        return layout, rest.removesuffix(".alpha"), "alpha"
    for pattern in _SIDES:
        if match := pattern.fullmatch(rest):
            module, is_old = match["module"].replace(".processor.", "."), bool(match["old"])
            if is_old and module.endswith(".to_out"):
                module += ".0"
            is_comfyui = bool(match["kohya"]) or (is_old and not prefix)
            return "comfyui" if is_comfyui else layout, module, match["side"]
    return None


def _scales(
    file: pathlib.Path,
    layout: str,
    metadata: Mapping[str, str],
    found: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, float]:
    """Return what each pair's product is multiplied by."""
    ranks = {name: sides["a"].shape[0] for name, sides in found.items()}
    stated: dict[str, float] = {}
    if layout == "peft":
        config = file.parent / PEFT_CONFIG
        if not config.is_file():
            raise ValueError(f"{file} has no {PEFT_CONFIG} beside it, where its alpha would stand")
        fields = read_json(config, schema=_SETTINGS)
        stated = {name: _stated_scale(config, fields, name, rank) for name, rank in ranks.items()}
    elif DIFFUSERS_METADATA in metadata:
        fields = _fields_of_metadata(file, metadata[DIFFUSERS_METADATA])
        stated = {name: _stated_scale(file, fields, name, rank) for name, rank in ranks.items()}
    scales = {name: stated.get(name, 1.0) for name in found}
    for name, sides in found.items():
        if "alpha" not in sides:
            continue
        if sides["alpha"].size != 1:
            raise ValueError(f"{file}: the alpha of {name!r} is of shape {sides['alpha'].shape}")
        scales[name] = scale = float(sides["alpha"].item()) / ranks[name]
        if name in stated and not math.isclose(stated[name], scale, rel_tol=1e-3):
            raise ValueError(
                f"{file}: the alpha of {name!r} is {scale * ranks[name]:g} in a tensor and "
                f"{stated[name] * ranks[name]:g} in the file's settings"
            )
    return scales


def _fields_of_metadata(file: pathlib.Path, text: str) -> dict[str, Any]:
    where = f"{file}: {DIFFUSERS_METADATA}"
    fields = parse_json(text, TABLE, where)
    owners = [prefix for prefix, layout in PREFIXES.items() if layout == "diffusers"]
    fields = {
        name.removeprefix(next((o for o in owners if name.startswith(o)), "")): value
        for name, value in fields.items()
    }
    check_json(fields, _SETTINGS, where)
    return fields


def _stated_scale(where: pathlib.Path, fields: Mapping[str, Any], module: str, rank: int) -> float:
    """Return alpha / r of a module, as peft works it out of these settings."""
    kind = "DoRA" if fields.get("use_dora") else fields.get("peft_type") or "LORA"
    if kind != "LORA":
        raise ValueError(f"{where} describes {kind}, not LoRA")
    start = fields.get("init_lora_weights")
    if str(start).lower().startswith(_STARTS_IN_THE_BASE):
        raise ValueError(
            f"{where} says init_lora_weights={start!r}: A and B belong to a network whose own "
            "matrices were changed too. Save it as plain LoRA, with peft's save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...)"
        )
    expected = _of_pattern(where, fields.get("rank_pattern"), module, fields["r"])
    if expected != rank:
        raise ValueError(
            f"{where} says rank {expected} of {module!r}, its matrix A has {rank} rows"
        )
    alpha = _of_pattern(where, fields.get("alpha_pattern"), module, fields["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if fields.get("use_rslora") else rank)


def _of_pattern(where: pathlib.Path, pattern: Any, module: str, default: float) -> float:
    for key, value in (pattern or {}).items():
        try:
            if re.match(rf"(.*\.)?({key})$", module):
                return value
        except re.error as error:
            raise ValueError(f"{where}: {key!r} is no pattern of modules: {error}") from error
    return default


def _check_shapes(file: pathlib.Path, found: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    shapes = {name: (sides["a"].shape, sides["b"].shape) for name, sides in found.items()}
    wrong = [
        f"{name} A {low_a} B {low_b}"
        for name, (low_a, low_b) in shapes.items()
        if min(len(low_a), len(low_b)) < 2 or low_a[0] != low_b[1] or 0 in low_a + low_b
    ]
    if wrong:
        raise ValueError(
            f"{file}: the shapes of A and B do not fit together: {quoted_names(wrong)}"
        )
