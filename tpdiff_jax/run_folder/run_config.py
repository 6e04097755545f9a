"""The resolved config beside the run: saved as JSON, compared on resume, read back by other modes.

A Python config is code and is only ever run from the command line's `--config`; a run folder is
read as JSON, never executed.
"""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from tpdiff_jax.command_line.config_overrides import flat_fields
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.run_folder.checkpoint_folder import list_steps
from tpdiff_jax.run_folder.free_fields import LATER_FIELDS, PLACES, is_place, may_change

FILE_NAME = "config.json"
PUBLISHED_RUN_FILE = "tpdiff_run.json"
"""In the place of it where a run's weights have been written for others."""
GENERATE_GROUPS = ("sample", "eval", "measure")
"""What a run shows and measures; checkpoints do not depend on it."""
_MISSING = "(absent)"
_SHOWN_DIFFERENCES = 20


class ConfigMismatchError(ValueError):
    """The workdir belongs to a run of another config."""


def save_config(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Write `config` as JSON into the workdir, durably: no run can be resumed without it."""
    text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
    write_durably(workdir / FILE_NAME, (text + "\n").encode())


def load_config(workdir: pathlib.Path) -> ConfigDict:
    """Read the config a run was started with.

    Raises:
        ValueError: when there is none, it is not JSON, or is the config of a network.
    """
    path = workdir / FILE_NAME
    refuse_exported_model(workdir)
    if not path.is_file():
        raise ValueError(f"{workdir} is not a run folder: {path} does not exist")
    fields = read_json(path)
    if "train" not in fields and (network := fields.get("_class_name")):
        raise ValueError(
            f"{workdir} is not a run folder: {path} is the config of a network, {network!r}; "
            f"training starts from weights by --config.model.weights={workdir}"
        )
    return config_of_json(fields)


def is_exported_model(folder: pathlib.Path) -> bool:
    """Whether a folder holds a run's weights for others, and is no run itself."""
    if not (folder / PUBLISHED_RUN_FILE).is_file() or list_steps(folder / "checkpoints"):
        return False
    try:
        return "train" not in read_json(folder / FILE_NAME)
    except ValueError:  # not every network has one there
        return True


def refuse_exported_model(workdir: pathlib.Path) -> None:
    """Refuse an exported model where a run is needed.

    Raises:
        ValueError: in one line, with what can be done with it.
    """
    if is_exported_model(workdir):
        raise ValueError(
            f"--workdir={workdir} is an exported model, not a run: sample, evaluate and export "
            "read it (without --config), and training in a new workdir starts from it by "
            f"--config.model.weights={workdir}"
        )


def check_is_run(workdir: pathlib.Path) -> None:
    """Refuse a folder that neither is a run nor holds one's published weights.

    Raises:
        ValueError: when there is no config, or it is not JSON.
    """
    if not is_exported_model(workdir):
        load_config(workdir)


def config_of_json(fields: Mapping[str, Any]) -> ConfigDict:
    """Return a config from what JSON holds of it, with tuples in the place of lists."""
    return ConfigDict(_lists_to_tuples(dict(fields)))


def check_same_run(
    saved: ConfigDict,
    config: ConfigDict,
    *,
    free_groups: tuple[str, ...] = (),
    same_places: Collection[str] = PLACES,
) -> None:
    """Refuse a config that differs from the saved one in more than may change.

    Length, periods, log and mesh may, and where something lies that is known by its hash. A field
    that the run of an earlier version lacks counts as what that version did.

    Args:
        saved: config of the existing run.
        config: config asked for now.
        free_groups: whole groups that may differ as well.
        same_places: fields that name a place, at which the same lies as before.

    Raises:
        ConfigMismatchError: in one line, with the fields that differ.
    """
    old, new = ({**LATER_FIELDS, **dict(flat_fields(of))} for of in (saved, config))
    lines = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, _MISSING), new.get(name, _MISSING)
        if before != after and name not in same_places and not may_change(name, free_groups):
            lines.append(f"{name}: saved {before!r}, now {after!r}")
    if lines:
        more = f"; and {left_out} more" if (left_out := len(lines) - _SHOWN_DIFFERENCES) > 0 else ""
        raise ConfigMismatchError(
            "the workdir holds a run of another config (only train.num_steps, "
            "optim.schedule_steps, *_every_steps, log.*, mesh.* and the places of the same data "
            "and weights may change): " + "; ".join(lines[:_SHOWN_DIFFERENCES]) + more
        )


def changed_places(saved: ConfigDict, config: ConfigDict) -> dict[str, str]:
    """Return the fields that name another place than the run's, with what they name now.

    Args:
        saved: config of the existing run.
        config: config asked for now.
    """
    old, new = dict(flat_fields(saved)), dict(flat_fields(config))
    return {name: new[name] for name in PLACES if name in new and new[name] != old.get(name)}


def deciding_fields(config: ConfigDict) -> dict[str, Any]:
    """Return the fields that a checkpoint depends on, flat and as JSON holds them."""
    fields = flat_fields(config)
    kept = {n: value for n, value in fields if not (may_change(n, GENERATE_GROUPS) or is_place(n))}
    return json.loads(json.dumps(kept))


def _lists_to_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists_to_tuples(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(_lists_to_tuples(item) for item in value)
    return value
