"""One line about a config override that cannot be taken: which field, and what was meant."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tpdiff_jax.checks import did_you_mean

_PREFIX = "--config."
_KINDS = {bool: "true or false", int: "whole numbers", float: "numbers", tuple: "tuples"}
_SHOWN_FIELDS = 12


def explain_override(error: Exception, argv: Sequence[str], fields: Mapping[str, Any]) -> str:
    """Return what is wrong with the overrides of a command line.

    Args:
        error: what ml_collections raised, which may hold another one and line breaks.
        argv: the program's name and its arguments.
        fields: those of the config file alone; none without a file.
    """
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = " ".join(str(error.args[0] if error.args else error).split())
    if not fields:
        return text
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if not argument.startswith(_PREFIX):
            continue
        name, is_joined, value = argument.removeprefix(_PREFIX).partition("=")
        value = value if is_joined else following
        if name and name not in fields:
            return f"{_PREFIX}{name}: {explain_unknown_field(name, fields)}"
        if text.startswith(f"flag {_PREFIX}{name}={value}: "):
            return _explain_value(name, value, fields[name]) or text
    return text


def flat_fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (`group.field`, value) of every field."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def explain_unknown_field(name: str, fields: Mapping[str, Any]) -> str:
    """Return what is said about a name that is no field, with the nearest that are.

    Args:
        name: full name, such as `train.num_step`.
        fields: those that exist, by their full names.
    """
    if of_group := [field for field in fields if field.startswith(f"{name}.")]:
        return f"a group cannot be set, only its fields: {_shown(of_group)}"
    if parents := [field for field in fields if name.startswith(f"{field}.")]:
        return f"{parents[0]} is a field, and has none of its own"
    if hint := did_you_mean(name, fields):
        return f"the config has no such field{hint}"
    group = name.partition(".")[0]
    if of_group := [field for field in fields if field.startswith(f"{group}.")]:
        return f"the config has no such field; {group} has {_shown(of_group)}"
    groups = dict.fromkeys(field.partition(".")[0] for field in fields)
    return f"the config has no such field; its groups are {', '.join(groups)}"


def _explain_value(name: str, value: str, default: Any) -> str | None:
    kind = _KINDS.get(type(default))
    return kind and f"{_PREFIX}{name} is {value!r}; allowed: {kind}, such as {default}"


def _shown(fields: Sequence[str]) -> str:
    more = ", ..." if len(fields) > _SHOWN_FIELDS else ""
    return ", ".join(fields[:_SHOWN_FIELDS]) + more
