"""A run's weights with what sampling needs beside them, for others: `tpdiff_run.json`, `clips/`.

The config is the run's, without the places where its author kept clips and weights, and without
low-rank changes, which the weights hold merged. Read as JSON; nothing of the folder is run.
"""

import pathlib
import shutil
from typing import Any

from ml_collections import ConfigDict

from tpdiff_jax.data import read_recorded_clips
from tpdiff_jax.data.recorded_clips import CLIPS_FOLDER
from tpdiff_jax.devices.origin import run_origin
from tpdiff_jax.files.durable import naming_write_errors
from tpdiff_jax.files.json_files import read_json, write_json
from tpdiff_jax.files.json_schema import COUNT, TABLE
from tpdiff_jax.run_folder.free_fields import PLACES
from tpdiff_jax.run_folder.run_config import PUBLISHED_RUN_FILE, config_of_json

_SCHEMA = {"step": COUNT, "config": TABLE}
_MERGED = {"adaptation.trained": "", "adaptation.rank": 0}


def write_published_run(
    folder: pathlib.Path, workdir: pathlib.Path, config: ConfigDict, step: int
) -> None:
    """Write what `read_published_run` reads.

    Args:
        folder: of the exported weights.
        workdir: of the run, which may keep what it needs of its clips.
        config: of the run.
        step: completed steps.

    Raises:
        WriteError: when the disk is full or broken.
    """
    fields = config.to_dict()
    for name, value in {**dict.fromkeys(PLACES, ""), **_MERGED}.items():
        group, field = name.split(".")
        if field in fields.get(group, {}):
            fields[group][field] = value
    origin = run_origin()
    origin.pop("command", None)  # it names the author's folders
    write_json(folder / PUBLISHED_RUN_FILE, {"step": step, "config": fields, **origin})
    if read_recorded_clips(workdir):
        with naming_write_errors(folder / CLIPS_FOLDER):
            shutil.copytree(workdir / CLIPS_FOLDER, folder / CLIPS_FOLDER, dirs_exist_ok=True)


def read_published_run(folder: pathlib.Path) -> tuple[ConfigDict, int]:
    """Return the config, which starts from the folder's weights, and the step that they are of.

    Raises:
        ValueError: when the file is damaged.
    """
    content: dict[str, Any] = read_json(folder / PUBLISHED_RUN_FILE, schema=_SCHEMA)
    config = config_of_json(content["config"])
    if not isinstance(config.get("model"), ConfigDict) or "weights" not in config.model:
        raise ValueError(f"{folder / PUBLISHED_RUN_FILE}: its config has no model.weights")
    config.model.weights = str(folder)
    return config, content["step"]
