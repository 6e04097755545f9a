"""Weights & Biases: curves, videos and the config of a run, under one id however often it resumes.

The library's own variables say where things go: WANDB_PROJECT (here `tpdiff_jax` where it is not
set), WANDB_ENTITY, WANDB_MODE=offline to write files that `wandb sync` sends later. The id stands
in the workdir. A resumed run writes again what came after its checkpoint, the same numbers at the
same steps, and the curve stays one. The library keeps lines of the last seconds in memory: after a
session that was killed, an offline one begins with the lines of metrics.jsonl up to its checkpoint.
"""

import io
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tpdiff_jax.files import media
from tpdiff_jax.files.durable import write_durably
from tpdiff_jax.run_log.json_lines import METRICS_FILE, read_metrics

ID_FILE = "wandb_id.txt"
OPEN_FILE = "wandb_open.txt"
"""There while a session writes; one that is left over was killed."""
DEFAULT_PROJECT = "tpdiff_jax"
INIT_SECONDS = 60.0  # a server that is away must not hold the loop for long


class WandbSink:
    """A run at Weights & Biases, opened with its first line: the config is in the workdir then."""

    def __init__(self, workdir: Path, last_kept_step: int) -> None:
        import wandb

        self._wandb, self._workdir = wandb, workdir
        self._is_fresh, self._last_kept_step = last_kept_step < 0, last_kept_step
        self._run: Any = None

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        known = {name: value for name, value in scalars.items() if value is not None}
        self._opened().log(known, step=step)

    def write_videos(self, step: int, videos: Mapping[str, np.ndarray], fps: int) -> None:
        """Show each set of videos as one animated grid.

        Args:
            step: number of completed steps.
            videos: name -> uint8 [n, f, h, w, c].
            fps: frames per second.
        """
        shown = {
            name: self._wandb.Video(io.BytesIO(media.gif_grid(video, fps=fps)), format="gif")
            for name, video in videos.items()
        }
        self._opened().log(shown, step=step)

    def close(self) -> None:
        """Finish; what is not yet sent is waited for."""
        if self._run is not None:
            self._run.finish()
            self._run = None
            (self._workdir / OPEN_FILE).unlink(missing_ok=True)

    def _opened(self) -> Any:
        if self._run is None:
            settings = self._wandb.Settings(
                silent=True,
                console="off",
                init_timeout=INIT_SECONDS,
                disable_code=True,
                disable_git=True,
                x_save_requirements=False,
            )
            project, run_id = os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT, self._id()
            logging.info("Weights & Biases: run %s of project %s", run_id, project)
            self._run = self._wandb.init(
                project=project,
                id=run_id,
                name=self._workdir.resolve().name,
                dir=str(self._workdir),
                config=self._config(),
                resume="allow",
                settings=settings,
            )
            self._begin()
        return self._run

    def _begin(self) -> None:
        """Log again what a killed session may not have written to its offline file."""
        mark, is_offline = self._workdir / OPEN_FILE, getattr(self._run, "offline", False)
        if mark.is_file() and self._last_kept_step >= 0 and is_offline:
            for line in read_metrics(self._workdir / METRICS_FILE):
                if line["step"] <= self._last_kept_step:
                    known = {name: value for name, value in line.items() if value is not None}
                    self._run.log(known, step=known.pop("step"))
        write_durably(mark, b"a session writes, or was killed\n")

    def _id(self) -> str:
        """The id of the run, made once: a run that starts afresh in its workdir is another."""
        path = self._workdir / ID_FILE
        if not self._is_fresh and path.is_file():
            return path.read_text().strip()
        self._is_fresh = False
        write_durably(path, (run_id := secrets.token_hex(4)).encode())
        return run_id

    def _config(self) -> dict[str, Any]:
        path = self._workdir / "config.json"
        return json.loads(path.read_text()) if path.is_file() else {}
