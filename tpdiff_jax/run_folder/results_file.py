"""Whether the figures that a run ends with are in its folder: asked without reading the config."""

import pathlib

from tpdiff_jax.files.json_files import read_json
from tpdiff_jax.files.json_schema import COUNT


def is_complete(workdir: pathlib.Path, num_steps: int) -> bool:
    """Whether results.json holds the final figures of a run of this length.

    A damaged one does not: the run's last steps write it again.
    """
    try:
        results = read_json(workdir / "results.json", schema={"counts": {"steps": COUNT}})
    except ValueError:
        return False
    return results["counts"]["steps"] == num_steps
