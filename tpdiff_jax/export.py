"""A checkpoint's averaged parameters as published weights, for diffusers and what reads its files.

As weights, all of the network is written, whatever was trained: frozen parameters as they came,
low-rank changes merged into their matrices. As an adapter, low-rank changes alone. With a model
card, the weights and what others need to sample from them.
"""

import contextlib
import importlib.metadata
import pathlib

from absl import logging

from tpdiff_jax.checks import check_choice
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.generation.from_checkpoint import OpenedRun
from tpdiff_jax.generation.model_card import (
    CARD_FILE,
    OWN_LICENCE,
    CardFiles,
    card_text,
    choose_licence,
    kept_licence,
    read_figures,
)
from tpdiff_jax.generation.output_folder import only_this_export
from tpdiff_jax.generation.published_run import write_published_run
from tpdiff_jax.models.adapter_export import BAKED_LAYOUTS, save_adapter
from tpdiff_jax.models.adapter_names import adapter_names
from tpdiff_jax.models.adapters import AdaptedNetwork, pairs_of_low_rank
from tpdiff_jax.models.published import PUBLISHED
from tpdiff_jax.weights.adapter_files import ADAPTER_LAYOUTS

CARD_VIDEOS = 8  # copied beside a card


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
            is not empty.
        WriteError: when the disk is full or broken; no file is left then.
    """
    layout = _weights_layout(run, layout)
    folder = out or run.workdir / "export" / f"step_{run.step:08d}"
    with only_this_export(folder):
        _write_weights(run, layout, dtype, folder)
    return folder


def _weights_layout(run: OpenedRun, layout: str | None) -> str:
    """Return the layout to write a network's weights in."""
    if (name := run.experiment.config.model.name) not in PUBLISHED:
        raise ValueError(f"model.name={name!r} has no published weights; {tuple(PUBLISHED)} have")
    if layout is not None:
        check_choice("--layout", layout, PUBLISHED[name].layouts)
    return layout or PUBLISHED[name].layouts[0]


def _write_weights(run: OpenedRun, layout: str, dtype: str, folder: pathlib.Path) -> None:
    experiment, published = run.experiment, PUBLISHED[run.experiment.config.model.name]
    source = experiment.weights.folder if experiment.weights else None
    if source is not None and not source.is_dir():
        logging.info("%s is not here: what is copied from it is computed instead", source)
        source = None
    published.save(folder, run.params, experiment.network.config, layout, dtype, source)
    logging.info("wrote the weights of step %d to %s", run.step, folder)


def export_adapter(
    run: OpenedRun, layout: str | None, dtype: str, out: pathlib.Path | None = None
) -> pathlib.Path:
    """Write the low-rank changes of an opened checkpoint as an adapter.

    Args:
        run: the opened checkpoint.
        layout: one of `ADAPTER_LAYOUTS`; None takes the first, peft's.
        dtype: stored type, float32, bfloat16 or float16.
        out: folder; by default one named by step and layout in the run's `export/`.

    Returns:
        The folder written.

    Raises:
        ValueError: for a run without low-rank changes, an unknown layout, or a folder that is not
            empty.
        WriteError: as `export_run`.
    """
    experiment, adaptation = run.experiment, run.experiment.task.adaptation
    if run.low_rank is None:
        raise ValueError(
            "--what=adapter is for runs of low-rank changes: adaptation.rank is 0; allowed: at "
            "least 1"
        )
    layout = layout or ADAPTER_LAYOUTS[0]
    check_choice("--layout", layout, ADAPTER_LAYOUTS)
    names = adapter_names(experiment.config.model.name)
    network = AdaptedNetwork(names, experiment.network.config, run.params)
    pairs = pairs_of_low_rank(run.low_rank, network, layout, adaptation.scale)
    folder = out or run.workdir / "export" / f"step_{run.step:08d}_{layout}"
    base = str(experiment.weights.folder) if experiment.weights else ""
    with only_this_export(folder):
        file = save_adapter(folder, pairs, names, layout, dtype, base)
    strength = (
        f"B holds alpha / rank = {adaptation.scale:g}, readers take 1"
        if layout in BAKED_LAYOUTS
        else f"alpha {adaptation.alpha:g}"
    )
    logging.info(
        "wrote the adapter of step %d to %s: %d matrices, rank %d, %s",
        *(run.step, file, len(pairs), adaptation.rank, strength),
    )
    return folder


def export_model_card(
    run: OpenedRun,
    layout: str | None,
    dtype: str,
    out: pathlib.Path | None = None,
    licence: str | None = None,
) -> pathlib.Path:
    """Write a folder for a model hub: weights, card, figures, samples and what loads them again.

    Args:
        run: the opened checkpoint.
        layout: one of the network's layouts; None takes the first.
        dtype: stored type, float32, bfloat16 or float16.
        out: folder; by default one named by step in the run's `export/`.
        licence: a hub's name of it; None: what `choose_licence` says. An exported model's own is
            kept, with its text.

    Returns:
        The folder written; nothing is uploaded.

    Raises:
        ValueError: as `export_run`, and for a licence that cannot be one.
        WriteError: as `export_run`.
    """
    chosen, layout = choose_licence(run, licence), _weights_layout(run, layout)
    name = run.workdir.resolve().name.encode("utf-8", "replace").decode()
    folder = out or run.workdir / "export" / f"step_{run.step:08d}_model_card"
    figures = read_figures(run.workdir, run.step)
    with only_this_export(folder):
        _write_weights(run, layout, dtype, folder)
        write_published_run(folder, run.workdir, run.experiment.config, run.step)
        files = CardFiles(*_copy_samples(run, folder), _write_licence(run, chosen, folder))
        write_durably(folder / CARD_FILE, card_text(run, name, chosen, figures, files))
    logging.info("wrote the card of %s to %s", name, folder / CARD_FILE)
    return folder


def _copy_samples(run: OpenedRun, folder: pathlib.Path) -> tuple[list[str], str | None]:
    """Copy some videos that the run has made of this step; return their names, and the grid's."""
    is_last = run.step == run.experiment.train.num_steps
    source = run.workdir / "samples" / ("" if is_last else f"step_{run.step:08d}")
    videos, grid = sorted(source.glob("*.mp4"))[:CARD_VIDEOS], source / "grid.gif"
    for path in [*videos, *([grid] if grid.is_file() else [])]:
        write_durably(folder / "samples" / path.name, path.read_bytes())
    picture = f"samples/{grid.name}" if grid.is_file() else None
    return [f"samples/{path.name}" for path in videos], picture


def _write_licence(run: OpenedRun, licence: str, folder: pathlib.Path) -> bool:
    """Copy the licence's text; return whether there is one."""
    if kept_licence(run) == licence and (run.workdir / "LICENSE").is_file():
        write_durably(folder / "LICENSE", (run.workdir / "LICENSE").read_bytes())
        return True
    if licence != OWN_LICENCE:
        return False
    checkout = pathlib.Path(__file__).resolve().parent.parent / "LICENSE"
    text = checkout.read_text() if checkout.is_file() else None
    if text is None:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            text = importlib.metadata.distribution("tpdiff_jax").read_text("licenses/LICENSE")
    if text is not None:
        write_durably(folder / "LICENSE", text)
    return text is not None
