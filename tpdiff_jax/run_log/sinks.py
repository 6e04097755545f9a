"""The outputs of a run's metrics, by the names that `log.sinks` takes.

A further output is one entry of `SINKS`. Entries import what they need
when they are opened, so a run needs only the libraries of the sinks that it names.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from tpdiff_jax.run_log.json_lines import METRICS_FILE, JsonlSink

Scalar: TypeAlias = int | float | str | None


class Sink(Protocol):
    """One output; every method may raise, which costs what it was to write and nothing else."""

    def write_scalars(self, step: int, scalars: Mapping[str, Scalar]) -> None:
        """Write one line of metrics.

        Args:
            step: number of completed steps.
            scalars: plain Python values, finite; None stands for one that is not.
        """

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        """Show videos, or do nothing.

        Args:
            step: number of completed steps.
            videos: name -> uint8 [n, f, h, w, c].
            fps: frames per second.
        """

    def close(self) -> None:
        """Finish; may be called again."""


def _open_jsonl(workdir: Path, last_kept_step: int) -> Sink:
    return JsonlSink(workdir / METRICS_FILE, last_kept_step)


def _open_tensorboard(workdir: Path, last_kept_step: int) -> Sink:
    from tpdiff_jax.run_log.tensorboard import TENSORBOARD_DIR, TensorBoardSink

    return TensorBoardSink(workdir / TENSORBOARD_DIR, last_kept_step)


def _open_wandb(workdir: Path, last_kept_step: int) -> Sink:
    from tpdiff_jax.run_log.weights_and_biases import WandbSink

    return WandbSink(workdir, last_kept_step)


SINKS: dict[str, Callable[[Path, int], Sink]] = {
    "jsonl": _open_jsonl,
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
}
"""Name -> constructor, from the run's folder and the last completed step whose lines are kept: what
was logged after it is logged again."""

SINK_LIBRARIES = {"wandb": "wandb"}
"""Sink -> what it needs beyond the package's requirements: told before a run, not in its log."""

REQUIRED_SINK = "jsonl"
"""Reports, `--mode=replay` and the experiments read `metrics.jsonl`."""
DEFAULT_SINKS = ("jsonl", "tensorboard")
