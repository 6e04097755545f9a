"""A checkpoint's averaged parameters as published weights, for diffusers and what reads its files.

Whatever was trained, all of the network is written: frozen parameters as they came, low-rank
changes merged into their matrices.
"""

import pathlib

from absl import logging

from tpdiff_jax.checks import check_choice
from tpdiff_jax.files.durable import WriteError
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.models.published import PUBLISHED


def export_run(
    run: OpenedRun, layout: str | None, dtype: str, out: pathlib.Path | None = None
) -> pathlib.Path:
    """Write the parameters of an opened checkpoint.

    Args:
        run: the opened checkpoint.
        layout: one of the network's layouts; None takes the first.
        dtype: stored type, float32, bfloat16 or float16.
        out: folder; by default one named by step in the run's `export/`.

    Returns:
        The folder written.

    Raises:
        ValueError: for a network without published weights, a layout it lacks, or a folder that
            already holds weights.
        WriteError: when the disk is full or broken; no weights are left then.
    """
    experiment, name = run.experiment, run.experiment.config.model.name
    if name not in PUBLISHED:
        raise ValueError(f"model.name={name!r} has no published weights; {tuple(PUBLISHED)} have")
    published = PUBLISHED[name]
    if layout is not None:
        check_choice("--layout", layout, published.layouts)
    folder = out or run.workdir / "export" / f"step_{run.step:08d}"
    if _weights_in(folder):
        raise ValueError(f"{folder} already holds safetensors; choose another folder")
    source = experiment.weights.folder if experiment.weights else None
    if source is not None and not source.is_dir():
        logging.info("%s is not here: what is copied from it is computed instead", source)
        source = None
    config = experiment.network.config
    try:
        published.save(folder, run.params, config, layout or published.layouts[0], dtype, source)
    except WriteError:  # half of them helps nobody and would refuse the next attempt
        for path in _weights_in(folder):
            path.unlink(missing_ok=True)
        raise
    logging.info("wrote the weights of step %d to %s", run.step, folder)
    return folder


def _weights_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """The weights of a folder and of its parts."""
    return [*folder.glob("*.safetensors*"), *folder.glob("*/*.safetensors*")]
