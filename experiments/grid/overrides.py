"""Config overrides as text, and the config that a command line with them would give."""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

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

    Raises:
        ValueError: for an unknown field or a value of the wrong type.
    """
    arguments = ["plan", f"--config={config_file}", *overrides_to_flags(overrides)]
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file(
        "config", None, lock_config=True, flag_values=values, sys_argv=arguments
    )
    try:
        values(arguments)
    except (flags.Error, AttributeError, KeyError, TypeError, OSError) as error:
        raise ValueError(str(error)) from error
    return holder.value
