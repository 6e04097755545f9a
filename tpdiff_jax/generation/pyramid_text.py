"""What `--pyramid` asks for, read: strides alone, or fields of the pyramid by name.

    4,2,1
    strides=(4,2,1) upsample=linear stage_fractions=(.5,.2,.3) steps_per_stage=(15,8,7)

A text is read as numbers, words and tuples of them; nothing of it is run.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tpdiff_jax.checks import as_tuple

OF_SAMPLING = ("steps_per_stage", "guidance_per_stage", "grid_power", "time_grids")
"""Fields of the group `sample` that may have one entry a stage, and so go with a pyramid."""
TOLD_STRIDES = "told_strides"
"""What the network is told of a stage's strides: "stage", or "full", those of the full video."""
OF_TRAINING = ("line", "target_unit", "time_conditioning", "stage_weighting")
"""Fields of the group `pyramid` that say what a network has learned; sampling cannot change it."""

_LISTS = ("strides", "frame_strides", "stage_fractions", "data_mean", *OF_SAMPLING)
_NAME = re.compile(r"(?:^|[\s,;])(\w+)\s*=")
_WORD = re.compile(r"[A-Za-z_]\w*")


def read_pyramid(asked: str | Mapping[str, Any] | Sequence[Any] | int) -> dict[str, Any]:
    """Return the fields that are asked for.

    Args:
        asked: a text as on the command line; fields by name; or strides alone.

    Returns:
        Field -> value, lists as tuples; either of the groups `pyramid` and `sample`, by its name
        without the group's, or `told_strides`.

    Raises:
        ValueError: for a text that is none of both, a field given twice, or one that says what the
            network has learned.
    """
    if isinstance(asked, str):
        fields = _parse(asked)
    elif isinstance(asked, Mapping):
        fields = {str(name): _tuples(value) for name, value in asked.items()}
    else:
        fields = {"strides": _tuples(asked)}
    for name in OF_TRAINING:
        if name in fields:
            raise ValueError(
                f"--pyramid: pyramid.{name} says what the network was trained for, and cannot be "
                "changed when sampling"
            )
    if {"strides", "frame_strides"} <= fields.keys():
        raise ValueError("--pyramid: strides and frame_strides say the same; give one of them")
    if fields.get(TOLD_STRIDES, "full") not in ("full", "stage"):
        raise ValueError(
            f"--pyramid: {TOLD_STRIDES} is {fields[TOLD_STRIDES]!r}; allowed: 'full', 'stage'"
        )
    listed = {name: fields[name] for name in _LISTS if name in fields}
    return fields | {name: _as_list(name, value) for name, value in listed.items()}


def pyramid_name(strides: Sequence[Sequence[int]], fields: Mapping[str, Any]) -> str:
    """Return a name for folders and files, the same for the same request.

    Args:
        strides: of each stage, over time, height and width.
        fields: what else is asked for.
    """
    is_time_only = all(tuple(stage[1:]) == (1, 1) for stage in strides)
    parts = ["-".join(_shown(stage[0] if is_time_only else stage, "x") for stage in strides)]
    parts += [
        f"{name}-{_shown(value)}"
        for name, value in sorted(fields.items())
        if name not in ("strides", "frame_strides")
    ]
    return "_".join(parts)


def _shown(value: Any, joint: str = "-") -> str:
    if isinstance(value, tuple | list):
        return joint.join(_shown(one, "+") for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parse(text: str) -> dict[str, Any]:
    before, *rest = _NAME.split(text.strip())
    if not rest:
        return {"strides": _value("strides", text)}
    if before.strip(" ,;"):
        raise _refusal(text, f"{before.strip()!r} has no name")
    fields: dict[str, Any] = {}
    for name, value in zip(rest[::2], rest[1::2], strict=True):
        if name in fields:
            raise _refusal(text, f"{name} is given twice")
        fields[name] = _value(name, value)
    return fields


def _value(name: str, text: str) -> Any:
    """A number, a word or a tuple; nothing is run."""
    text = text.strip().rstrip(",;").strip()
    if _WORD.fullmatch(text):
        return text
    try:
        return _tuples(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _refusal(text, f"{name} is no number, word or list of them") from error


def _refusal(text: str, why: str) -> ValueError:
    return ValueError(
        f"--pyramid={text!r}: {why}; allowed: strides, as in 4,2,1, or fields, as in "
        "'strides=(4,2,1) upsample=linear'"
    )


def _tuples(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(_tuples, value))
    return value


def _as_list(name: str, value: Any) -> Any:
    """One number is a list of one; a word, such as "auto", stays what it is."""
    if isinstance(value, str):
        return value
    return as_tuple(name, value if isinstance(value, tuple) else (value,), "")
