"""What a JSON value from outside must look like, as plain data, and one line about what does not.

    check_json(content, {"step": COUNT, "files": TableOf({"bytes": COUNT})}, str(path))

An object is a dictionary of its members; a name that ends in `?` may be missing. Members that are
not listed pass unless the object is `Closed`. Whole numbers fit 64 bits, so that what computes with
them cannot overflow.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

_SHOWN = 80


class Leaf(NamedTuple):
    """A single value: what is allowed, in words, and the test."""

    allowed: str
    is_valid: Callable[[Any], bool]


class TableOf(NamedTuple):
    """An object whose names are free and whose values are alike."""

    values: "Schema"


class ListOf(NamedTuple):
    """A list of values that are alike."""

    entries: "Schema"


class Maybe(NamedTuple):
    """A value or null."""

    value: "Schema"


class Closed(NamedTuple):
    """An object without any member but those listed."""

    members: Mapping[str, "Schema"]


Schema: TypeAlias = Leaf | TableOf | ListOf | Maybe | Closed | Mapping[str, Any]


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)


ANY = Leaf("anything", lambda _: True)
TEXT = Leaf("text", lambda value: isinstance(value, str))
COUNT = Leaf("a whole number from 0", lambda value: type(value) is int and 0 <= value < 2**63)
NUMBER = Leaf("a number", _is_finite)
TABLE = TableOf(ANY)


def check_json(value: Any, schema: Schema, where: str) -> None:
    """Compare a JSON value with what it must look like.

    Args:
        value: of `json.loads`.
        schema: what is allowed.
        where: what to call the value in the error, such as its file.

    Raises:
        ValueError: naming the first place that does not fit, what is there and what is allowed.
    """
    if isinstance(schema, Leaf):
        if not schema.is_valid(value):
            _refuse_value(where, value, schema.allowed)
    elif isinstance(schema, Maybe):
        if value is not None:
            check_json(value, schema.value, where)
    elif isinstance(schema, ListOf):
        if not isinstance(value, list):
            _refuse_value(where, value, "a list")
        for i, entry in enumerate(value):
            check_json(entry, schema.entries, f"{where}[{i}]")
    else:
        _check_object(value, schema, where)


def _check_object(value: Any, schema: TableOf | Closed | Mapping[str, Any], where: str) -> None:
    if not isinstance(value, dict):
        _refuse_value(where, value, "an object")
    if isinstance(schema, TableOf):
        for name, member in value.items():
            check_json(member, schema.values, f"{where}: {name}")
        return
    members = schema.members if isinstance(schema, Closed) else schema
    known = {name.removesuffix("?"): (name, kind) for name, kind in members.items()}
    for name, (written, kind) in known.items():
        if name in value:
            check_json(value[name], kind, f"{where}: {name}")
        elif not written.endswith("?"):
            raise ValueError(f"{where} lacks {name!r}")
    if isinstance(schema, Closed) and (unknown := sorted(value.keys() - known.keys())):
        raise ValueError(f"{where} has {_shown(unknown[0])}, which nobody here has written")


def _refuse_value(where: str, value: Any, allowed: str) -> None:
    raise ValueError(f"{where} is {_shown(value)}; allowed: {allowed}")


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    try:
        text = repr(value)
    except ValueError:  # Python prints no whole number of more than 4300 digits
        text = "a very large number"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
