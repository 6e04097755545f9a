"""The points of a sweep: from a config's own `sweep()`, a grid, or random draws.

A point is `group.field` -> text, as on the command line. A specification is `group.field=...`:

    grid     VALUE,VALUE,...      commas inside brackets belong to a value, as in (4,2,1),(1,)
    random   log(LOW,HIGH) | uniform(LOW,HIGH) | choice(VALUE,...)
"""

import ast
import importlib.util
import itertools
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tpdiff_jax.checks import check_at_least

Point = dict[str, str]

_LONGEST_NAME = 100
_DIGITS = 3  # of a random number: enough for a sweep, and readable in a folder's name


def points_of_config(config_file: str) -> list[Point]:
    """Return the points that `sweep()` of a config file gives. The file is run, as by --config.

    Raises:
        ValueError: when there is no such function, or it gives something else.
    """
    if not pathlib.Path(config_file).is_file():
        raise ValueError(f"--config={config_file} is not a file")
    spec = importlib.util.spec_from_file_location("config_of_the_sweep", config_file)
    if spec is None or spec.loader is None:
        raise ValueError(f"--config={config_file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "sweep"):
        raise ValueError(f"{config_file} has no sweep(); give --grid or --random")
    points = list(module.sweep())
    if not points or not all(isinstance(point, Mapping) and point for point in points):
        raise ValueError(f"sweep() of {config_file} must give mappings such as group.field -> 1")
    return [{name: str(value) for name, value in point.items()} for point in points]


def grid_points(specs: Sequence[str]) -> list[Point]:
    """Return the product of all fields' values, the last field changing fastest.

    Raises:
        ValueError: for a specification that is none, or a field that has two.
    """
    fields = _split_specs("--grid", specs)
    values = [split_values(text) for text in fields.values()]
    return [dict(zip(fields, point, strict=True)) for point in itertools.product(*values)]


def random_points(specs: Sequence[str], num_points: int, seed: int) -> list[Point]:
    """Return independent draws of all fields; the same for the same seed.

    Raises:
        ValueError: for a specification that is none, a field that has two, or fewer than one
            point.
    """
    check_at_least("--num-points", num_points, 1)
    fields = _split_specs("--random", specs)
    draws = {name: _parse_distribution(name, text) for name, text in fields.items()}
    generator = np.random.default_rng(seed)
    return [{name: draw(generator) for name, draw in draws.items()} for _ in range(num_points)]


def split_values(text: str) -> list[str]:
    """Return the values of a list, whose commas stand outside of all brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def name_points(points: Sequence[Point]) -> list[str]:
    """Return a name for each point, fit for a folder: its fields and values.

    Raises:
        ValueError: when two points are the same.
    """
    fields = list(dict.fromkeys(name for point in points for name in point))
    short = short_names(fields)
    names = [
        "__".join(f"{_clean(short[name])}_{_clean(value)}" for name, value in point.items())
        for point in points
    ]
    if any(len(name) > _LONGEST_NAME for name in names) or len(set(names)) < len(names):
        names = [f"point_{i:03d}" for i in range(len(points))]
    contents = [{field: _meaning(value) for field, value in point.items()} for point in points]
    for i, content in enumerate(contents):
        if content in contents[:i]:
            raise ValueError(f"the sweep has the point {points[i]} twice")
    return names


def short_names(fields: Sequence[str]) -> dict[str, str]:
    """Return field -> its last part where no other field ends in the same, else all of it."""
    last = [field.rpartition(".")[2] for field in fields]
    return {f: n if last.count(n) == 1 else f for f, n in zip(fields, last, strict=True)}


def _meaning(text: str) -> Any:
    """The value that a text stands for, so that 1e-3 and 0.001 are one; a word is itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_") or "none"


def _split_specs(option: str, specs: Sequence[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for spec in specs:
        name, equals, text = spec.partition("=")
        if not re.fullmatch(r"\w+\.\w+", name) or not equals or not text:
            raise ValueError(f"{option}={spec} must be like group.field=...")
        if name in fields:
            raise ValueError(f"{option} names {name} twice; write all of its values into one")
        fields[name] = text
    return fields


def _parse_distribution(name: str, text: str) -> Callable[[np.random.Generator], str]:
    """Return a function that draws a value as text."""
    found = re.fullmatch(r"(log|uniform|choice)\((.+)\)", text)
    if not found:
        raise ValueError(
            f"--random={name}={text} must be log(LOW,HIGH), uniform(LOW,HIGH) or choice(VALUE,...)"
        )
    kind, values = found[1], split_values(found[2])
    if kind == "choice":
        return lambda generator: values[int(generator.integers(len(values)))]
    low, high = _parse_range(name, text, values)
    if kind == "uniform":
        return lambda generator: _number(generator.uniform(low, high))
    if low <= 0:
        raise ValueError(f"--random={name}={text}: log needs a range above 0")
    return lambda generator: _number(math.exp(generator.uniform(math.log(low), math.log(high))))


def _parse_range(name: str, text: str, values: Sequence[str]) -> tuple[float, float]:
    try:
        low, high = map(float, values)
    except ValueError as error:
        raise ValueError(f"--random={name}={text} needs two numbers") from error
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"--random={name}={text}: {low:g} must lie below {high:g}")
    return low, high


def _number(value: Any) -> str:
    return f"{value:.{_DIGITS}g}"
