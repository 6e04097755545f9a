"""The systems of a table: trained runs and published weights, named in one JSON file.

    {
      "miniflux_tpdiff": {"workdir": "runs/miniflux", "text_weights": "WEIGHTS",
                          "video_weights": "WEIGHTS/causal_video_vae"},
      "modelscope": {"workdir": "runs/modelscope", "config": "configs/modelscope.py",
                     "overrides": {"data.folder": "CLIPS", "model.weights": "WEIGHTS"},
                     "text_weights": "WEIGHTS", "video_weights": "WEIGHTS/vae"}
    }

`workdir` is the folder of a run; with `config`, and no run in it, the weights that the config's
`model.weights` names are opened. `overrides` are fields of that config. `text_weights`,
`video_weights`, `negative_prompt` and `adapter` are the flags of `--mode=sample`.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.grid.overrides import merge_overrides, read_config
from tpdiff_jax.checks import check_choice, naming
from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.files.json_schema import TABLE, TEXT, Closed, TableOf
from tpdiff_jax.generation.from_checkpoint import GenerateFlags, OpenedRun, open_run

_SCHEMA = TableOf(
    Closed(
        {
            "workdir": TEXT,
            "config?": TEXT,
            "overrides?": TABLE,
            "text_weights?": TEXT,
            "video_weights?": TEXT,
            "negative_prompt?": TEXT,
            "adapter?": TEXT,
        }
    )
)


class System(NamedTuple):
    """One row of a table.

    Attributes:
        name: a part of a path; that of a row of the paper where it stands for one.
        workdir: folder of the run.
        config: config file; "" reads the run's own.
        overrides: fields of the config, as text.
        text_weights: folder of the text encoder.
        video_weights: folder of the autoencoder.
        negative_prompt: what guidance points away from.
        adapter: an adapter (LoRA) to add; "" for none.
    """

    name: str
    workdir: pathlib.Path
    config: str = ""
    overrides: Mapping[str, str] = {}
    text_weights: str = ""
    video_weights: str = ""
    negative_prompt: str = ""
    adapter: str = ""

    def open(self, flags: GenerateFlags, *, is_measured: bool = False) -> OpenedRun:
        """Open the run or the weights.

        Args:
            flags: of generation; the system's autoencoder and adapter are added.
            is_measured: whether figures are wanted.

        Raises:
            ValueError: naming the system, for what cannot be opened.
        """
        flags = flags._replace(
            video_weights=self.video_weights or None, adapter=self.adapter or None
        )
        with naming(self.name):
            config = read_config(self.config, self.overrides) if self.config else None
            return open_run(self.workdir, config=config, overrides=flags, is_measured=is_measured)


def read_systems(path: pathlib.Path, only: Sequence[str] = ()) -> list[System]:
    """Return the systems of a file, in its order.

    Args:
        path: the JSON file (module docstring).
        only: names to keep; all for none.

    Raises:
        ValueError: for another kind of file, an unknown field or name, or a name that cannot be
            part of a path.
    """
    entries = read_json(path, dict, schema=_SCHEMA)
    for name in only:
        check_choice("--only", name, tuple(entries))
    if not entries:
        raise ValueError(f"{path} names no system")
    for name in entries:
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]*", name):
            raise ValueError(
                f"{path}: {name!r} must be letters, digits, - and _, none of these two first"
            )
    return [_system(name, entries[name]) for name in entries if not only or name in only]


def _system(name: str, fields: Mapping[str, Any]) -> System:
    known = {key: value for key, value in fields.items() if key not in ("workdir", "overrides")}
    return System(
        name=name,
        workdir=pathlib.Path(fields["workdir"]),
        overrides=merge_overrides({}, fields.get("overrides", {})),
        **known,
    )
