"""One line about a config override that cannot be taken: which field, and what was meant."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from tpdiff_jax.checks import did_you_mean

_PREFIX = "--config."
_KINDS = {bool: "true or false", int: "whole numbers", float: "numbers", tuple: "tuples"}
_SHOWN_FIELDS = 12


def explain_override(error: Exception, argv: Sequence[str]) -> str:
    """Return what is wrong with the overrides of a command line.

    Args:
        error: what ml_collections raised, which may hold another one and line breaks.
        argv: the program's name and its arguments; --config in them names a file.
    """
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = " ".join(str(error.args[0] if error.args else error).split())
    if (fields := _fields_of_config(argv)) is None:
        return text
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if not argument.startswith(_PREFIX):
            continue
        name, is_joined, value = argument.removeprefix(_PREFIX).partition("=")
        value = value if is_joined else following
        if name and name not in fields:
            return f"{_PREFIX}{name}: {_explain_unknown_field(name, fields)}"
        if text.startswith(f"flag {_PREFIX}{name}={value}: "):
            return _explain_value(name, value, fields[name]) or text
    return text


def _fields_of_config(argv: Sequence[str]) -> dict[str, Any] | None:
    """Return the fields of the config file alone; None where it cannot be read."""
    words = [i for i, argument in enumerate(argv) if re.match("--?config(=|$)", argument)]
    files = [argv[i : i + (1 if "=" in argv[i] else 2)] for i in words[-1:]]
    values = flags.FlagValues()
    program_and_file = [argv[0], *files[0]] if files else list(argv[:1])
    config_flags.DEFINE_config_file(
        "config", None, "", flag_values=values, sys_argv=program_and_file
    )
    try:
        values(program_and_file)
    except Exception:  # a config file is a program: the error of its first run is the one to tell
        return None
    return dict(_flat(values["config"].value)) if values["config"].value else None


def _flat(config: ConfigDict, prefix: str = "") -> Mapping[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in config.items():
        is_group = isinstance(value, ConfigDict)
        fields |= _flat(value, f"{prefix}{name}.") if is_group else {f"{prefix}{name}": value}
    return fields


def _explain_unknown_field(name: str, fields: Mapping[str, Any]) -> str:
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
