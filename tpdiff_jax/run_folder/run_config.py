"""The resolved config beside the run: saved as JSON, compared on resume, read back by other modes.

A Python config is code and is only ever run from the command line's `--config`; a run folder is
read as JSON, never executed.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import read_json

FILE_NAME = "config.json"
GENERATE_GROUPS = ("sample", "eval", "measure")
"""What a run shows and measures; checkpoints do not depend on it."""
_MISSING = "(absent)"


class ConfigMismatchError(ValueError):
    """The workdir belongs to a run of another config."""


def save_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Write `config` as JSON into the workdir, durably: no run can be resumed without it."""
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
    write_durably(workdir / FILE_NAME, (text + "\n").encode())


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """Read the config a run was started with.

    Raises:
        ValueError: when there is none or it is not JSON.
    """
    path = workdir / FILE_NAME
    if not path.is_file():
        raise ValueError(f"{workdir} is not a run folder: {path} does not exist")
    fields = read_json(path)
    return ConfigDict(_lists_to_tuples(fields))


def check_same_run(
    saved: ConfigDict, config: ConfigDict, *, free_groups: tuple[str, ...] = ()
) -> None:
    """Refuse a config that differs from the saved one in more than length, periods, log and mesh.

    Args:
        saved: config of the existing run.
        config: config asked for now.
        free_groups: whole groups that may differ as well.

    Raises:
        ConfigMismatchError: with one line for each field that differs.
    """
    old, new = dict(flat_fields(saved)), dict(flat_fields(config))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, _MISSING), new.get(name, _MISSING)
        if before != after and not _may_change(name, free_groups):
            lines.append(f"  {name}: saved {before!r}, now {after!r}")
    if lines:
        raise ConfigMismatchError(
            "the workdir holds a run of another config (only train.num_steps, *_every_steps, "
            "log.* and mesh.* may change):\n" + "\n".join(lines)
        )


def deciding_fields(config: ConfigDict) -> dict[str, Any]:
    """Return the fields that a checkpoint depends on, flat and as JSON holds them."""
    fields = flat_fields(config)
    kept = {name: value for name, value in fields if not _may_change(name, GENERATE_GROUPS)}
    return json.loads(json.dumps(kept))


def _may_change(name: str, free_groups: tuple[str, ...]) -> bool:
    is_length = name == "train.num_steps" or name.endswith("_every_steps")
    is_place = name.startswith(
        ("mesh.", "log.")
    )  # where arrays lie and lines go, not what they hold
    return is_length or is_place or name.split(".", 1)[0] in free_groups


def flat_fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (`group.field`, value) of every field."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists_to_tuples(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_lists_to_tuples(item) for item in value)
    return value
