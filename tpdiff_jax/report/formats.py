"""Numbers as text. Pages escape everything; nothing here is HTML."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

MISSING = "\N{EN DASH}"
_THIN_SPACE = "\N{THIN SPACE}"
_PREFIXES = ("", "k", "M", "G", "T", "P", "E")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether `value` is a finite int or float (a bool is neither)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def figure(value: Any, digits: int = 4) -> str:
    """A number to `digits` significant places, without exponents where they can be avoided."""
    if not is_number(value):
        return MISSING if value is None or isinstance(value, float) else str(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", _THIN_SPACE)
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def with_prefix(value: Any, unit: str = "") -> str:
    """A number with three places and a decimal prefix: 1.23 TFLOP."""
    if not is_number(value):
        return MISSING
    value = _rounded(value)  # first: 999,960 is 1 M
    power = 0 if value == 0 else int(math.log10(abs(value)) // 3)
    power = min(max(power, 0), len(_PREFIXES) - 1)
    return f"{value / 1000**power:.3g} {_PREFIXES[power]}{unit}".strip()


def _rounded(value: float) -> float:
    """To three places, as it is shown."""
    return float(f"{value:.3g}")


def byte_count(value: Any) -> str:
    """A number of bytes with three places and a binary prefix."""
    if not is_number(value):
        return MISSING
    power = 0
    while value >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.{4 if value >= 999.5 else 3}g} {_UNITS[power]}"


def seconds(value: Any) -> str:
    """A duration: 123 ms, 4.56 s, 12 min 5 s or 2 h 7 min."""
    if not is_number(value):
        return MISSING
    if (shown := _rounded(value)) < 1:
        return f"{1000 * value:.3g} ms"
    if shown < 60:
        return f"{value:.3g} s"
    minutes, s = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {s} s"


def percent(value: Any) -> str:
    """A share as per cent."""
    if not is_number(value):
        return MISSING
    return f"{100 * value:.0f} %" if abs(value) >= 9.995 else f"{100 * value:.3g} %"


def tick_text(value: float, _: int = 0) -> str:
    """A number beside an axis."""
    if abs(value) >= 10_000:
        return with_prefix(value).replace(" ", _THIN_SPACE)
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.3g}".replace("e-0", "e-")
    return f"{value:.6g}"


def times(values: Any) -> str:
    """Sizes along axes: 4 x 16 x 16."""
    return " x ".join(figure(value) for value in values)


def stage_shape(stage: Mapping[str, Any]) -> str:
    """Frames, height and width of a stage; older files tell its frames only."""
    shape = stage.get("shape")
    return times(shape) if isinstance(shape, list) else figure(stage.get("num_frames"))


def stage_frames(stage: Mapping[str, Any]) -> Any:
    """Number of frames of a stage, or None."""
    shape = stage.get("shape")
    return shape[0] if isinstance(shape, list) and shape else stage.get("num_frames")


def shown_strides(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Strides of every stage over time, height and width.

    Where no stage is smaller than the full size, and in older files, the stride over time alone.
    """
    return strides_text([stage.get("strides", stage.get("frame_stride")) for stage in stages])


def strides_text(entries: Sequence[Any]) -> list[str]:
    """Strides as a config or a result file has them: whole numbers, or triples."""
    is_spatial = any(isinstance(e, list) and any(size != 1 for size in e[1:]) for e in entries)
    texts = []
    for entry in entries:
        triple = entry if isinstance(entry, list) else [entry, 1, 1]
        texts.append(times(triple) if is_spatial else figure(triple[0] if triple else None))
    return texts
