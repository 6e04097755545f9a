"""Sampling videos: one compiled program for all stages and jumps, the same video at any batch size.

The noise of video j is a pure function of (seed, j); batches are padded to a fixed size, so how
many videos are asked for at once changes nothing.
"""

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from tpdiff_jax import method
from tpdiff_jax.build import Experiment
from tpdiff_jax.data import Requests, requests_of_labels
from tpdiff_jax.from_checkpoint import Run
from tpdiff_jax.infra import media
from tpdiff_jax.infra import mesh as mesh_lib
from tpdiff_jax.infra.progress import Progress
from tpdiff_jax.initial_state import abstract_params
from tpdiff_jax.step_programs import abstract_cond
from tpdiff_jax.types import Array, Cond, Params, PRNGKey

GRID_SIZE = 16
MAX_NAME_CHARACTERS = 60


class Sampler:
    """Generates videos from parameters; compiles once for each batch size."""

    def __init__(
        self,
        experiment: Experiment,
        spec: method.SamplerSpec | None = None,
        null_cond: Callable[[Cond], Cond] | None = None,
    ) -> None:
        """Prepare sampling.

        Args:
            experiment: what the parameters belong to.
            spec: solver, steps and guidance; by default the experiment's.
            null_cond: what guidance points away from; by default what training drops
                conditions for.
        """
        self._experiment = experiment
        self._spec = spec or experiment.sampler
        self._null_cond = null_cond or experiment.task.null_cond
        replicated = mesh_lib.sharding(experiment.mesh)
        batched = mesh_lib.sharding(experiment.mesh, "batch")
        self._run = jax.jit(
            self._sample,
            in_shardings=(None, replicated, batched),  # None: parameters stay as they lie
            out_shardings=replicated,  # every process measures all videos
        )

    def _sample(self, params: Params, key: PRNGKey, batch: dict[str, Any]) -> Array:
        experiment, cond = self._experiment, batch["cond"]
        sample_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])

        def predict(
            x_t: Array, t: Array, frame_positions: Array, frame_stride: int, cond: Cond
        ) -> Array:
            return experiment.network.apply(params, x_t, t, frame_positions, frame_stride, cond)

        return method.sample(
            predict,
            experiment.pyramid,
            self._spec,
            sample_keys,
            experiment.dataset.frame_shape,
            cond,
            self._null_cond(cond),
        )

    def __call__(
        self,
        params: Params,
        cond: Mapping[str, np.ndarray],
        *,
        seed: int,
        batch_size: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Generate one video for each row of the condition.

        Args:
            params: network parameters (the moving average, as a rule).
            cond: the entries that the data set's `cond_shapes` names, [n, ...] each.
            seed: video j depends on (seed, j, row j of the condition) and nothing else.
            batch_size: videos at once; the last batch is padded.
            on_progress: called with the number of finished videos.

        Returns:
            Videos [n, f, h, w, c], float32, about [-1, 1].
        """
        shapes = self._experiment.dataset.cond_shapes
        num_videos = len(next(iter(cond.values())))
        key, mesh = jax.random.key(seed), self._experiment.mesh
        local = mesh_lib.local_rows(mesh, batch_size)
        batches = []
        for start in range(0, num_videos, batch_size):
            index = np.arange(start, start + batch_size)
            rows = np.minimum(index, num_videos - 1)
            part = {name: np.asarray(cond[name], shapes[name][1])[rows] for name in shapes}
            fields = {"index": index.astype(np.int32), "cond": part}
            batch = jax.tree.map(lambda a: a[local], fields)
            batch = mesh_lib.put_batch(mesh, batch, batch_size)
            batches.append(np.asarray(self._run(params, key, batch)))
            if on_progress is not None:
                on_progress(min(start + batch_size, num_videos))
        return np.concatenate(batches)[:num_videos]

    def trace(self, batch_size: int) -> jax.stages.Traced:
        """Trace the program that generates `batch_size` videos, without parameters."""
        experiment, mesh = self._experiment, self._experiment.mesh
        batched = mesh_lib.sharding(mesh, "batch")
        index = jax.ShapeDtypeStruct((batch_size,), np.int32, sharding=batched)
        return self._run.trace(
            abstract_params(experiment),
            jax.eval_shape(lambda: jax.random.key(0)),
            {"index": index, "cond": abstract_cond(experiment, batch_size)},
        )

    def flops(self) -> float:
        """Model FLOPs of one video: calls of every stage, twice where guidance is on."""
        experiment, total = self._experiment, 0.0
        for stage, steps, scale in zip(
            experiment.pyramid.stages,
            self._spec.steps_per_stage,
            self._spec.guidance_scale,
            strict=True,
        ):
            calls = steps * (1 if scale == 1.0 else 2)
            total += calls * experiment.network.flops(stage.num_frames)
        return total


def write_samples(
    folder: pathlib.Path, videos: np.ndarray, captions: Sequence[str], fps: float
) -> np.ndarray:
    """Write one MP4 a video and an animated GIF grid of the first ones.

    Args:
        folder: made if it is not there.
        videos: [n, f, h, w, c], about [-1, 1].
        captions: what each shows: part of its file's name; empty for numbers alone.
        fps: frames per second.

    Returns:
        The videos as uint8, as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    frames = media.to_uint8(videos)
    for j, video in enumerate(frames):
        name = "_".join([f"{j:04d}", *([file_words(captions[j])] if captions else [])])
        media.write_mp4(folder / f"{name}.mp4", video, fps=fps)
    media.write_gif_grid(
        folder / "grid.gif", frames[:GRID_SIZE], fps=fps, captions=captions[:GRID_SIZE]
    )
    return frames


def file_words(caption: str) -> str:
    """Return a caption as part of a file's name: ASCII letters, digits, `-` and `_`, not many."""
    return re.sub(r"[^a-z0-9-]+", "_", caption.lower())[:MAX_NAME_CHARACTERS].strip("_")


def sample_run(
    run: Run, labels: Sequence[str], captions: Sequence[str], out: pathlib.Path | None
) -> pathlib.Path:
    """Generate videos from a checkpoint and write them.

    Args:
        run: the opened checkpoint.
        labels: entries of `--labels`.
        captions: entries of `--caption`.
        out: folder; by default one named by step and seed in the run's `samples/`.

    Returns:
        The folder written.

    Raises:
        ValueError: when labels or captions do not fit the data set.
    """
    experiment, spec = run.experiment, run.experiment.sample
    dataset = experiment.dataset
    requests = requests_from_flags(dataset, labels, captions, spec.num_videos)
    folder = out or run.workdir / "samples" / f"step_{run.step:08d}_seed_{spec.seed}"
    sampler = Sampler(experiment)
    with Progress(spec.num_videos, label="sample", unit="video") as progress:
        videos = sampler(
            run.params,
            requests.cond,
            seed=spec.seed,
            batch_size=spec.batch_size,
            on_progress=progress.update,
        )
    write_samples(folder, videos, requests.captions, dataset.fps)
    logging.info("wrote %d videos and grid.gif to %s", spec.num_videos, folder)
    return folder


def requests_from_flags(
    dataset: Any, labels: Sequence[str], captions: Sequence[str], num_videos: int
) -> Requests:
    """Return what `--labels` or `--caption` ask for, or else what the data set shows by itself.

    Args:
        dataset: knows the number of digits and classes, and reads captions.
        labels: one entry a video; digits of one video joined by `-`, as in `3-7`.
        captions: one caption a video.
        num_videos: requests to return; entries are repeated or cut to it.

    Raises:
        ValueError: when both are given, or an entry does not fit the dataset.
    """
    if labels and captions:
        raise ValueError("give --labels or --captions, not both")
    if labels and not dataset.num_digits:
        raise ValueError("--labels: the run was trained without labels; leave it out")
    if captions:
        rows = dataset.captions_to_labels(captions)
    elif labels:
        rows = np.asarray([_parse_label(dataset, entry) for entry in labels], np.int32)
    else:
        return dataset.requests(num_videos)
    return requests_of_labels(rows).repeated_to(num_videos)


def _parse_label(dataset: Any, entry: str) -> list[int]:
    parts = entry.strip().split("-")
    is_valid = all(part.isdigit() and int(part) < dataset.num_classes for part in parts)
    if not is_valid or len(parts) != dataset.num_digits:
        raise ValueError(
            f"--labels entry {entry!r} must be {dataset.num_digits} number(s) from 0 to "
            f"{dataset.num_classes - 1}, joined by '-'"
        )
    return [int(part) for part in parts]
