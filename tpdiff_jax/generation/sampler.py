"""Sampling videos: one compiled program for all stages and jumps, the same video at any batch size.

The noise of video j is a pure function of (seed, j); batches are padded to a fixed size, so how
many videos are asked for at once changes nothing.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tpdiff_jax import method
from tpdiff_jax.devices import mesh as mesh_lib
from tpdiff_jax.devices.compiler_options import quick_options
from tpdiff_jax.experiment.experiment import Experiment
from tpdiff_jax.models.layers.block_stack import with_scanned_blocks
from tpdiff_jax.training.initial_state import abstract_params
from tpdiff_jax.training.step_programs import abstract_cond
from tpdiff_jax.types import Array, Cond, Params, Positions, PRNGKey, Strides


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
        self._network = with_scanned_blocks(experiment.network)
        self._spec = spec or experiment.sampler
        self._null_cond = null_cond or experiment.task.null_cond
        self._seconds: list[float] = []  # of each video, by batch; the first one compiles
        replicated = mesh_lib.sharding(experiment.mesh)
        batched = mesh_lib.sharding(experiment.mesh, "batch")
        self._run = jax.jit(
            self._sample,
            in_shardings=(None, replicated, batched),  # None: parameters stay as they lie
            out_shardings=replicated,  # every process measures all videos
            compiler_options=quick_options(experiment.mesh),
        )

    def _sample(self, params: Params, key: PRNGKey, batch: dict[str, Any]) -> Array:
        experiment, cond = self._experiment, batch["cond"]
        sample_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["index"])

        def predict(
            x_t: Array, t: Array, positions: Positions, strides: Strides, cond: Cond
        ) -> Array:
            told = experiment.told_strides or strides
            return self._network.apply(params, x_t, t, positions, told, cond)

        return method.sample(
            predict,
            experiment.pyramid,
            self._spec,
            sample_keys,
            experiment.clip_facts.frame_shape[-1],
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
        first: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Generate one video for each row of the condition.

        Args:
            params: network parameters (the moving average, as a rule).
            cond: the entries that the data set's `cond_shapes` names, [n, ...] each.
            seed: video j depends on (seed, first + j, row j of the condition) and nothing else.
            batch_size: videos at once, rounded up to what the mesh divides; the last batch is
                padded.
            first: number of the first video.
            on_progress: called with the number of finished videos.

        Returns:
            Videos [n, f, h, w, c], float32, about [-1, 1].
        """
        shapes = self._experiment.clip_facts.cond_shapes
        num_videos = len(next(iter(cond.values())))
        key, mesh = jax.random.key(seed), self._experiment.mesh
        batch_size = mesh_lib.rounded_up(batch_size, mesh)
        local = mesh_lib.local_rows(mesh, batch_size)
        batches = []
        for start in range(0, num_videos, batch_size):
            index = np.arange(start, start + batch_size)
            rows = np.minimum(index, num_videos - 1)
            part = {name: np.asarray(cond[name], shapes[name][1])[rows] for name in shapes}
            fields = {"index": (first + index).astype(np.int32), "cond": part}
            batch = jax.tree.map(lambda a: a[local], fields)
            batch = mesh_lib.put_batch(mesh, batch, batch_size)
            started_at = time.perf_counter()
            batches.append(np.asarray(self._run(params, key, batch)))
            self._seconds.append((time.perf_counter() - started_at) / batch_size)
            if on_progress is not None:
                on_progress(min(start + batch_size, num_videos))
        return np.concatenate(batches)[:num_videos]

    @property
    def seconds_per_video(self) -> float | None:
        """Median over the batches made so far but the first, which compiles; None without."""
        return statistics.median(self._seconds[1:]) if self._seconds[1:] else None

    def trace(self, batch_size: int) -> jax.stages.Traced:
        """Trace the program that generates `batch_size` videos, without parameters.

        Args:
            batch_size: a size that the mesh divides.
        """
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
            self._spec.stage_scales,
            strict=True,
        ):
            calls = steps * (1 if scale == 1.0 else 2)
            total += calls * experiment.network.flops(stage.shape)
        return total
