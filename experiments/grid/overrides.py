"""Config overrides as text, and the config that a command line with them would give."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from tpdiff_jax.command_line import parse

_PREFIX = "--config."


def parse_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """Return `group.field` -> text from arguments such as `--config.train.num_steps=100`.

    Raises:
        ValueError: when an argument is anything else.
    """
    overrides = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix(_PREFIX).partition("=")
        if not argument.startswith(_PREFIX) or not equals:
            raise ValueError(f"{argument} must be an option, or --config.GROUP.FIELD=VALUE")
        overrides[name] = text
    return overrides


def merge_overrides(base: Mapping[str, str], own: Mapping[str, Any]) -> dict[str, str]:
    """Return both as text; `own` wins."""
    return {**base, **{name: str(value) for name, value in own.items()}}


def overrides_to_flags(overrides: Mapping[str, str]) -> list[str]:
    """Return the overrides as command-line flags."""
    return [f"{_PREFIX}{name}={text}" for name, text in overrides.items()]


def read_config(config_file: str, overrides: Mapping[str, str]) -> ConfigDict:
    """Return the config that the command line would give.

    Args:
        config_file: a file, or the name of a shipped config.
        overrides: `group.field` -> text.

    Raises:
        ValueError: as the trainer's command line: in one line, for a file that is not there, an
            unknown field or a value of the wrong type.
    """
    flags = [f"--config={config_file}", *overrides_to_flags(overrides)]
    return parse(["tpdiff_jax", "--workdir=.", *flags]).values["config"]
